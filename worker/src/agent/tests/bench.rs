//! A pretended coordinator and pretended work, with a worker's main loop between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fovea_core::ids::{RunId, WorkerId};
use fovea_core::memory::Memory;
use fovea_core::run::Outcome;
use fovea_proto::pb::coordinator_message::Message as FromCoordinator;
use fovea_service::Shutdown;
use pb::worker_message::Message;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;

use super::super::*;
use crate::assignment::AssignmentHandle;
use crate::job::Took;
use crate::link::Opening;
use crate::testing::{no_fingerprint, step_report};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// An handle that was begun, and how to end it.
pub(super) struct Begun {
    pub(super) handle: AssignmentHandle,
    pub(super) end: oneshot::Sender<Ended>,
}

pub(super) struct Pretended(pub(super) mpsc::Sender<Begun>);

impl Work for Pretended {
    fn begin(&self, handle: AssignmentHandle) -> AbortOnDropHandle<Ended> {
        let (end, ended) = oneshot::channel();
        self.0.try_send(Begun { handle, end }).unwrap();
        AbortOnDropHandle::new(tokio::spawn(async move {
            ended.await.unwrap_or(Ended::Released(Outcome::Aborted))
        }))
    }

    /// Fails with the dataset's digest; if that is a number, after so many seconds.
    fn prepare(&self, request: pb::Prepare) -> AbortOnDropHandle<Result<(), Refusal>> {
        let seconds = request.dataset_digest.parse().unwrap_or_default();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            match request.dataset_digest {
                digest if digest.is_empty() => Ok(()),
                digest => Err(Refusal::passing(digest)),
            }
        }))
    }

    fn held_run(&self) -> Option<RunId> {
        RunId::new("held-1").ok()
    }
}

/// The coordinator's end of a session.
pub(super) struct Talk {
    pub(super) link: mpsc::Sender<LinkEvent>,
    pub(super) outbound: mpsc::Receiver<pb::WorkerMessage>,
    pub(super) hello: pb::Hello,
}

impl Talk {
    pub(super) async fn tell(&self, message: FromCoordinator) {
        let message = pb::CoordinatorMessage {
            message: Some(message),
        };
        self.link
            .send(LinkEvent::Message(Box::new(message)))
            .await
            .unwrap();
    }

    /// What the worker says next, in a word; heartbeats aside.
    pub(super) async fn sent(&mut self) -> String {
        loop {
            let message = timeout(DEADLINE, self.outbound.recv())
                .await
                .expect("it says nothing");
            match message.expect("it ended the session").message.unwrap() {
                Message::Heartbeat(_) => {}
                message => return word(&message),
            }
        }
    }

    pub(super) async fn all_sent<const N: usize>(&mut self) -> [String; N] {
        let mut sent = [const { String::new() }; N];
        for word in &mut sent {
            *word = self.sent().await;
        }
        sent
    }

    /// The next heartbeat for which `wanted` holds.
    pub(super) async fn heartbeat(
        &mut self,
        wanted: impl Fn(&pb::Heartbeat) -> bool,
    ) -> pb::Heartbeat {
        loop {
            let message = timeout(DEADLINE, self.outbound.recv())
                .await
                .expect("it says nothing");
            match message.expect("it ended the session").message.unwrap() {
                Message::Heartbeat(heartbeat) if wanted(&heartbeat) => return heartbeat,
                _ => {}
            }
        }
    }
}

pub(super) fn word(message: &Message) -> String {
    match message {
        Message::Hello(_) => "hello".into(),
        Message::Heartbeat(_) => "heartbeat".into(),
        Message::Ready(m) => format!("ready {}.{}", m.run_id, m.generation),
        Message::Step(m) => {
            let step = m.report.unwrap().step;
            format!("step {step} {}.{} {:?}", m.run_id, m.generation, m.samples)
        }
        Message::Scores(m) => format!("scores {} {}.{}", m.epoch, m.run_id, m.generation),
        Message::Released(m) => {
            let outcome = Outcome::from(m.outcome.clone().unwrap());
            format!("released {}.{} {outcome:?}", m.run_id, m.generation)
        }
        Message::Leaving(_) => "leaving".into(),
        Message::StateDigest(m) => format!("digest {} {}.{}", m.step, m.run_id, m.generation),
        Message::Interrupted(m) => format!("interrupted {}.{}", m.run_id, m.generation),
        Message::Unreachable(m) => format!("unreachable {:?}", m.worker_ids),
        Message::Prepared(m) => format!("prepared {}: {}", m.run_id, m.problem),
        Message::Memory(m) => format!("memory {}", m.host_bytes),
    }
}

