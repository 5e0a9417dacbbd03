//! Generations on pretending devices, with peers over loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fovea_core::googlenet::FlatLayout;
use fovea_core::ids::RunId;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::Roster;
use fovea_core::run::{Outcome, Trouble};
use fovea_core::spec::RunSpec;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::agreement::{Agreement, Stored};
use super::error::JobError;
use super::*;
use crate::collective::{TcpCollective, Unreached};
use crate::device::{Device, Flat, state_digest};
use crate::progress::Progress;
use crate::testing::{
    Manner, Peers, Pretending, closed, no_fingerprint, peers, planned, spec, tiny, wait_until,
};
use crate::training::{Control, Parts, Snapshot, State};

/// One worker: its device's thread, and what it was asked.
struct Worker {
    device: DeviceThread,
    manner: Manner,
}

impl Worker {
    fn new(manner: Manner) -> Self {
        let copy = manner.clone();
        let make: MakeDevice =
            Box::new(move |_, layout, _| Box::new(Pretending::new(layout, &copy)));
        Self {
            device: DeviceThread::start(tch::Device::Cpu, no_fingerprint().machine(), make, None)
                .unwrap(),
            manner,
        }
    }

    fn updates(&self) -> Vec<u32> {
        let asked = self.manner.asked.lock().unwrap();
        asked.updates.iter().map(|(g, _)| g.to_bits()).collect()
    }
}

/// A worker's events, and how its generation ended.
struct Ran {
    ended: Ended,
    events: Vec<JobEvent>,
    snapshots: Vec<Snapshot>,
}

impl Ran {
    fn ready(&self) -> (u64, &str) {
        match self.events.first() {
            Some(JobEvent::Ready {
                step, state_digest, ..
            }) => (*step, state_digest),
            other => panic!("not ready, but {other:?}"),
        }
    }
}

/// One worker's part in a generation.
struct Part<'a> {
    peers: &'a Peers,
    roster: Roster,
    rank: usize,
    lineage: u64,
    spec: RunSpec,
    control: Control,
    connect_timeout: Duration,
}

impl<'a> Part<'a> {
    fn new(peers: &'a Peers, generation: u64, members: &[usize], rank: usize) -> Self {
        Self {
            peers,
            roster: peers.roster(generation, members, 0),
            rank,
            lineage: 0,
            spec: spec(""),
            control: Control::default(),
            connect_timeout: Duration::from_secs(20),
        }
    }

    fn start(self, worker: &Worker) -> JoinHandle<Ran> {
        let (events, mut happening) = tokio::sync::mpsc::channel(4);
        let (snapshots, mut slices) = tokio::sync::mpsc::channel(1);
        let member = &self.roster.members[self.rank];
        let place: usize = member.worker.as_str()[1..].parse().unwrap();
        let job = Job {
            run: RunId::new("r-1").unwrap(),
            lineage: self.lineage,
            discard_state: false,
            plan: tiny().plan(&self.spec),
            spec: self.spec,
            key: [self.roster.generation as u8; 16],
            roster: self.roster,
            rank: self.rank,
            mesh: self.peers.meshes[place].clone(),
            checkpoint: None,
            weights: None,
            next_epoch: 0,
            data: tiny().data(),
            control: self.control,
            progress: Progress::default(),
            connect_timeout: self.connect_timeout,
            peer_timeout: Duration::from_secs(60),
            allow_plaintext_nccl: false,
            began: oneshot::channel().0,
            events,
            snapshots,
        };
        let device = worker.device.clone();
        self.peers.runtime.spawn(async move {
            let events = async {
                let mut all = Vec::new();
                while let Some(event) = happening.recv().await {
                    all.push(event);
                }
                all
            };
            let snapshots = async {
                let mut all = Vec::new();
                while let Some(snapshot) = slices.recv().await {
                    all.push(snapshot);
                }
                all
            };
            let (ended, events, snapshots) = tokio::join!(device.run(job), events, snapshots);
            Ran {
                ended,
                events,
                snapshots,
            }
        })
    }
}

fn wait(peers: &Peers, ran: JoinHandle<Ran>) -> Ran {
    let limit = Duration::from_secs(120);
    let waiting = async { tokio::time::timeout(limit, ran).await.unwrap().unwrap() };
    peers.runtime.block_on(waiting)
}

