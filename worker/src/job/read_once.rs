//! A stored checkpoint is read by one member of a generation, and handed on to the others over the mesh: the coordinator
//! sends it once, however many members there are.
//!
//! ```text
//! rank 0: read ──> Read, state ──> all others
//!           └────> Failed ──> rank 1: read ──> ...
//! ```
//!
//! The reader sends a notice twice a second, so that the others' deadline does not end while the coordinator is slow or
//! cannot read the checkpoint. If the reader dies, its connections break, and the next generation has another rank 0.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use fovea_core::roster::Roster;
use tracing::{info, warn};

use super::error::JobError;
use super::types::FetchError;
use crate::collective::Collective;
use crate::progress::Progress;
use crate::training::Control;

/// Time between two notices. Peers may be given as little as a second to answer.
const NOTICE: Duration = Duration::from_millis(500);

/// Reads the stored checkpoint's state; it may take long.
pub(super) type ReadStored<'a> = dyn FnMut() -> Result<Vec<f32>, JobError> + Send + 'a;

/// How far the reader is. Sent as a broadcast of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// It reads.
    Reading = 1,
    /// The state follows.
    Read,
    /// It cannot fetch the checkpoint; another member may be able to.
    Failed,
    /// It has failed in a way that would meet another member, too, or was asked to stop: its report to the coordinator
    /// decides.
    GivenUp,
}

impl Notice {
    fn from_number(number: f32) -> Option<Self> {
        let all = [Self::Reading, Self::Read, Self::Failed, Self::GivenUp];
        all.into_iter()
            .find(|&notice| f32::from(notice as u8) == number)
    }
}

/// The members of a generation, one of which reads.
pub(super) struct Readers<'a> {
    pub(super) roster: &'a Roster,
    pub(super) rank: usize,
    pub(super) collective: &'a mut dyn Collective,
    pub(super) progress: &'a Progress,
    pub(super) control: &'a Control,
    /// Elements of a state.
    pub(super) state_len: usize,
}

impl Readers<'_> {
    /// The stored state, which `read` reads on one member. All members call this at the same point.
    ///
    /// # Errors
    /// That of `read`, if it was called here; that of the collective; [`FetchError::Cancelled`] if the generation need
    /// not begin any more.
    pub(super) fn read_once(mut self, read: &mut ReadStored) -> Result<Vec<f32>, JobError> {
        let state = self.read_in_turn(read);
        // All members are asked to stop at the same time, and one that does disconnects from the others.
        let stopping = self.control.stopping() || self.control.given_up();
        match state {
            Err(JobError::Collective(_) | JobError::NotRead { .. }) if stopping => {
                Err(FetchError::Cancelled.into())
            }
            state => state,
        }
    }

    fn read_in_turn(&mut self, read: &mut ReadStored) -> Result<Vec<f32>, JobError> {
        let mut own_failure = None;
        for reader in 0..self.roster.members.len() {
            if reader == self.rank {
                match self.read_here(read) {
                    Err(JobError::Fetch(FetchError::Failed(problem))) => {
                        warn!(
                            step = self.roster.start_step,
                            "checkpoint.not_fetched: this worker cannot fetch the checkpoint: {problem}; leaving it to \
                             another member"
                        );
                        own_failure = Some(FetchError::Failed(problem).into());
                    }
                    done => return done,
                }
            } else if let Some(state) = self.receive_from(reader)? {
                return Ok(state);
            }
        }
        Err(own_failure.unwrap_or(JobError::NoState))
    }

    /// Reads, and hands on.
    fn read_here(&mut self, read: &mut ReadStored) -> Result<Vec<f32>, JobError> {
        let progress = self.progress;
        let read = std::thread::scope(|scope| {
            // If reading hangs, that must be detected.
            let _busy = progress.waiting().busy();
            let (done, finished) = sync_channel(1);
            // The receiver is gone after an error of the collective, which then is the result.
            scope.spawn(move || drop(done.send(read())));
            loop {
                match finished.recv_timeout(NOTICE) {
                    Ok(read) => break read,
                    Err(RecvTimeoutError::Timeout) => self.send(Notice::Reading)?,
                    // Reading has panicked, and so will the scope.
                    Err(RecvTimeoutError::Disconnected) => break Err(JobError::NoState),
                }
            }
        });
        let mut state = match read {
            Ok(state) => state,
            Err(error) => {
                self.send(match error {
                    JobError::Fetch(FetchError::Failed(_)) => Notice::Failed,
                    _ => Notice::GivenUp,
                })?;
                return Err(error);
            }
        };
        let others = self.others(self.rank);
        if !others.is_empty() {
            let step = self.roster.start_step;
            info!(
                step,
                "state.handed_on: sending the stored state of step {step} to {} other members",
                others.len()
            );
        }
        self.send(Notice::Read)?;
        self.collective.broadcast(self.rank, &others, &mut state)?;
        self.progress.tick();
        Ok(state)
    }

    /// The state that `reader` has read, or None if it could not.
    fn receive_from(&mut self, reader: usize) -> Result<Option<Vec<f32>>, JobError> {
        let others = self.others(reader);
        loop {
            let mut notice = [0.0];
            self.collective.broadcast(reader, &others, &mut notice)?;
            match Notice::from_number(notice[0]) {
                Some(Notice::Reading) if self.control.withdrawn() => {
                    return Err(FetchError::Cancelled.into());
                }
                Some(Notice::Reading) => {}
                Some(Notice::Read) => {
                    let mut state = vec![0.0; self.state_len];
                    self.collective.broadcast(reader, &others, &mut state)?;
                    self.progress.tick();
                    return Ok(Some(state));
                }
                Some(Notice::Failed) => return Ok(None),
                Some(Notice::GivenUp) | None => {
                    return Err(JobError::NotRead {
                        reader: self.roster.members[reader].worker.to_string(),
                    });
                }
            }
        }
    }

    fn send(&mut self, notice: Notice) -> Result<(), JobError> {
        let others = self.others(self.rank);
        let number = &mut [f32::from(notice as u8)];
        Ok(self.collective.broadcast(self.rank, &others, number)?)
    }

    fn others(&self, than: usize) -> Vec<usize> {
        let ranks = 0..self.roster.members.len();
        ranks.filter(|&rank| rank != than).collect()
    }
}

#[cfg(test)]
#[path = "read_once_tests.rs"]
mod tests;
