//! A model of a cluster: workers that obey the run's effects, faults in any order, messages that arrive late. When the
//! faults are over, the run must complete and every step must have been reported.

mod coordinator;
mod mesh;
mod worker;

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use worker::{Worker, WorkerMessage};

const CASES: u32 = 2000;
const TOTAL: u64 = 10;
/// How long the run waits for a checkpoint that cannot be read, milliseconds.
const PATIENCE_MS: u64 = 20_000;
/// Number of steps between checkpoints.
const EVERY: u64 = 3;

struct Cluster {
    now: u64,
    run: Run,
    workers: Vec<Worker>,
    /// Steps that were reported to the coordinator.
    ledger: BTreeSet<u64>,
    /// Files: (step, generation) -> digest of the state.
    store: BTreeMap<(u64, u64), u128>,
    /// Files that cannot be read now: (step, generation).
    unreadable: BTreeSet<(u64, u64)>,
    /// Files that the store is to probe for the run: (step, generation).
    probing: VecDeque<(u64, u64)>,
    /// Slices of checkpoints that are being assembled: (generation, step) -> worker -> digest of its state.
    gathering: BTreeMap<(u64, u64), BTreeMap<WorkerId, u128>>,
    /// Complete assemblies that are not stored yet: (generation, step, digest).
    storing: VecDeque<(u64, u64, u128)>,
    failed_for: Option<String>,
    /// What happened, as text for a failure's message.
    history: Vec<String>,
}

impl Cluster {
    fn new(workers: u8, min: u32, keep_last: u32) -> Self {
        let mut run = queued();
        run.spec.workers.min = min;
        run.spec.checkpoint.keep_last = keep_last;
        run.limits.unreadable_patience_ms = PATIENCE_MS;
        let mut cluster = Self {
            now: 0,
            run,
            workers: Vec::new(),
            ledger: BTreeSet::new(),
            store: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            probing: VecDeque::new(),
            gathering: BTreeMap::new(),
            storing: VecDeque::new(),
            failed_for: None,
            history: Vec::new(),
        };
        (0..workers).for_each(|_| cluster.spawn());
        cluster
    }

    fn spawn(&mut self) {
        self.workers.push(Worker {
            id: worker(self.workers.len() as u8),
            alive: true,
            stuck: false,
            leaving: false,
            held: None,
            taken: BTreeSet::new(),
            serving: None,
            ticks: 0,
            connected: true,
            assignment: None,
            said_leaving: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
        });
    }

