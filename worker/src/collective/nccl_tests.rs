//! What is sent where, and in which order it is added: with memory in the place of GPUs and of NCCL.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::tcp::tests::{PATIENCE, bits, in_tensors, meshed, parts, reduced, roster};
use super::*;
use crate::gpu::Found;

#[test]
fn nccl_needs_a_gpu_for_each_worker() {
    let id = [7u8; ID_BYTES];
    let named = [&id[..], b"card-a"].concat();
    let reason = |said: &[(&str, &[u8])]| communicator_name(said).unwrap_err();
    assert_eq!(
        communicator_name(&[("w0", &named), ("w1", b"card-b"), ("w2", b"card-c")]),
        Ok(&id[..])
    );
    let said = reason(&[("w0", &named), ("w1", b""), ("w2", b"")]);
    assert!(said.contains("no NCCL at w1, w2"), "{said}");
    let said = reason(&[("w0", &named), ("w1", b"card-b"), ("w2", b"card-a")]);
    assert!(said.contains("w0 and w2 share a GPU"), "{said}");
    let said = reason(&[("w0", b"card-a"), ("w1", b"card-b")]);
    assert!(said.contains("no name"), "{said}");
}

/// A rank's end of connections that copy memory.
struct Memory {
    rank: usize,
    /// By rank.
    to: Vec<Sender<Vec<f32>>>,
    from: Vec<Receiver<Vec<f32>>>,
}

fn between(ranks: usize) -> Vec<Memory> {
    let mut to: Vec<Vec<_>> = (0..ranks).map(|_| Vec::new()).collect();
    let mut from: Vec<Vec<_>> = (0..ranks).map(|_| Vec::new()).collect();
    for from in &mut from {
        for to in &mut to {
            let (send, receive) = channel();
            to.push(send);
            from.push(receive);
        }
    }
    let ends = to.into_iter().zip(from).enumerate();
    ends.map(|(rank, (to, from))| Memory { rank, to, from })
        .collect()
}

impl Link for Memory {
    fn begin(&mut self, _: Ready) -> Found<()> {
        Ok(())
    }

    fn compute(&mut self, work: &mut dyn FnMut()) -> Found<()> {
        work();
        Ok(())
    }

    unsafe fn group(&mut self, calls: &[Call], deadline: Duration) -> Found<()> {
        // SAFETY: the caller's.
        let copy = |at: *const f32, len| unsafe { std::slice::from_raw_parts(at, len).to_vec() };
        for call in calls {
            match *call {
                Call::Send { at, len, to } => self.to[to].send(copy(at, len)).unwrap(),
                Call::Broadcast { at, len, root } if root == self.rank => {
                    for (to, send) in self.to.iter().enumerate() {
                        if to != self.rank {
                            send.send(copy(at, len)).unwrap();
                        }
                    }
                }
                Call::AllReduce { at, len } => {
                    for (to, send) in self.to.iter().enumerate() {
                        if to != self.rank {
                            send.send(copy(at, len)).unwrap();
                        }
                    }
                }
                Call::Broadcast { .. } | Call::Receive { .. } => {}
            }
        }
        for call in calls {
            if let Call::AllReduce { at, len } = *call {
                // SAFETY: the caller's.
                let sum = unsafe { std::slice::from_raw_parts_mut(at, len) };
                for from in (0..self.from.len()).filter(|&from| from != self.rank) {
                    let came = self.from[from].recv_timeout(deadline);
                    let came = came.map_err(|e| e.to_string())?;
                    sum.iter_mut().zip(came).for_each(|(s, c)| *s += c);
                }
                continue;
            }
            let (at, len, from) = match *call {
                Call::Receive { at, len, from } => (at, len, from),
                Call::Broadcast { at, len, root } if root != self.rank => (at, len, root),
                Call::Broadcast { .. } | Call::Send { .. } | Call::AllReduce { .. } => continue,
            };
            let came = self.from[from]
                .recv_timeout(deadline)
                .map_err(|e| e.to_string())?;
            assert_eq!(came.len(), len, "from {from} to {}", self.rank);
            // SAFETY: the caller's.
            unsafe { std::slice::from_raw_parts_mut(at, len) }.copy_from_slice(&came);
        }
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> Found<()> {
        Ok(())
    }
}

fn collective(
    tcp: TcpCollective,
    link: Memory,
    reduction: Reduction,
    roster: &Roster,
    rank: usize,
) -> NcclCollective {
    NcclCollective::new(tcp, Box::new(link), reduction, roster, rank, PATIENCE)
}

#[test]
fn a_fast_sum_is_that_of_all_parts() {
    let (len, workers) = (1003, 3);
    let roster = roster(workers, 7);
    let all: Vec<Buffer> = (0..workers)
        .flat_map(|rank| parts(&roster, rank, len))
        .collect();
    let all: Vec<&[f32]> = all.iter().filter_map(Buffer::host).collect();
    let ends = meshed(&roster, PATIENCE).into_iter().zip(between(workers));
    std::thread::scope(|scope| {
        for (rank, (tcp, link)) in ends.enumerate() {
            let (roster, all) = (&roster, &all);
            scope.spawn(move || {
                let mut collective = collective(tcp, link, Reduction::Fast, roster, rank);
                let parts = in_tensors(&parts(roster, rank, len));
                let mut sum = Buffer::Tensor(Tensor::from_slice(&vec![f32::NAN; len]));
                collective.reduce(&parts, &mut sum, None).unwrap();
                for (i, found) in sum.read(0..len).into_iter().enumerate() {
                    let exact: f64 = all.iter().map(|part| f64::from(part[i])).sum();
                    let size: f64 = all.iter().map(|part| f64::from(part[i].abs())).sum();
                    assert!(
                        (f64::from(found) - exact).abs() <= 1e-6 * size,
                        "{found} {exact}"
                    );
                }
            });
        }
    });
}

#[test]
fn the_sum_is_the_same_to_the_bit_for_any_number_of_gpus() {
    // One length that does not divide, and one with less than an element for each.
    for (len, workers) in [(1003, 2), (1003, 3), (1003, 5), (3, 5)] {
        let expected = bits(&reduced(1, 7, len)[0]);
        let roster = roster(workers, 7);
        let ends = meshed(&roster, PATIENCE).into_iter().zip(between(workers));
        std::thread::scope(|scope| {
            for (rank, (tcp, link)) in ends.enumerate() {
                let (roster, expected) = (&roster, &expected);
                scope.spawn(move || {
                    let mut collective = collective(tcp, link, Reduction::Ordered, roster, rank);
                    let parts = in_tensors(&parts(roster, rank, len));
                    let mut sum = Buffer::Tensor(Tensor::from_slice(&vec![f32::NAN; len]));
                    // The second time with the first one's scratch.
                    for _ in 0..2 {
                        collective.reduce(&parts, &mut sum, None).unwrap();
                        let found = bits(&sum.read(0..len));
                        assert!(found == *expected, "{workers} workers, {len}");
                    }
                    // The rest goes over TCP.
                    let all = collective.gather(&[rank as u8]).unwrap();
                    assert_eq!(all.len(), workers);
                });
            }
        });
    }
}
