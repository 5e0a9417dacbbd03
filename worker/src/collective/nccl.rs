//! The collective for workers on GPUs: gradients over NCCL, from GPU memory to GPU memory, and everything else over TCP.
//!
//! The ordered reduction is that of `tcp.rs`: all virtual ranks' parts of a slice are sent to the slice's owner, which
//! adds them in the order of virtual ranks; then the owners broadcast their sums. The `fast` reduction is NCCL's own
//! all-reduce, whose result depends on the number of workers and on the ring that NCCL chooses.
//!
//! A reduction is queued on a stream of its own, so that it overlaps the rest of the backward pass.

use std::time::Duration;

use fovea_core::roster::{Roster, slice_of};
use fovea_core::spec::Reduction;
use tch::{Kind, Tensor};
use tracing::{info, warn};

use super::offers::{Network, NoNccl, Offer, communicator_id};
use super::tcp::TcpCollective;
use super::{Collective, CollectiveError, accumulate_tensors};
use crate::device::{Buffer, Ready};
use crate::gpu::communicator::{Call, Communicator, Link};
use crate::gpu::nccl::Api;
use crate::gpu::{DriverError, GpuError, unique_name};

/// The TCP connections of a generation, and the connection between its GPUs.
pub struct NcclCollective {
    tcp: TcpCollective,
    link: Box<dyn Link>,
    reduction: Reduction,
    /// Number of virtual ranks that each rank hosts.
    virtual_ranks: Vec<usize>,
    rank: usize,
    /// Longest time that a reduction may take.
    patience: Duration,
    /// Memory for the parts that the other ranks send; kept from step to step.
    scratch: Option<Tensor>,
}

/// A generation that reduces gradients.
pub struct Reducing<'a> {
    /// How gradients are added.
    pub reduction: Reduction,
    /// Its members.
    pub roster: &'a Roster,
    /// This worker's rank.
    pub rank: usize,
    /// Length of a gradient.
    pub len: usize,
    /// Longest time that forming the communicator, and each reduction, may take.
    pub patience: Duration,
}

impl Reducing<'_> {
    /// Bytes that this worker sends for each step where gradients go over the mesh.
    fn bytes_sent(&self) -> u64 {
        let (len, ranks) = (self.len as u64, self.roster.members.len() as u64);
        let parts = match self.reduction {
            Reduction::Ordered => self.roster.members[self.rank].virtual_ranks.into(),
            Reduction::Fast => 1,
        };
        // Its parts of the others' slices, and its sum to each of the others.
        (parts + 1) * len * 4 * (ranks - 1) / ranks
    }
}

/// Returns `tcp` with NCCL for its reductions if every worker of the generation has NCCL and a GPU of its own and all allow
/// it, and `tcp` itself otherwise. `gpu` is this worker's NCCL and its GPU's number, if it has both. All workers of a
/// generation must call it at the same point.
///
/// # Errors
/// If a peer is lost, or a call of the driver or of NCCL fails.
pub fn with_nccl(
    mut tcp: TcpCollective,
    gpu: Option<(&Api, usize)>,
    network: Network,
    reducing: &Reducing,
) -> Result<Box<dyn Collective>, CollectiveError> {
    let Reducing {
        reduction,
        roster,
        rank,
        patience,
        ..
    } = *reducing;
    // A single worker sends nothing.
    if roster.members.len() == 1 {
        return Ok(Box::new(tcp));
    }
    // Rank 0 sends the communicator's id before its offer.
    let mut mine = Vec::new();
    if let Some((api, device)) = gpu {
        if rank == 0 {
            mine = api.unique_id().map_err(CollectiveError::Gpu)?;
        }
        let gpu = unique_name(device).map_err(gpu_error)?;
        mine.extend(Offer { gpu, network }.bytes());
    }
    let messages = tcp.gather(&mine)?;
    let Some((api, device)) = gpu else {
        return Ok(Box::new(tcp));
    };
    let names = roster.members.iter().map(|member| member.worker.as_str());
    let by_worker: Vec<(&str, &[u8])> = names.zip(messages.iter().map(Vec::as_slice)).collect();
    let id = match communicator_id(&by_worker) {
        Ok(id) => id,
        Err(reason @ NoNccl::PlainText(_)) => {
            let megabytes = reducing.bytes_sent() as f64 / 1e6;
            warn!(
                megabytes,
                "reduction.encrypted: gradients are reduced through the host's memory and the mesh, whose connections \
                 are encrypted, because {reason}: in each step this worker copies them from its GPU and encrypts and sends \
                 {megabytes:.0} MB, and receives as much, on one processor core. If nobody else is in that network, or it is \
                 encrypted below (WireGuard, IPsec), set allow_plaintext_nccl = true at every worker"
            );
            return Ok(Box::new(tcp));
        }
        Err(reason) => {
            info!(
                %reason,
                "reduction.selected: gradients are reduced through the host's memory: {reason}"
            );
            return Ok(Box::new(tcp));
        }
    };
    let ranks = roster.members.len();
    let communicator = {
        let waiting = tcp.waiting();
        let _waits = waiting.begin((rank + 1) % ranks);
        let slot = tcp.communicator();
        Communicator::connect(api, device, slot, id, ranks, rank, waiting, patience)
            .map_err(CollectiveError::Gpu)?
    };
    info!(
        nccl = api.version,
        "reduction.selected: gradients are reduced by NCCL {}", api.version
    );
    let link = Box::new(communicator);
    Ok(Box::new(NcclCollective::new(
        tcp, link, reduction, roster, rank, patience,
    )))
}

fn gpu_error(error: DriverError) -> CollectiveError {
    CollectiveError::Gpu(error.into())
}

