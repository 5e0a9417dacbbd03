//! A worker that speaks the protocol and computes nothing, and what it says.

use std::time::Duration;

use fovea_core::roster::slice_of;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::pb::workers_client::WorkersClient;
use fovea_proto::{CHUNK_BYTES, pb};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Server, soon};

/// A worker that speaks the protocol and computes nothing.
pub struct Worker {
    client: WorkersClient<Channel>,
    up: mpsc::Sender<pb::WorkerMessage>,
    down: Streaming<pb::CoordinatorMessage>,
    heart: JoinHandle<()>,
}

impl Worker {
    /// Joins, with heartbeats.
    pub async fn join(server: &Server, id: &str) -> Self {
        let mut worker = Self::open(server, hello(id)).await.unwrap();
        let Down::Welcome(welcome) = worker.next().await else {
            panic!("no welcome")
        };
        assert!(welcome.timeout_ms >= 2 * welcome.heartbeat_ms);
        let up = worker.up.clone();
        let period = Duration::from_millis(welcome.heartbeat_ms.into());
        worker.heart = tokio::spawn(async move {
            let mut beat = tokio::time::interval(period);
            for sequence in 1.. {
                beat.tick().await;
                let message = Some(Up::Heartbeat(pb::Heartbeat { sequence }));
                if up.send(pb::WorkerMessage { message }).await.is_err() {
                    return;
                }
            }
        });
        worker
    }

    /// Opens a session that begins with `first`; no heartbeats.
    pub async fn open(server: &Server, first: Up) -> Result<Self, Status> {
        let (up, messages) = mpsc::channel(64);
        let first = pb::WorkerMessage {
            message: Some(first),
        };
        up.send(first).await.unwrap();
        let mut client = server.workers();
        let down = client.session(ReceiverStream::new(messages)).await?;
        Ok(Self {
            client,
            up,
            down: down.into_inner(),
            heart: tokio::spawn(async {}),
        })
    }

    /// Stops the heartbeats, but not the session.
    pub fn fall_silent(&self) {
        self.heart.abort();
    }

    pub async fn say(&self, message: Up) {
        let message = pb::WorkerMessage {
            message: Some(message),
        };
        self.up.send(message).await.expect("the session is open");
    }

    /// Says something that may be nothing.
    pub async fn say_raw(&self, message: Option<Up>) {
        let message = pb::WorkerMessage { message };
        self.up.send(message).await.expect("the session is open");
    }

    /// What the coordinator says next.
    pub async fn next(&mut self) -> Down {
        let message = soon("the coordinator's word", self.down.message()).await;
        let message = message.unwrap().expect("the session is open");
        message.message.expect("a message")
    }

    /// How the coordinator ends the session.
    pub async fn end(&mut self) -> Status {
        loop {
            match soon("the session's end", self.down.message()).await {
                Err(status) => return status,
                Ok(None) => return Status::ok("ended"),
                Ok(Some(_)) => {}
            }
        }
    }

    pub async fn assignment(&mut self) -> pb::Assignment {
        match self.next().await {
            Down::Assignment(assignment) => assignment,
            other => panic!("expected an assignment, not {other:?}"),
        }
    }

    pub async fn ready(&self, assignment: &pb::Assignment) {
        self.say(ready(assignment)).await;
    }

    pub async fn step(&self, assignment: &pb::Assignment, step: u64) {
        self.say(committed(assignment, report(step))).await;
    }

    /// Scores of this worker's half of `samples` validation samples.
    pub async fn scores(&self, assignment: &pb::Assignment, rank: u32, epoch: u32, samples: u64) {
        let half = samples as u32 / 2;
        let range = if rank == 0 {
            0..half
        } else {
            half..samples as u32
        };
        self.say(scores(assignment, epoch, range)).await;
    }

    /// Uploads this worker's slice of `state`.
    pub async fn upload(
        &self,
        assignment: &pb::Assignment,
        rank: usize,
        step: u64,
        state: &[u8],
    ) -> Result<(), Status> {
        let ranks = assignment.members.len();
        let parts = slice_parts(
            &assignment.members[rank].worker_id,
            assignment,
            rank,
            ranks,
            step,
            state,
        );
        let mut client = self.client.clone();
        soon(
            "the slice's answer",
            client.upload_slice(tokio_stream::iter(parts)),
        )
        .await?;
        Ok(())
    }

    pub async fn released(&self, assignment: &pb::Assignment, outcome: pb::released::Outcome) {
        self.say(Up::Released(pb::Released {
            run_id: assignment.run_id.clone(),
            generation: assignment.generation,
            outcome: Some(outcome),
        }))
        .await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

pub fn hello(id: &str) -> Up {
    Up::Hello(pb::Hello {
        worker_id: id.into(),
        address: "127.0.0.1:4000".into(),
        host: "test".into(),
        device: "cpu".into(),
        version: "test".into(),
    })
}

pub fn ready(assignment: &pb::Assignment) -> Up {
    Up::Ready(pb::Ready {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        state_digest: "a".repeat(64),
        fingerprint: Some(pb::Fingerprint {
            device: "cpu".into(),
            threads: 1,
            ..Default::default()
        }),
    })
}

pub fn committed(assignment: &pb::Assignment, report: pb::StepReport) -> Up {
    Up::Step(pb::StepCommitted {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        report: Some(report),
    })
}

pub fn report(step: u64) -> pb::StepReport {
    pb::StepReport {
        step,
        loss: 0.5,
        images: 12,
        images_per_s: 10.0,
        learning_rate: 0.001,
        phases: None,
    }
}

pub fn scores(assignment: &pb::Assignment, epoch: u32, samples: std::ops::Range<u32>) -> Up {
    let scores = samples
        .map(|sample| {
            let label = sample % 2;
            let positive = if label == 1 { 0.9 } else { 0.1 };
            pb::Score {
                sample,
                label,
                probabilities: vec![1.0 - positive, positive],
                loss: 0.1,
            }
        })
        .collect();
    Up::Scores(pb::Scores {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        epoch,
        scores,
    })
}

/// The messages that upload one rank's slice.
pub fn slice_parts(
    worker: &str,
    assignment: &pb::Assignment,
    rank: usize,
    ranks: usize,
    step: u64,
    state: &[u8],
) -> Vec<pb::SliceUpload> {
    use pb::slice_upload::Part;
    let slice = slice_of(state.len() as u64 / 4, ranks, rank);
    let bytes = &state[slice.start as usize * 4..slice.end as usize * 4];
    let mut parts = vec![Part::Header(pb::SliceHeader {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        worker_id: worker.into(),
        step,
        offset: slice.start,
        elements: slice.end - slice.start,
        sha256: hex::encode(Sha256::digest(bytes)),
    })];
    parts.extend(
        bytes
            .chunks(CHUNK_BYTES)
            .map(|data| Part::Data(data.to_vec().into())),
    );
    parts
        .into_iter()
        .map(|part| pb::SliceUpload { part: Some(part) })
        .collect()
}
