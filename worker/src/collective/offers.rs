//! Whether the gradients of a generation travel by NCCL. Each worker makes an offer, and all decide alike, because all have the
//! offers of all. They travel over the mesh, so with TLS they are genuine.

use std::collections::{BTreeMap, BTreeSet};

use crate::gpu::nccl::ID_BYTES;

/// What a worker that has NCCL says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// The unique name of its GPU.
    pub(super) gpu: String,
    /// Its machine and what it allows.
    pub(super) network: Network,
}

/// What gradients would pass between this worker and others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Boot id of this machine; empty if it is not known.
    pub machine: String,
    /// Gradients may go to other machines in plain text: there is no TLS, or it was allowed by name.
    pub plain_text: bool,
}

/// Why a generation does not use NCCL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoNccl {
    /// Workers without a GPU, or without the library.
    #[error("no NCCL at {}", .0.join(", "))]
    Missing(Vec<String>),
    #[error("rank 0 sent {bytes} bytes, which hold no id of a communicator ({ID_BYTES} bytes)")]
    NoId { bytes: usize },
    #[error("{worker} sent an offer that makes no sense")]
    NoOffer { worker: String },
    #[error(
        "{one} and {other} share a GPU, which NCCL does not allow; give each its own (local_rank)"
    )]
    SharedGpu { one: String, other: String },
    /// It would leave a machine in plain text.
    #[error(
        "NCCL sends in plain text between machines, and {} not allow that",
        allows_not(.0)
    )]
    PlainText(Vec<String>),
}

fn allows_not(workers: &[String]) -> String {
    let does = if workers.len() == 1 { "does" } else { "do" };
    format!("{} {does}", workers.join(", "))
}

impl Offer {
    /// As it is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { gpu, network } = self;
        let Network {
            machine,
            plain_text,
        } = network;
        // A boot id is a UUID.
        let machine = &machine.as_bytes()[..machine.len().min(usize::from(u8::MAX))];
        let mut bytes = vec![u8::from(*plain_text), machine.len() as u8];
        bytes.extend(machine);
        bytes.extend(gpu.as_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[plain_text, machine], rest) = bytes.split_first_chunk()?;
        let (machine, gpu) = rest.split_at_checked(usize::from(machine))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        Some(Self {
            gpu: text(gpu)?,
            network: Network {
                machine: text(machine)?,
                plain_text: plain_text == 1,
            },
        })
    }
}

/// The communicator's id from the offers of all workers, which are given by rank with the workers' names; that of rank 0 follows
/// the id. An empty message means that the worker has no NCCL.
pub(super) fn communicator_id<'a>(messages: &[(&str, &'a [u8])]) -> Result<&'a [u8], NoNccl> {
    let missing: Vec<String> = messages
        .iter()
        .filter(|(_, message)| message.is_empty())
        .map(|(worker, _)| (*worker).to_owned())
        .collect();
    if !missing.is_empty() {
        return Err(NoNccl::Missing(missing));
    }
    let (_, first) = messages[0];
    let (id, first) = first
        .split_at_checked(ID_BYTES)
        .ok_or(NoNccl::NoId { bytes: first.len() })?;
    let mut offers = Vec::with_capacity(messages.len());
    for (rank, (worker, message)) in messages.iter().enumerate() {
        let offer = Offer::read(if rank == 0 { first } else { message });
        let worker = (*worker).to_owned();
        match offer {
            Some(offer) => offers.push((worker, offer)),
            None => return Err(NoNccl::NoOffer { worker }),
        }
    }
    let mut gpus: BTreeMap<&str, &str> = BTreeMap::new();
    for (worker, offer) in &offers {
        if let Some(one) = gpus.insert(&offer.gpu, worker) {
            return Err(NoNccl::SharedGpu {
                one: one.to_owned(),
                other: worker.clone(),
            });
        }
    }
    let machines: BTreeSet<&str> = (offers.iter())
        .map(|(_, offer)| offer.network.machine.as_str())
        .collect();
    let one_machine = machines.len() == 1 && !machines.contains("");
    let refusing = offers.iter().filter(|(_, o)| !o.network.plain_text);
    let refusing: Vec<String> = refusing.map(|(worker, _)| worker.clone()).collect();
    match one_machine || refusing.is_empty() {
        true => Ok(id),
        false => Err(NoNccl::PlainText(refusing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; ID_BYTES] = [7; ID_BYTES];

    fn offer(gpu: &str, machine: &str, plain_text: bool) -> Vec<u8> {
        let network = Network {
            machine: machine.into(),
            plain_text,
        };
        let gpu = gpu.into();
        Offer { gpu, network }.bytes()
    }

    fn decide(offers: &[Vec<u8>]) -> Result<(), NoNccl> {
        let names = ["w0", "w1", "w2"];
        let first = [&ID[..], &offers[0]].concat();
        let mut messages: Vec<(&str, &[u8])> = vec![("w0", &first)];
        messages.extend(
            names
                .into_iter()
                .zip(offers.iter().map(Vec::as_slice))
                .skip(1),
        );
        communicator_id(&messages).map(|id| assert_eq!(id, ID))
    }

    #[test]
    fn each_worker_needs_nccl_and_a_gpu_of_its_own() {
        let gpu = |name: &str| offer(name, "m", true);
        assert_eq!(decide(&[gpu("a"), gpu("b"), gpu("c")]), Ok(()));
        let reason = |offers: &[Vec<u8>]| decide(offers).unwrap_err().to_string();
        let text = reason(&[gpu("a"), vec![], vec![]]);
        assert!(text.contains("no NCCL at w1, w2"), "{text}");
        let text = reason(&[gpu("a"), gpu("b"), gpu("a")]);
        assert!(text.contains("w0 and w2 share a GPU"), "{text}");
        let text = reason(&[gpu("a"), vec![1, 9, b'm']]);
        assert!(text.contains("w1 sent an offer"), "{text}");
        let text = communicator_id(&[("w0", b"gpu-a"), ("w1", b"gpu-b")]);
        let text = text.unwrap_err().to_string();
        assert!(text.contains("rank 0 sent 5 bytes"), "{text}");
    }

    /// By machines, and who allows it.
    #[test]
    fn nothing_leaves_a_machine_in_plain_text_unless_all_allow_it() {
        let refused = |workers: &[&str]| {
            let workers = workers.iter().map(|&worker| worker.to_owned());
            Err(NoNccl::PlainText(workers.collect()))
        };
        for (machines, allow, expected) in [
            (["m", "m", "m"], [false, false, false], Ok(())),
            (["m", "n", "m"], [true, true, true], Ok(())),
            (["m", "n", "m"], [true, false, true], refused(&["w1"])),
            (
                ["m", "m", "n"],
                [false, true, false],
                refused(&["w0", "w2"]),
            ),
            // What is not known may be anywhere.
            (
                ["", "", ""],
                [false, false, false],
                refused(&["w0", "w1", "w2"]),
            ),
            (["", "", ""], [true, true, true], Ok(())),
            (["m", "", "m"], [false, true, true], refused(&["w0"])),
        ] {
            let offers: Vec<Vec<u8>> = (0..3)
                .map(|i| offer(&format!("gpu-{i}"), machines[i], allow[i]))
                .collect();
            assert_eq!(decide(&offers), expected, "{machines:?} {allow:?}");
        }
        let text = NoNccl::PlainText(vec!["w1".into()]).to_string();
        assert!(text.ends_with("w1 does not allow that"), "{text}");
    }
}