impl NcclCollective {
    fn new(
        tcp: TcpCollective,
        link: Box<dyn Link>,
        reduction: Reduction,
        roster: &Roster,
        rank: usize,
        patience: Duration,
    ) -> Self {
        let virtual_ranks = roster.members.iter().map(|m| m.virtual_ranks as usize);
        Self {
            tcp,
            link,
            reduction,
            virtual_ranks: virtual_ranks.collect(),
            rank,
            patience,
            scratch: None,
        }
    }

    /// [`Collective::reduce`] for tensors in this GPU's memory, by NCCL's all-reduce.
    fn all_reduce(&mut self, parts: &[&Tensor], sum: &Tensor) -> Result<(), GpuError> {
        self.link
            .compute(&mut || accumulate_tensors(sum, parts.iter().copied()))?;
        let calls = [Call::AllReduce {
            at: sum.data_ptr().cast(),
            len: sum.numel(),
        }];
        // SAFETY: `sum` is in this GPU's memory and stays allocated until after the wait below.
        unsafe { self.link.group(&calls, self.patience)? };
        self.link.wait(self.patience)
    }

    /// [`Collective::reduce`] for tensors in this GPU's memory, in the order of virtual ranks.
    fn reduce_tensors(&mut self, parts: &[&Tensor], sum: &Tensor) -> Result<(), GpuError> {
        let ranks = self.virtual_ranks.len();
        let slice = |rank: usize| slice_of(sum.numel() as u64, ranks, rank);
        let own = slice(self.rank);
        let own_len = (own.end - own.start) as usize;
        let from_others: usize = self.virtual_ranks.iter().sum::<usize>() - parts.len();
        let needed = (from_others * own_len) as i64;
        if self
            .scratch
            .as_ref()
            .is_none_or(|s| s.numel() < needed as usize)
        {
            self.scratch = Some(Tensor::empty([needed], (Kind::Float, sum.device())));
        }
        let scratch = self.scratch.as_ref().expect("made above");

        // Reduce-scatter: send all parts of each slice to the slice's owner.
        let mut calls = Vec::new();
        let mut received = 0;
        for peer in (0..ranks).filter(|&peer| peer != self.rank) {
            let theirs = slice(peer);
            let len = (theirs.end - theirs.start) as usize;
            for part in parts.iter().filter(|_| len > 0) {
                // SAFETY: the slice lies in the part.
                let at = unsafe { part.data_ptr().cast::<f32>().add(theirs.start as usize) };
                calls.push(Call::Send { at, len, to: peer });
            }
            for _ in (0..self.virtual_ranks[peer]).filter(|_| own_len > 0) {
                // SAFETY: `scratch` has room for one slice of each virtual rank of the other ranks.
                let at = unsafe { scratch.data_ptr().cast::<f32>().add(received * own_len) };
                received += 1;
                calls.push(Call::Receive {
                    at,
                    len: own_len,
                    from: peer,
                });
            }
        }
        // SAFETY: parts and scratch are in this GPU's memory and stay allocated until after the wait below.
        unsafe { self.link.group(&calls, self.patience)? };

        // Add the parts of the own slice in the order of virtual ranks.
        let owned = |tensor: &Tensor| tensor.narrow(0, own.start as i64, own_len as i64);
        let mut in_order = Vec::new();
        let mut taken = 0;
        for (rank, &count) in self.virtual_ranks.iter().enumerate() {
            if rank == self.rank {
                in_order.extend(parts.iter().map(|part| owned(part)));
                continue;
            }
            for _ in 0..count {
                in_order.push(scratch.narrow(0, (taken * own_len) as i64, own_len as i64));
                taken += 1;
            }
        }
        let total = owned(sum);
        self.link
            .compute(&mut || accumulate_tensors(&total, in_order.iter()))?;

        // All-gather: each owner sends its sum to all.
        let calls: Vec<Call> = (0..ranks)
            .map(|root| (root, slice(root)))
            .filter(|(_, slice)| slice.end > slice.start)
            .map(|(root, slice)| Call::Broadcast {
                // SAFETY: the slice lies in the sum.
                at: unsafe { sum.data_ptr().cast::<f32>().add(slice.start as usize) },
                len: (slice.end - slice.start) as usize,
                root,
            })
            .collect();
        // SAFETY: `sum` is in this GPU's memory and stays allocated until after the wait below.
        unsafe { self.link.group(&calls, self.patience)? };
        self.link.wait(self.patience)
    }
}

impl Collective for NcclCollective {
    fn reduce(
        &mut self,
        parts: &[Buffer],
        sum: &mut Buffer,
        ready: Ready,
    ) -> Result<(), CollectiveError> {
        let tensors: Vec<&Tensor> = parts.iter().filter_map(Buffer::tensor).collect();
        let Buffer::Tensor(total) = &*sum else {
            return self.tcp.reduce(parts, sum, ready);
        };
        let next = (self.rank + 1) % self.virtual_ranks.len();
        let waiting = self.tcp.waiting().clone();
        let _waits = waiting.begin(next);
        let total = total.shallow_clone();
        let begun = self.link.begin(ready);
        let reduced = begun.and_then(|()| match self.reduction {
            Reduction::Ordered => self.reduce_tensors(&tensors, &total),
            Reduction::Fast => self.all_reduce(&tensors, &total),
        });
        reduced.map_err(CollectiveError::Gpu)
    }

    fn gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.tcp.gather(mine)
    }

    fn gather_patiently(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.tcp.gather_patiently(mine)
    }

    fn broadcast(
        &mut self,
        source: usize,
        receivers: &[usize],
        state: &mut [f32],
    ) -> Result<(), CollectiveError> {
        self.tcp.broadcast(source, receivers, state)
    }
}

#[cfg(test)]
#[path = "nccl_tests.rs"]
mod tests;