/// How a device behaves that queues updates, or not.
fn manner(queues: bool) -> Manner {
    Manner {
        queues,
        ..Manner::default()
    }
}

#[test]
fn two_workers_tell_the_same_and_do_what_one_would() {
    two_workers_do_what_one_would(false);
}

#[test]
fn two_workers_whose_updates_are_queued_tell_the_same_and_do_what_one_would() {
    two_workers_do_what_one_would(true);
}

/// `queues`: the two, not the one.
fn two_workers_do_what_one_would(queues: bool) {
    let peers = peers(3);
    let workers = [queues, queues, false].map(|queues| Worker::new(manner(queues)));
    let alone = Part::new(&peers, 1, &[2], 0).start(&workers[2]);
    let both = [0, 1].map(|rank| Part::new(&peers, 2, &[0, 1], rank).start(&workers[rank]));
    let [a, b] = both.map(|ran| wait(&peers, ran));
    let c = wait(&peers, alone);
    let plan = tiny().plan(&spec(""));
    let step = plan.steps_per_epoch() * 2;
    let mut scored = Vec::new();
    for ran in [&a, &b, &c] {
        assert_eq!(ran.ended, Ended::Released(Outcome::Completed { step }));
        assert_eq!(ran.ready(), c.ready());
        let mut steps = 0;
        for event in &ran.events {
            match event {
                JobEvent::Step { report, samples } => {
                    steps += 1;
                    assert_eq!(report.step, steps);
                    assert_eq!(*samples, planned(&plan, steps));
                }
                JobEvent::Scores { epoch, scores } => scored.push((*epoch, scores.clone())),
                JobEvent::Ready { .. } | JobEvent::Digest { .. } => {}
            }
        }
        assert_eq!(steps, step);
    }
    // Each of the three has all scores of both epochs.
    assert_eq!(scored[..2], scored[2..4]);
    assert_eq!(scored[..2], scored[4..]);
    assert!(
        scored[0]
            .1
            .iter()
            .map(|s| s.sample)
            .eq(0..scored[0].1.len() as u32)
    );
    assert_eq!(workers[0].updates(), workers[2].updates());
    assert_eq!(workers[1].updates(), workers[2].updates());
    // The slices are one state.
    let halves = [&a.snapshots[0].bytes[..], &b.snapshots[0].bytes[..]].concat();
    assert_eq!(halves, c.snapshots[0].bytes[..]);
    let digests = [&a, &b, &c].map(|ran| ran.snapshots[0].digest);
    assert_eq!(digests, [state_digest(bytemuck::cast_slice(&halves)); 3]);
}

#[test]
fn an_interrupted_step_is_taken_again_with_the_same_bits_and_nothing_is_computed_twice() {
    a_step_is_interrupted(false);
}

#[test]
fn the_step_before_an_interrupted_one_is_taken_although_it_was_not_known_yet() {
    a_step_is_interrupted(true);
}