    fn find(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|w| w.id == *id)
    }

    fn kill(&mut self, i: usize, unsent: usize) {
        let w = &mut self.workers[i];
        if !w.alive {
            return;
        }
        w.alive = false;
        let sent = w.outbox.len().saturating_sub(unsent);
        w.outbox.truncate(sent);
        w.say(0, WorkerMessage::Gone);
        w.serving = None;
    }

    /// Something other than a fault happens.
    fn ordinary(&mut self, choice: u32) {
        let i = (choice >> 8) as usize % self.workers.len();
        match choice % 8 {
            0 | 1 => self.hear(i),
            2 => {
                if self.workers[i].alive
                    && !self.workers[i].stuck
                    && let Some(message) = self.workers[i].inbox.pop_front()
                {
                    self.workers[i].take(message);
                }
            }
            3 | 4 => self.advance(i, None),
            5 => {
                if !self.workers[i].stuck {
                    self.notice(i);
                }
            }
            6 => {
                self.probe();
                self.store(false);
                self.schedule();
            }
            _ => {
                self.hello(i);
                let w = &mut self.workers[i];
                // A worker that is leaving ends when it has no assignment and everything is sent.
                if w.leaving && w.connected && w.serving.is_none() && w.outbox.is_empty() {
                    self.kill(i, 0);
                }
            }
        }
    }

    fn fault(&mut self, choice: u32) {
        let i = (choice >> 8) as usize % self.workers.len();
        let detail = choice >> 16;
        match choice % 18 {
            0 => self.kill(i, detail as usize % 4),
            1 => {
                // It dies in the middle of a step.
                self.advance(i, Some(detail));
                self.kill(i, detail as usize % 3);
            }
            2 => self.workers[i].stuck = self.workers[i].alive,
            3 if self.workers.len() < 12 => self.spawn(),
            4 if self.workers[i].alive && self.workers[i].connected => {
                self.workers[i].leaving = true;
                self.workers[i].say(0, WorkerMessage::Leaving);
            }
            5 => self.restart(),
            6 => self.apply(Event::Pause),
            7 => self.apply(Event::Cancel),
            8 => self.person(resume(None)),
            9 => {
                let step = self.run.checkpoints.first().map(|c| c.step);
                self.person(resume(step));
            }
            10 => {
                let at = detail as usize % self.run.checkpoints.len().max(1);
                if let Some(c) = self.run.checkpoints.get(at).cloned()
                    && self.run.phase != Phase::Completed
                {
                    self.apply(damaged(c.step, c.generation));
                }
            }
            11 => self.store(true),
            12 => self.break_off(i),
            13 => {
                let at = detail as usize % self.run.checkpoints.len().max(1);
                if let Some(c) = self.run.checkpoints.get(at).cloned() {
                    self.unreadable.insert((c.step, c.generation));
                    self.apply(unreadable(c.step, c.generation));
                }
            }
            14 => self.unreadable.clear(),
            16 => {
                // Not a fault: a run of higher priority takes some workers.
                let some = self.workers.iter().skip(i).take(1 + detail as usize % 3);
                let workers = some.map(|w| w.id.clone()).collect();
                let taker = RunId::new("urgent-2").unwrap();
                self.apply(Event::Give { workers, taker });
            }
            15 if detail.is_multiple_of(3) => self.apply(Event::DataUnavailable {
                reason: "pack 3 is damaged".into(),
            }),
            15 => self.apply(Event::DataAvailable),
            _ => {
                // A bit flips in its memory.
                if let Some((_, held)) = &mut self.workers[i].held
                    && held.step > 0
                {
                    held.digest ^= 1;
                }
            }
        }
    }

    fn person(&mut self, event: Event) {
        if self.run.admit(&event).is_ok() {
            self.apply(event);
        }
    }

    /// No more faults happen: the run must complete.
    fn settle(&mut self, seed: u64) -> Result<(), TestCaseError> {
        let mut state = seed;
        let mut next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for _ in 0..self.run.spec.workers.min {
            self.spawn();
        }
        self.apply(Event::DataAvailable);
        for round in 0..400 {
            // The store comes back late: the run may have continued from an older checkpoint by then.
            if round == 100 * (seed % 3) {
                self.unreadable.clear();
            }
            for _ in 0..20 * self.workers.len() {
                self.ordinary(next());
            }
            self.tick(if round % 2 == 0 { 250 } else { 1900 });
            self.check()?;
            if matches!(
                self.run.phase,
                Phase::Paused | Phase::Failed { .. } | Phase::Cancelled
            ) {
                self.apply(resume(None));
            }
            if self.run.phase == Phase::Completed {
                let all: BTreeSet<u64> = (1..=TOTAL).collect();
                prop_assert_eq!(&self.ledger, &all, "a step was not told:\n{}", self.story());
                prop_assert!(
                    self.store.keys().any(|(step, _)| *step == TOTAL),
                    "the last checkpoint has no file:\n{}",
                    self.story()
                );
                return Ok(());
            }
        }
        let state: Vec<_> = self.workers.iter().filter(|w| w.alive).collect();
        prop_assert!(false, "{}\n{:?}\n{:#?}", self.story(), self.run, state);
        Ok(())
    }

    fn story(&self) -> String {
        let from = self.history.len().saturating_sub(80);
        self.history[from..].join("\n")
    }

    fn check(&self) -> Result<(), TestCaseError> {
        if let Some(reason) = &self.failed_for {
            prop_assert!(reason.contains("attempts in a row"), "failed: {}", reason);
        }
        // Workers are kept for whoever is waited for.
        prop_assert!(self.run.roster().is_some() || self.run.awaited().next().is_none());
        // Every listed checkpoint has a file.
        for c in &self.run.checkpoints {
            prop_assert!(self.store.contains_key(&(c.step, c.generation)), "{:?}", c);
        }
        Ok(())
    }
}

#[test]
fn a_run_completes_once_the_faults_are_over() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    };
    println!("{CASES} clusters");
    let sizes = (1u8..5, 1u32..4, 0u32..3);
    let choices = prop::collection::vec((0u32..14, any::<u32>()), 0..500);
    proptest!(config, |(sizes in sizes, choices in choices, seed in any::<u64>())| {
        let (workers, min, keep_last) = sizes;
        let mut cluster = Cluster::new(workers, min, keep_last);
        for (kind, choice) in choices {
            match kind {
                0 if choice % 3 == 0 => cluster.fault(choice / 3),
                0 | 1 => cluster.tick(u64::from(choice % 1000)),
                _ => cluster.ordinary(choice),
            }
            cluster.check()?;
        }
        cluster.settle(seed)?;
    });
}
