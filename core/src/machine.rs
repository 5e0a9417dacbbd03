//! The kind of a worker's machine: what the bits of its results depend on, as far as that is known before it serves a run.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Fingerprint;

/// Device and libraries of a worker. Workers of equal machines compute the same bits for a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu`, or the GPU's model.
    pub device: String,
    /// CPU model with its vector extensions; of a GPU the versions of its libraries.
    pub cpu: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// The compiler of Fovea's own GPU kernels, if the worker may use them; otherwise empty.
    pub kernels: String,
}

impl Machine {
    /// The differences between `self` (now) and `then`, one text for each field.
    pub fn differences(&self, then: &Machine) -> Vec<String> {
        let Machine {
            device,
            cpu,
            libtorch,
            kernels,
        } = self;
        let libraries = match device == "cpu" && then.device == "cpu" {
            true => "cpu",
            false => "libraries",
        };
        let fields = [
            ("device", device, &then.device),
            (libraries, cpu, &then.cpu),
            ("libtorch", libtorch, &then.libtorch),
            ("kernels", kernels, &then.kernels),
        ];
        fields
            .into_iter()
            .filter_map(|(what, now, then)| difference(what, now, then))
            .collect()
    }

    /// Whether it computes on a GPU.
    pub fn is_gpu(&self) -> bool {
        self.device != "cpu"
    }
}

/// In words, if the two differ.
pub(crate) fn difference(what: &str, now: &str, then: &str) -> Option<String> {
    (now != then).then(|| format!("{what} was {then:?}, now {now:?}"))
}

impl Fingerprint {
    /// The kind of machine that it is of.
    pub fn machine(&self) -> Machine {
        Machine {
            device: self.device.clone(),
            cpu: self.cpu.clone(),
            libtorch: self.libtorch.clone(),
            kernels: self.kernels.clone(),
        }
    }
}

/// The machines that a run wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Machines {
    /// All alike, whichever they are; these rather than others. It has not begun, or a person has resumed it.
    Alike {
        /// That of its last generation.
        rather: Option<Machine>,
    },
    /// Those that it began on: others would change its bits.
    Only(Machine),
    /// Any, also different ones (`workers.mixed`).
    #[default]
    Any,
}

/// Whether `device` (`cpu`, or the model of a GPU) is what `workers.device` asks for: a part of its name in any case. An empty
/// wish is every device.
pub fn is_device(device: &str, wish: &str) -> bool {
    device.to_lowercase().contains(&wish.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_compared() {
        let then = Machine {
            device: "NVIDIA H100 80GB HBM3".into(),
            cpu: "cuDNN 9.19.0".into(),
            libtorch: "2.11.0".into(),
            kernels: "NVRTC 13.0".into(),
        };
        assert!(then.differences(&then).is_empty());
        let other = Machine {
            device: "NVIDIA A100-SXM4-80GB".into(),
            ..then.clone()
        };
        assert_eq!(
            other.differences(&then),
            ["device was \"NVIDIA H100 80GB HBM3\", now \"NVIDIA A100-SXM4-80GB\""]
        );
        let without = Machine {
            cpu: "cuDNN 9.20.0".into(),
            libtorch: "2.12.0".into(),
            kernels: String::new(),
            ..then.clone()
        };
        assert_eq!(without.differences(&then).len(), 3);
    }

    #[test]
    fn a_device_is_found_by_a_part_of_its_name() {
        let h100 = "NVIDIA H100 80GB HBM3";
        for (wish, found) in [
            ("", true),
            ("h100", true),
            ("H100 80GB", true),
            ("cpu", false),
        ] {
            assert_eq!(is_device(h100, wish), found, "{wish}");
        }
        assert!(is_device("cpu", "CPU"));
    }
}