fn a_step_is_interrupted(queues: bool) {
    let peers = peers(3);
    let survivor = Worker::new(manner(queues));
    // Two virtual ranks each: it breaks in the second step, with one of its gradients done.
    let dying = Worker::new(Manner {
        fails_at: Some(3),
        ..manner(queues)
    });
    let undisturbed = Worker::new(Manner::default());
    let first = Part::new(&peers, 1, &[0, 1], 0).start(&survivor);
    let other = Part::new(&peers, 1, &[0, 1], 1).start(&dying);
    let (first, other) = (wait(&peers, first), wait(&peers, other));
    assert!(
        matches!(first.ended, Ended::Interrupted { .. }),
        "{:?}",
        first.ended
    );
    assert_eq!(
        other.ended,
        Ended::unfit(
            Trouble::Device,
            "the device failed while pretending: a test wants it"
        )
    );
    assert_eq!(dying.device.held_run(), None, "who knows what it holds");
    assert_eq!(survivor.device.held_run(), RunId::new("r-1").ok());
    assert_eq!(survivor.updates().len(), 1);
    for ran in [&first, &other] {
        let told = ran.events.iter().filter_map(|event| match event {
            JobEvent::Step { report, .. } => Some(report.step),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [1]);
    }

    let second = wait(&peers, Part::new(&peers, 2, &[0], 0).start(&survivor));
    assert_eq!(second.ready().0, 1);
    let plan = tiny().plan(&spec(""));
    let step = plan.steps_per_epoch() * 2;
    assert_eq!(second.ended, Ended::Released(Outcome::Completed { step }));

    let whole = wait(&peers, Part::new(&peers, 3, &[2], 0).start(&undisturbed));
    assert_eq!(survivor.updates(), undisturbed.updates());
    assert_eq!(second.snapshots[0].digest, whole.snapshots[0].digest);
    // In the first step the other computed half of the gradients, in the second the survivor had its own.
    let asked = survivor.manner.asked.lock().unwrap();
    let mut all: Vec<&Vec<u32>> = asked.gradients.iter().collect();
    all.sort();
    assert!(
        all.windows(2).all(|two| two[0] != two[1]),
        "the same batch twice"
    );
    let batches = |step: u64| planned_batches(&plan, step);
    let expected: usize = (1..=step).map(|step| batches(step).len()).sum();
    assert_eq!(batches(1).len(), 4);
    assert_eq!(asked.gradients.len(), expected - 2);
}

/// A vote is read at the same point of a step by a worker that could do it late and one that cannot.
#[test]
fn workers_of_a_mixed_run_stop_together() {
    let peers = peers(2);
    let workers = [true, false].map(|queues| Worker::new(manner(queues)));
    let parts = [0, 1].map(|rank| {
        let mut part = Part::new(&peers, 1, &[0, 1], rank);
        part.spec = spec("[workers]\nmixed = true");
        part
    });
    parts[1].control.stop();
    let [a, b] = parts;
    let both = [a.start(&workers[0]), b.start(&workers[1])];
    for ran in both.map(|ran| wait(&peers, ran)) {
        assert_eq!(ran.ended, Ended::Released(Outcome::Stopped { step: 1 }));
    }
}

/// The batches of a step that are not empty.
fn planned_batches(plan: &ShardPlan, step: u64) -> Vec<Vec<u32>> {
    let at = plan.position(step - 1);
    (0..plan.virtual_ranks())
        .map(|rank| plan.epoch_order(rank, at.epoch).batch(at.step_in_epoch))
        .filter(|draws| !draws.is_empty())
        .map(|draws| draws.iter().map(|draw| draw.sample).collect())
        .collect()
}

#[test]
fn a_state_of_another_lineage_is_forgotten() {
    let peers = peers(1);
    let worker = Worker::new(Manner::default());
    let part = |generation, lineage| {
        let mut part = Part::new(&peers, generation, &[0], 0);
        part.lineage = lineage;
        part.control.stop();
        part
    };
    for (generation, lineage, start) in [(1, 0, 0), (2, 0, 1), (3, 1, 0), (4, 1, 1), (5, 0, 0)] {
        let ran = wait(&peers, part(generation, lineage).start(&worker));
        assert_eq!(ran.ready().0, start, "generation {generation}");
        let step = start + 1;
        assert_eq!(ran.ended, Ended::Released(Outcome::Stopped { step }));
    }
}

#[test]
fn peers_that_do_not_come_are_named_and_the_state_stays() {
    let peers = peers(2);
    let worker = Worker::new(Manner::default());
    let part = Part::new(&peers, 1, &[0], 0);
    part.control.stop();
    wait(&peers, part.start(&worker));
    let mut part = Part::new(&peers, 2, &[0, 1], 0);
    // A peer that answers would be waited for, as it may be busy. At a closed port none answers.
    let address = closed();
    part.roster.members[1].address.clone_from(&address);
    part.connect_timeout = Duration::from_millis(100);
    let ran = wait(&peers, part.start(&worker));
    let missing = vec![Unreached {
        worker: "w1".into(),
        address,
    }];
    assert_eq!(ran.ended, Ended::Unreachable { missing });
    assert!(ran.events.is_empty());
    assert!(worker.device.held_run().is_some());
}

#[test]
fn a_checkpoint_that_cannot_be_had_interrupts() {
    let failing = JobError::Fetch(FetchError::Failed("it arrived damaged".into()));
    let ended = failing.ended(&Control::default());
    assert!(matches!(ended, Ended::Interrupted { reason } if reason.contains("damaged")));
}

#[test]
fn all_take_over_the_state_of_the_most_advanced() {
    let peers = peers(3);
    let roster = peers.roster(1, &[0, 1, 2], 2);
    let spec = spec("");
    let layout = FlatLayout::new(2, &spec.model.frozen).unwrap();
    let len = layout.state_len();
    // A newcomer, one that is a step behind, and the most advanced.
    let held = [None, Some((4, 1.5f32)), Some((5, -2.5f32))];
    let results: Vec<(u64, u128, bool)> = std::thread::scope(|scope| {
        let threads: Vec<_> = held
            .iter()
            .enumerate()
            .map(|(rank, held)| {
                let (roster, layout, mesh) = (&roster, &layout, &peers.meshes[rank]);
                scope.spawn(move || {
                    let manner = Manner {
                        asked: Arc::default(),
                        ..Manner::default()
                    };
                    let fresh = || Box::new(Pretending::new(layout, &manner)) as Box<dyn Device>;
                    let mut state = held.map(|(step, value)| {
                        let mut device = fresh();
                        device.load(&vec![value; len]).unwrap();
                        let mut parts = Parts::default();
                        parts.arrange(0..1, &|| Flat::new(layout, 1, |len| vec![0.0; len].into()));
                        parts.computed(0, 5);
                        State {
                            device,
                            step,
                            parts,
                        }
                    });
                    let progress = Progress::default();
                    let limit = Duration::from_secs(60);
                    let channels = mesh
                        .connect(roster, [1; 16], rank, limit, &|| false, progress.waiting())
                        .unwrap();
                    let mut collective =
                        TcpCollective::new(roster, rank, channels, limit, Default::default());
                    let agreement = Agreement {
                        roster,
                        rank,
                        collective: &mut collective,
                        progress: &progress,
                        control: &Control::default(),
                        state_len: len,
                        fresh: &fresh,
                    };
                    let stored = &mut || panic!("nothing stored is needed");
                    agreement.reach(&mut state, Stored::First(stored)).unwrap();
                    let mut state = state.unwrap();
                    let kept = !state.parts.is_empty() && state.parts.holds(0, 5);
                    (state.step, state.device.digest().unwrap(), kept)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let digest = state_digest(&vec![-2.5; len]);
    // What was computed with a state that is replaced does not count.
    assert_eq!(
        results,
        [(5, digest, false), (5, digest, false), (5, digest, true)]
    );
}

/// Whether [`hangs_once`] was called.
static HUNG: AtomicBool = AtomicBool::new(false);

/// Hangs when it is called for the first time, as if the weights lay on a mount that is gone.
fn hangs_once(
    spec: &RunSpec,
    layout: &FlatLayout,
    weights: Option<std::fs::File>,
) -> Result<Vec<f32>, FirstStateError> {
    if !HUNG.swap(true, Ordering::SeqCst) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        // The pipe is never written to and never closed.
        std::mem::forget(writer);
        std::io::Read::read_exact(&mut reader, &mut [0]).unwrap();
    }
    first_state(spec, layout, weights)
}

#[test]
fn weights_that_hang_hold_neither_an_abort_nor_the_next_assignment() {
    let peers = peers(1);
    let mut worker = Worker::new(Manner::default());
    let copy = worker.manner.clone();
    let make: MakeDevice = Box::new(move |_, layout, _| Box::new(Pretending::new(layout, &copy)));
    worker.device = DeviceThread::start_with(
        tch::Device::Cpu,
        no_fingerprint().machine(),
        make,
        None,
        hangs_once,
    )
    .unwrap();
    let part = Part::new(&peers, 1, &[0], 0);
    let control = part.control.clone();
    let ran = part.start(&worker);
    wait_until("reading the weights", || HUNG.load(Ordering::SeqCst));
    control.abort();
    let ran = wait(&peers, ran);
    assert_eq!(ran.ended, Ended::Released(Outcome::Aborted));
    assert!(ran.events.is_empty());
    // The device's thread is free, and reads the weights on another thread.
    let ran = wait(&peers, Part::new(&peers, 2, &[0], 0).start(&worker));
    assert!(matches!(
        ran.ended,
        Ended::Released(Outcome::Completed { .. })
    ));
}

#[test]
fn a_stop_withdraws_what_has_not_begun() {
    let control = Control::default();
    assert!(!control.withdrawn());
    control.stop();
    assert!(control.stopping() && !control.given_up());
    wait_until("the withdrawal", || control.withdrawn());
    let control = Control::default();
    control.yield_();
    assert!(control.withdrawn());
}
