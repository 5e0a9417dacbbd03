//! Tests of what the reduction sends, and in which order it adds. Channels and host memory stand for NCCL and GPUs.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::tcp::tests::{bits, in_tensors, meshed, parts, reduced, roster};
use super::*;
use crate::testing::PATIENCE;

#[test]
fn the_cost_of_the_mesh_is_counted() {
    let roster = roster(4, 8);
    let mut reducing = Reducing {
        reduction: Reduction::Ordered,
        roster: &roster,
        rank: 0,
        len: 1000,
        patience: PATIENCE,
    };
    // Two parts, and the sum: three quarters of each to others.
    assert_eq!(reducing.bytes_sent(), 9000);
    reducing.reduction = Reduction::Fast;
    assert_eq!(reducing.bytes_sent(), 6000);
}

/// One rank's link, which copies host memory through channels.
struct Memory {
    rank: usize,
    /// By receiving rank.
    to: Vec<Sender<Vec<f32>>>,
    /// By sending rank.
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
    fn begin(&mut self, _: Ready) -> Result<(), GpuError> {
        Ok(())
    }

    fn compute(&mut self, work: &mut dyn FnMut()) -> Result<(), GpuError> {
        work();
        Ok(())
    }

    unsafe fn group(&mut self, calls: &[Call], deadline: Duration) -> Result<(), GpuError> {
        // SAFETY: the caller guarantees the addresses.
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
                // SAFETY: the caller guarantees the addresses.
                let sum = unsafe { std::slice::from_raw_parts_mut(at, len) };
                for from in (0..self.from.len()).filter(|&from| from != self.rank) {
                    let received = self.from[from].recv_timeout(deadline);
                    let received = received.map_err(|_| GpuError::ReductionTimeout { deadline })?;
                    sum.iter_mut().zip(received).for_each(|(s, r)| *s += r);
                }
                continue;
            }
            let (at, len, from) = match *call {
                Call::Receive { at, len, from } => (at, len, from),
                Call::Broadcast { at, len, root } if root != self.rank => (at, len, root),
                Call::Broadcast { .. } | Call::Send { .. } | Call::AllReduce { .. } => continue,
            };
            let received = self.from[from].recv_timeout(deadline);
            let received = received.map_err(|_| GpuError::ReductionTimeout { deadline })?;
            assert_eq!(received.len(), len, "from {from} to {}", self.rank);
            // SAFETY: the caller guarantees the addresses.
            unsafe { std::slice::from_raw_parts_mut(at, len) }.copy_from_slice(&received);
        }
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> Result<(), GpuError> {
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
    // A length that the number of workers does not divide, and one shorter than the number of workers.
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
                    // The second reduction reuses the scratch memory of the first.
                    for _ in 0..2 {
                        collective.reduce(&parts, &mut sum, None).unwrap();
                        let found = bits(&sum.read(0..len));
                        assert!(found == *expected, "{workers} workers, {len}");
                    }
                    // Everything but reductions is sent over TCP.
                    let all = collective.gather(&[rank as u8]).unwrap();
                    assert_eq!(all.len(), workers);
                });
            }
        });
    }
}