/// A worker whose coordinator and whose work are the test.
pub(super) struct Bench {
    pub(super) link: mpsc::Sender<LinkEvent>,
    pub(super) begun: mpsc::Receiver<Begun>,
    pub(super) shutdown: Shutdown,
    /// The memory that it measures.
    pub(super) memory: Arc<AtomicU64>,
    pub(super) agent: JoinHandle<Result<(), AgentError>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|agent| agent)
    }

    /// A worker that leaves when it was idle for `limit`.
    pub(super) fn idle_for(limit: Option<Duration>) -> Self {
        Self::with(|agent| agent.exit_when_idle(limit))
    }

    /// A worker whose stop takes `limit` at most.
    pub(super) fn stops_within(limit: Duration) -> Self {
        Self::with(|agent| agent.stop_within(limit))
    }

    fn with(set: impl FnOnce(Agent<Pretended>) -> Agent<Pretended>) -> Self {
        let (link, events) = mpsc::channel(16);
        let (begin, begun) = mpsc::channel(16);
        let shutdown = Shutdown::default();
        let memory = Arc::new(AtomicU64::new(1600));
        let measured = Arc::clone(&memory);
        let identity = Identity {
            worker: WorkerId::new("w").unwrap(),
            address: "h:1".into(),
            host: "h".into(),
            machine: no_fingerprint().machine(),
            boot_id: "b".into(),
            gpu_uuid: String::new(),
            memory: Box::new(move || Memory {
                host: measured.load(Ordering::Relaxed),
                ..Memory::default()
            }),
        };
        let channels = watch::channel(None).0;
        let agent = Agent::new(identity, Pretended(begin), channels, shutdown.clone());
        let agent = set(agent);
        Self {
            link,
            begun,
            shutdown,
            memory,
            agent: tokio::spawn(agent.run(events)),
        }
    }

    /// Opens a session.
    pub(super) async fn open(&self) -> Talk {
        self.open_with(fovea_proto::PROTOCOL).await
    }

    /// Opens a session with a coordinator of that version of the protocol.
    pub(super) async fn open_with(&self, protocol: u32) -> Talk {
        let (outbound, mut sent) = mpsc::channel(16);
        let opening = Opening {
            channel: Endpoint::from_static("http://127.0.0.1:1").connect_lazy(),
            outbound,
            guard: tokio_util::sync::CancellationToken::new().drop_guard(),
        };
        self.link.send(LinkEvent::Opening(opening)).await.unwrap();
        let Some(Message::Hello(hello)) = sent.recv().await.unwrap().message else {
            panic!("no hello")
        };
        let talk = Talk {
            link: self.link.clone(),
            outbound: sent,
            hello,
        };
        let welcome = pb::Welcome {
            protocol,
            heartbeat_ms: 20,
            timeout_ms: 1000,
        };
        talk.tell(FromCoordinator::Welcome(welcome)).await;
        talk
    }

    /// The session breaks.
    pub(super) async fn down(&self, talk: Talk) {
        drop(talk);
        self.fails("a test wants it").await;
    }

    /// The session breaks, or none can be opened.
    pub(super) async fn fails(&self, reason: &str) {
        let down = LinkEvent::Down(reason.to_owned());
        self.link.send(down).await.unwrap();
    }

    /// The coordinator refuses the worker for good.
    pub(super) async fn refuses(&self, reason: &str) {
        let refused = LinkEvent::Refused(reason.to_owned());
        self.link.send(refused).await.unwrap();
    }

    /// Waits until the worker has taken all events of the link.
    pub(super) async fn settles(&self) {
        while self.link.capacity() < self.link.max_capacity() {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn begun(&mut self) -> Begun {
        timeout(DEADLINE, self.begun.recv())
            .await
            .expect("nothing is begun")
            .unwrap()
    }

    pub(super) async fn ends(self) {
        self.result().await.unwrap();
    }

    pub(super) async fn result(self) -> Result<(), AgentError> {
        timeout(DEADLINE * 10, self.agent)
            .await
            .expect("it does not end")
            .unwrap()
    }
}

impl Begun {
    pub(super) async fn tell(&self, event: JobEvent) {
        self.handle.events.send(event).await.unwrap();
    }

    pub(super) async fn is_ready(&self) {
        self.tell(JobEvent::Ready {
            took: Took::default(),
            step: 0,
            state_digest: "0".into(),
            fingerprint: no_fingerprint(),
        })
        .await;
    }

    pub(super) async fn takes(&self, step: u64) {
        let (report, samples) = (step_report(step), vec![step as u32]);
        self.tell(JobEvent::Step { report, samples }).await;
    }

    pub(super) fn ends(self, ended: Ended) {
        // In the handle in which the work does it: first nothing more happens, then it is over.
        drop(self.handle);
        self.end.send(ended).unwrap();
    }
}

pub(super) fn member(id: &str) -> pb::Member {
    pb::Member {
        worker_id: id.into(),
        address: "h:1".into(),
        first_virtual_rank: 0,
        virtual_ranks: 1,
    }
}

pub(super) fn assignment(run: &str, generation: u64) -> pb::Assignment {
    pb::Assignment {
        run_id: run.into(),
        generation,
        members: vec![member("w"), member("v")],
        ..pb::Assignment::default()
    }
}

pub(super) async fn assign(talk: &Talk, assignment: pb::Assignment) {
    talk.tell(FromCoordinator::Assignment(assignment)).await;
}

pub(super) async fn abort(talk: &Talk, run: &str, generation: u64) {
    let abort = pb::Abort {
        run_id: run.into(),
        generation,
        reason: "a test wants it".into(),
    };
    talk.tell(FromCoordinator::Abort(abort)).await;
}

pub(super) async fn ask_to_yield(talk: &Talk, run: &str, generation: u64) {
    let run_id = run.to_owned();
    talk.tell(FromCoordinator::Yield(pb::Yield { run_id, generation }))
        .await;
}

pub(super) fn interrupted() -> Ended {
    Ended::Interrupted {
        reason: "a peer is gone".into(),
    }
}

pub(super) fn released(outcome: Outcome) -> Ended {
    Ended::Released(outcome)
}
