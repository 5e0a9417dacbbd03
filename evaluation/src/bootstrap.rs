//! Resampling patients.

use fovea_core::random::{below, stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How often patients are drawn, and from which seed. Equal draws of equal samples give equal intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draws {
    pub number: u32,
    pub seed: u64,
}

impl Default for Draws {
    /// 2,000 draws with seed 0.
    fn default() -> Self {
        Self {
            number: 2000,
            seed: 0,
        }
    }
}

impl Draws {
    /// Draws as many patients as there are, with replacement, for each draw anew, and gives `figures` how often each patient
    /// was drawn. The result of each draw, in their order.
    pub(crate) fn each<T: Send>(
        self,
        patients: usize,
        figures: impl Fn(&[u32]) -> T + Sync,
    ) -> Vec<T> {
        let draw = |number: u32| {
            let mut rng = stream("bootstrap", &[self.seed, u64::from(number)]);
            let mut times = vec![0u32; patients];
            for _ in 0..patients {
                times[below(&mut rng, patients as u64) as usize] += 1;
            }
            figures(&times)
        };
        (0..self.number).into_par_iter().map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_of_all_patients_and_repeat() {
        let draws = Draws {
            number: 50,
            seed: 3,
        };
        let all = draws.each(7, <[u32]>::to_vec);
        assert_eq!(all.len(), 50);
        assert!(all.iter().all(|times| times.iter().sum::<u32>() == 7));
        assert_ne!(all[0], all[1]);
        assert_eq!(all, draws.each(7, <[u32]>::to_vec));
        let other = Draws { seed: 4, ..draws };
        assert_ne!(all, other.each(7, <[u32]>::to_vec));
    }
}
