//! A fake worker, which speaks the protocol and computes nothing, and its messages.

use std::time::Duration;

use fovea_core::roster::slice_of;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::pb::workers_client::WorkersClient;
use fovea_proto::{CHUNK_BYTES, pb};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Server, soon};

/// A fake worker.
pub struct Worker {
    client: WorkersClient<Channel>,
    up: mpsc::Sender<pb::WorkerMessage>,
    down: Streaming<pb::CoordinatorMessage>,
    heartbeats: JoinHandle<()>,
}

impl Worker {
    /// Joins, with heartbeats.
    pub async fn join(server: &Server, id: &str) -> Self {
        Self::begin(server, hello(id)).await
    }

    /// Opens a session that begins with `hello`, with heartbeats.
    pub async fn begin(server: &Server, hello: Up) -> Self {
        Self::begin_on(server.channel.clone(), hello).await
    }

    /// The same over a channel of its own.
    pub async fn begin_on(channel: Channel, hello: Up) -> Self {
        let mut worker = Self::open_on(channel, hello).await.unwrap();
        let Down::Welcome(welcome) = worker.next().await else {
            panic!("no welcome")
        };
        assert!(welcome.timeout_ms >= 2 * welcome.heartbeat_ms);
        let up = worker.up.clone();
        let period = Duration::from_millis(welcome.heartbeat_ms.into());
        worker.heartbeats = tokio::spawn(async move {
            let mut beat = tokio::time::interval(period);
            for sequence in 1.. {
                beat.tick().await;
                let message = Some(Up::Heartbeat(pb::Heartbeat {
                    sequence,
                    ..Default::default()
                }));
                if up.send(pb::WorkerMessage { message }).await.is_err() {
                    return;
                }
            }
        });
        worker
    }

    /// Comes back with an assignment from an earlier session, with heartbeats.
    pub async fn rejoin(server: &Server, id: &str, serving: &pb::Assignment) -> Self {
        let serving_now = Some((&*serving.run_id, serving.generation));
        Self::begin(server, hello_again(id, serving_now, &serving.run_id)).await
    }

    /// Opens a session that begins with `first`; no heartbeats.
    pub async fn open(server: &Server, first: Up) -> Result<Self, Status> {
        Self::open_on(server.channel.clone(), first).await
    }

    /// The same over a channel of its own.
    pub async fn open_on(channel: Channel, first: Up) -> Result<Self, Status> {
        let (up, messages) = mpsc::channel(64);
        let first = pb::WorkerMessage {
            message: Some(first),
        };
        up.send(first).await.unwrap();
        let mut client = WorkersClient::new(channel);
        let down = client.session(ReceiverStream::new(messages)).await?;
        Ok(Self {
            client,
            up,
            down: down.into_inner(),
            heartbeats: tokio::spawn(async {}),
        })
    }

    /// Stops the heartbeats, but not the session.
    pub fn stop_heartbeats(&self) {
        self.heartbeats.abort();
    }

    pub async fn send(&self, message: Up) {
        assert!(self.try_send(message).await, "the session is over");
    }

    /// Sends a message unless the session is over. Returns whether it could.
    pub async fn try_send(&self, message: Up) -> bool {
        let message = pb::WorkerMessage {
            message: Some(message),
        };
        self.up.send(message).await.is_ok()
    }

    /// Sends a message that may be empty.
    pub async fn send_raw(&self, message: Option<Up>) {
        let message = pb::WorkerMessage { message };
        self.up.send(message).await.expect("the session is open");
    }

    /// The coordinator's next message, acknowledgements aside.
    pub async fn next(&mut self) -> Down {
        loop {
            let message = soon("a message of the coordinator", self.down.message()).await;
            let message = message.unwrap().expect("the session is open");
            match message.message.expect("a message") {
                Down::Ack(_) => {}
                other => return other,
            }
        }
    }

    /// The status with which the coordinator ends the session.
    pub async fn end(&mut self) -> Status {
        loop {
            match soon("the session's end", self.down.message()).await {
                Err(status) => return status,
                Ok(None) => return Status::ok("ended"),
                Ok(Some(_)) => {}
            }
        }
    }

    /// Reads to the end of the session: the messages, acknowledgements aside, and the status that ends it.
    pub async fn last_messages(&mut self) -> (Vec<Down>, Status) {
        let mut messages = Vec::new();
        loop {
            match soon("the session's end", self.down.message()).await {
                Err(status) => return (messages, status),
                Ok(None) => return (messages, Status::ok("ended")),
                Ok(Some(message)) => {
                    messages.extend(message.message.filter(|one| !matches!(one, Down::Ack(_))));
                }
            }
        }
    }

    /// Provokes the end of the session, and returns the messages that the coordinator had sent before, acknowledgements
    /// aside.
    pub async fn remaining_messages(&mut self) -> Vec<Down> {
        self.send_raw(None).await;
        let mut messages = Vec::new();
        while let Ok(Some(message)) = soon("the session's end", self.down.message()).await {
            messages.extend(message.message.filter(|one| !matches!(one, Down::Ack(_))));
        }
        messages
    }

    pub async fn assignment(&mut self) -> pb::Assignment {
        match self.next().await {
            Down::Assignment(assignment) => assignment,
            other => panic!("expected an assignment, not {other:?}"),
        }
    }

    pub async fn ready(&self, assignment: &pb::Assignment) {
        self.send(ready(assignment)).await;
    }

    pub async fn step(&self, assignment: &pb::Assignment, step: u64) {
        self.send(committed(assignment, report(step))).await;
    }

