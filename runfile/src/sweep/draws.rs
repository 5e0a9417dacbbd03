//! Values that are drawn from a range.

use fovea_core::random::{below, stream};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use toml::Value;

/// A range that values are drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Draw {
    /// Whole numbers, both ends included, all equally likely.
    Whole { min: i64, max: i64 },
    /// Numbers; with `log` their logarithm is uniform.
    Real { min: f64, max: f64, log: bool },
}

impl Draw {
    /// Whether a table describes a range and not keys of a run file.
    pub(super) fn is_one(table: &toml::Table) -> bool {
        table.contains_key("min") && table.contains_key("max")
    }

    /// Reads `{ min = ..., max = ..., scale = "log" }`.
    pub(super) fn read(table: &toml::Table) -> Result<Self, String> {
        if let Some(other) = table
            .keys()
            .find(|key| !matches!(&***key, "min" | "max" | "scale"))
        {
            return Err(format!(
                "{other}: is no key of a range; these are min, max and scale"
            ));
        }
        let log = match table.get("scale").map(|scale| scale.as_str()) {
            None | Some(Some("linear")) => false,
            Some(Some("log")) => true,
            Some(_) => return Err("scale: is \"linear\" or \"log\"".into()),
        };
        let (min, max) = (&table["min"], &table["max"]);
        if let (Some(min), Some(max), false) = (min.as_integer(), max.as_integer(), log) {
            if min >= max {
                return Err(format!("min {min} is not below max {max}"));
            }
            return Ok(Self::Whole { min, max });
        }
        let number = |name: &str, value: &Value| {
            let number = value
                .as_float()
                .or_else(|| value.as_integer().map(|n| n as f64));
            let finite = number.filter(|number| number.is_finite());
            finite.ok_or_else(|| format!("{name}: {value} is no number"))
        };
        let (min, max) = (number("min", min)?, number("max", max)?);
        if min >= max {
            return Err(format!("min {min} is not below max {max}"));
        }
        if log && min <= 0.0 {
            return Err(format!(
                "min {min}: a logarithmic range is of positive numbers"
            ));
        }
        Ok(Self::Real { min, max, log })
    }
}

/// The random numbers of one key in one draw.
pub(super) struct Drawn(ChaCha8Rng);

impl Drawn {
    pub(super) fn new(key: &str, seed: u64, draw: u32) -> Self {
        Self(stream(&format!("sweep {key}"), &[seed, u64::from(draw)]))
    }

    /// One of these values.
    pub(super) fn one_of(&mut self, values: &[Value]) -> Value {
        values[below(&mut self.0, values.len() as u64) as usize].clone()
    }

    /// A value of a range: of a real one with three significant digits, so that it can be written down.
    pub(super) fn within(&mut self, range: &Draw) -> Value {
        match *range {
            Draw::Whole { min, max } => {
                let offset = below(&mut self.0, max.abs_diff(min).saturating_add(1));
                Value::Integer(min.saturating_add_unsigned(offset))
            }
            Draw::Real { min, max, log } => {
                let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                let value = match log {
                    true => (min.ln() + unit * (max.ln() - min.ln())).exp(),
                    false => min + unit * (max - min),
                };
                let short: f64 = format!("{value:.2e}").parse().unwrap_or(value);
                Value::Float(short.clamp(min, max))
            }
        }
    }
}
