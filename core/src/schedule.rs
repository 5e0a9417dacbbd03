//! Learning-rate schedules: a pure function of the step.

use serde::{Deserialize, Serialize};

/// How the learning rate falls over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Always `base`.
    Fixed,
    /// Caffe's `poly`: base * (1 - step/max_steps)^power.
    Poly,
}

/// A learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Learning rate at the start.
    pub base: f64,
    /// How it falls.
    pub policy: Policy,
    /// Exponent of `poly`.
    pub power: f64,
    /// Steps over which the rate first rises linearly from base/warmup to base; 0 for none.
    pub warmup_steps: u64,
    /// Steps in the whole run.
    pub max_steps: u64,
}

impl Schedule {
    /// The learning rate of the `step`-th step (0-based).
    pub fn rate(&self, step: u64) -> f64 {
        let policy = match self.policy {
            Policy::Fixed => 1.0,
            Policy::Poly => {
                let done = step as f64 / self.max_steps.max(1) as f64;
                (1.0 - done).max(0.0).powf(self.power)
            }
        };
        let warmup = if step < self.warmup_steps {
            (step + 1) as f64 / self.warmup_steps as f64
        } else {
            1.0
        };
        self.base * policy * warmup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poly_follows_caffe() {
        let s = Schedule {
            base: 0.01,
            policy: Policy::Poly,
            power: 0.5,
            warmup_steps: 0,
            max_steps: 100,
        };
        assert_eq!(s.rate(0), 0.01);
        assert!((s.rate(75) - 0.005).abs() < 1e-15);
        assert_eq!(s.rate(100), 0.0);
        assert_eq!(s.rate(1000), 0.0);
    }

    #[test]
    fn warmup_rises_to_the_policy() {
        let s = Schedule {
            base: 1.0,
            policy: Policy::Fixed,
            power: 1.0,
            warmup_steps: 4,
            max_steps: 10,
        };
        let rates: Vec<f64> = (0..6).map(|i| s.rate(i)).collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    }
}