    /// Scores of this worker's half of `samples` validation samples.
    pub async fn scores(&self, assignment: &pb::Assignment, rank: u32, epoch: u32, samples: u64) {
        let half = samples as u32 / 2;
        let range = if rank == 0 {
            0..half
        } else {
            half..samples as u32
        };
        self.send(scores(assignment, epoch, range)).await;
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
        self.send(released(assignment, outcome)).await;
    }

    /// Confirms an abort.
    pub async fn aborted(&self, assignment: &pb::Assignment) {
        let outcome = pb::released::Outcome::Aborted(pb::Aborted {});
        self.released(assignment, outcome).await;
    }

    /// Waits for an acknowledgement for which `will_do` holds. No other message may come before it.
    pub async fn acked(&mut self, will_do: impl Fn(&pb::Ack) -> bool) -> pb::Ack {
        loop {
            let message = soon("an acknowledgement", self.down.message()).await;
            let message = message.unwrap().expect("the session is open");
            match message.message.expect("a message") {
                Down::Ack(ack) if will_do(&ack) => return ack,
                Down::Ack(_) => {}
                other => panic!("expected an acknowledgement, not {other:?}"),
            }
        }
    }

    /// Waits until the coordinator has `step` and all before it in its journal.
    pub async fn acked_step(&mut self, step: u64) -> pb::Ack {
        self.acked(|ack| ack.step >= step).await
    }

    pub async fn abort(&mut self) -> pb::Abort {
        match self.next().await {
            Down::Abort(abort) => abort,
            other => panic!("expected an abort, not {other:?}"),
        }
    }

    pub async fn stop(&mut self) -> pb::Stop {
        match self.next().await {
            Down::Stop(stop) => stop,
            other => panic!("expected a stop, not {other:?}"),
        }
    }

    pub async fn prepare(&mut self) -> pb::Prepare {
        match self.next().await {
            Down::Prepare(prepare) => prepare,
            other => panic!("expected to be asked to prepare, not {other:?}"),
        }
    }

    pub async fn prepared(&self, prepare: &pb::Prepare, problem: &str) {
        self.send(Up::Prepared(pb::Prepared {
            run_id: prepare.run_id.clone(),
            problem: problem.into(),
            trouble: 0,
        }))
        .await;
    }

    /// Is ready with the state of `step`, which has this digest.
    pub async fn ready_at(&self, assignment: &pb::Assignment, step: u64, digest: char) {
        let Up::Ready(mut message) = ready(assignment) else {
            unreachable!("ready says ready")
        };
        message.step = step;
        message.state_digest = digest.to_string().repeat(32);
        self.send(Up::Ready(message)).await;
    }

    pub async fn digest(&self, assignment: &pb::Assignment, step: u64, digest: char) {
        self.send(Up::StateDigest(pb::StateDigest {
            run_id: assignment.run_id.clone(),
            generation: assignment.generation,
            step,
            digest: digest.to_string().repeat(32),
        }))
        .await;
    }

    pub async fn interrupted(&self, assignment: &pb::Assignment) {
        self.send(Up::Interrupted(pb::Interrupted {
            run_id: assignment.run_id.clone(),
            generation: assignment.generation,
            reason: "a peer broke off".into(),
        }))
        .await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.heartbeats.abort();
    }
}

pub fn hello(id: &str) -> Up {
    Up::Hello(pb::Hello {
        protocol: fovea_proto::PROTOCOL,
        worker_id: id.into(),
        address: "127.0.0.1:4000".into(),
        host: "test".into(),
        device: "cpu".into(),
        version: "test".into(),
        serving: None,
        held_run_id: String::new(),
        boot_id: String::new(),
        gpu_uuid: String::new(),
        memory: None,
        machine: None,
    })
}

/// Hello of a worker on that GPU of a machine.
pub fn hello_on(id: &str, boot_id: &str, gpu_uuid: &str) -> Up {
    let Up::Hello(mut message) = hello(id) else {
        unreachable!("hello says hello")
    };
    message.boot_id = boot_id.into();
    message.gpu_uuid = gpu_uuid.into();
    Up::Hello(message)
}

/// Hello of a worker that had a session before.
pub fn hello_again(id: &str, serving: Option<(&str, u64)>, held_run: &str) -> Up {
    let Up::Hello(mut message) = hello(id) else {
        unreachable!("hello says hello")
    };
    message.serving = serving.map(|(run_id, generation)| pb::Serving {
        run_id: run_id.into(),
        generation,
    });
    message.held_run_id = held_run.into();
    Up::Hello(message)
}

pub fn released(assignment: &pb::Assignment, outcome: pb::released::Outcome) -> Up {
    Up::Released(pb::Released {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        outcome: Some(outcome),
    })
}

pub fn ready(assignment: &pb::Assignment) -> Up {
    Up::Ready(pb::Ready {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        state_digest: "a".repeat(32),
        step: assignment.start_step,
        fingerprint: Some(pb::Fingerprint {
            device: "cpu".into(),
            threads: 1,
            ..Default::default()
        }),
    })
}

pub fn committed(assignment: &pb::Assignment, report: pb::StepReport) -> Up {
    committed_with(assignment, report, vec![0, 1])
}

pub fn committed_with(
    assignment: &pb::Assignment,
    report: pb::StepReport,
    samples: Vec<u32>,
) -> Up {
    Up::Step(pb::StepCommitted {
        run_id: assignment.run_id.clone(),
        generation: assignment.generation,
        report: Some(report),
        samples,
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
                ..pb::Score::default()
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
        digest: format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes)),
        state_digest: format!("{:032x}", xxhash_rust::xxh3::xxh3_128(state)),
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
