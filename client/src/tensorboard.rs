//! A run as an event file for TensorBoard.

use fovea_core::run::EpochResult;
use fovea_proto::pb;
use fovea_tensorboard::{FileName, append, epoch, hparams, session_start, training, version};

use crate::client::Client;
use crate::error::Error;
use crate::view::RunInfo;

impl Client {
    /// The mean training loss of each committed step of a run, from step 1 on, as the journal has it.
    ///
    /// # Errors
    /// There is no such run, the coordinator cannot be reached, or its steps do not follow each other.
    pub async fn losses(&self, run_id: &str) -> Result<Vec<f64>, Error> {
        let request = pb::LossesRequest {
            run_id: run_id.into(),
        };
        let reply = self.runs_client().losses(request).await;
        let mut stream = reply.map_err(|status| self.error(&status))?.into_inner();
        let mut all = Vec::new();
        while let Some(part) = stream.message().await.map_err(|s| self.error(&s))? {
            let pb::LossesPart { first_step, losses } = part;
            if first_step != all.len() as u64 + 1 {
                return Err(Error::Protocol(format!(
                    "losses of {run_id} from step {first_step} on come after step {}",
                    all.len()
                )));
            }
            all.extend(losses);
        }
        Ok(all)
    }
}

/// The name of a run's exported file. It does not depend on when it is written, so that a later export replaces it.
pub fn file_name(run: &RunInfo) -> String {
    let seconds = run.submitted_at_ms / 1000;
    FileName::after(None, seconds, 0).to_string()
}

/// The event file of a run with these training losses from step 1 on: everything that the journal has of it.
pub fn event_file(run: &RunInfo, losses: &[f64]) -> Vec<u8> {
    let times = Times::of(run, losses.len() as u64);
    let (mut bytes, begun) = (Vec::new(), times.at(0));
    append(&version(begun), &mut bytes);
    append(&session_start(1, begun), &mut bytes);
    append(&hparams(&run.spec, begun), &mut bytes);
    let mut epochs = run.epochs.iter().peekable();
    let mut evaluated_until = |step: u64, bytes: &mut Vec<u8>| {
        while let Some(result) = epochs.next_if(|result: &&EpochResult| result.step <= step) {
            append(&epoch(result, times.at(result.step)), bytes);
        }
    };
    for (step, &loss) in (1..).zip(losses) {
        let event = training(&run.spec, run.total_steps, step, loss, times.at(step));
        append(&event, &mut bytes);
        evaluated_until(step, &mut bytes);
    }
    // Of an evaluation, which takes no steps.
    evaluated_until(u64::MAX, &mut bytes);
    bytes
}

/// When steps were taken. The journal knows when the run began and ended and when checkpoints were stored; in between, steps
/// are taken to be equally long.
struct Times(Vec<(u64, f64)>);

impl Times {
    fn of(run: &RunInfo, steps: u64) -> Self {
        let begun = match run.began_at_ms {
            0 => run.submitted_at_ms,
            began => began,
        };
        let mut known = vec![(0, begun)];
        known.extend(run.checkpoints.iter().map(|c| (c.step, c.stored_at_ms)));
        if run.ended_at_ms > 0 {
            known.push((steps, run.ended_at_ms));
        }
        let mut times: Vec<(u64, f64)> = Vec::new();
        for (step, ms) in known {
            let seconds = ms as f64 / 1e3;
            // A checkpoint of before a rewind, or a clock that was set back.
            if times
                .last()
                .is_none_or(|last| last.0 < step && last.1 <= seconds)
            {
                times.push((step, seconds));
            }
        }
        Self(times)
    }

    fn at(&self, step: u64) -> f64 {
        let after = self.0.partition_point(|(known, _)| *known <= step);
        let (from, begun) = self.0[after.saturating_sub(1)];
        match self.0.get(after) {
            None => begun,
            Some((to, ended)) => {
                let part = step.saturating_sub(from) as f64 / (to - from) as f64;
                begun + (ended - begun) * part
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lie_between_those_that_are_known() {
        let times = Times(vec![(0, 100.0), (10, 200.0), (20, 220.0)]);
        let steps = [0, 5, 10, 15, 20, 30];
        let expected = [100.0, 150.0, 200.0, 210.0, 220.0, 220.0];
        assert_eq!(steps.map(|step| times.at(step)), expected);
    }
}
