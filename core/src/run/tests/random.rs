//! Random events in random order: the invariants of a run hold after each.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const CASES: u32 = 4000;

fn trouble() -> impl Strategy<Value = Trouble> {
    prop::sample::select(&Trouble::ALL[..])
}

fn any_event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        Just(Outcome::Completed { step: 10 }),
        Just(Outcome::Stopped { step: 4 }),
        Just(Outcome::Yielded { step: 4 }),
        Just(Outcome::Aborted),
        Just(failure(false)),
        Just(failure(true)),
        Just(blocked()),
        trouble().prop_map(|trouble| Outcome::Unfit {
            trouble,
            reason: "x".into(),
        }),
    ];
    let who = || 0u8..6;
    let generation = || 0u64..8;
    let step = || 1u64..11;
    let some = || prop::collection::vec(0u8..6, 1..6);
    let distinct = |mut of: Vec<u8>| {
        of.sort_unstable();
        of.dedup();
        of
    };
    let of_one = prop_oneof![
        (who(), generation(), 0u64..11, "[aab]").prop_map(|(w, g, s, d)| ready(w, g, s, &d)),
        (who(), generation(), 4u64..6, "[aab]").prop_map(|(w, g, s, d)| digest(w, g, s, &d)),
        (who(), generation(), outcome).prop_map(|(w, g, o)| released(w, g, o)),
        (who(), generation()).prop_map(|(w, g)| interrupted(w, g)),
        (who(), generation(), some()).prop_map(|(w, generation, peers)| Event::Unreachable {
            worker: worker(w),
            generation,
            peers: workers(&peers),
        }),
        (who(), generation(), 0u64..3, any::<bool>(), 0u64..3).prop_map(
            |(w, generation, ticks, waits, polls)| Event::Progress {
                worker: worker(w),
                generation,
                heartbeat: Heartbeat {
                    ticks,
                    waiting_for: waits.then_some(0),
                    polls,
                    scored: ticks,
                },
            }
        ),
        (who(), prop::option::of(generation())).prop_map(|(w, serving)| Event::WorkerBack {
            worker: worker(w),
            serving,
        }),
        who().prop_map(lost),
        who().prop_map(|w| Event::WorkerLeaving { worker: worker(w) }),
        (who(), trouble()).prop_map(|(w, trouble)| Event::Unfit {
            worker: worker(w),
            trouble,
            reason: "x".into(),
        }),
    ];
    prop_oneof![
        3 => some().prop_map(move |of| assigned(&distinct(of))),
        1 => some().prop_map(move |of| joined(&distinct(of))),
        8 => of_one,
        2 => (step(), generation()).prop_map(|(s, g)| committed(s, g)),
        2 => (step(), generation()).prop_map(|(s, g)| stored(s, g)),
        1 => (step(), generation()).prop_map(|(s, g)| not_stored(s, g)),
        1 => (step(), generation()).prop_map(|(s, g)| damaged(s, g)),
        2 => (step(), generation()).prop_map(|(s, g)| unreadable(s, g)),
        1 => (step(), generation()).prop_map(|(s, g)| readable(s, g)),
        1 => prop_oneof![
            1 => Just(Event::DataUnavailable { reason: "pack 3 is damaged".into() }),
            3 => Just(Event::DataAvailable),
        ],
        1 => (generation(), 0u32..2, 0u32..2).prop_map(|(generation, epoch, sample)| {
            Event::Scored {
                generation,
                epoch,
                scores: vec![score(sample, sample, 0.7)],
            }
        }),
        1 => prop_oneof![Just(Event::Cancel), Just(Event::Pause), Just(Event::Drain)],
        1 => prop::option::of(step()).prop_map(resume),
        1 => some().prop_map(|of| Event::Give {
            workers: workers(&of),
            taker: RunId::new("urgent-2").unwrap(),
        }),
        1 => (0usize..3).prop_map(|place| Event::SetPriority {
            priority: Priority::ALL[place],
            by: None,
        }),
        1 => (0usize..3).prop_map(|workers| Event::Usable { workers }),
        4 => Just(Event::Tick),
    ]
}

/// The next event. Its generation is often the present one, and time advances.
fn any_turn() -> impl Strategy<Value = (Event, bool, u64)> {
    let ms = prop_oneof![0u64..10, 0u64..1999, Just(1999), Just(70_000)];
    (any_event(), prop::bool::weighted(0.8), ms)
}

fn generation_of(event: &mut Event) -> Option<&mut u64> {
    match event {
        Event::Ready { generation, .. }
        | Event::StepCommitted { generation, .. }
        | Event::Digest { generation, .. }
        | Event::Scored { generation, .. }
        | Event::Progress { generation, .. }
        | Event::Interrupted { generation, .. }
        | Event::Unreachable { generation, .. }
        | Event::Released { generation, .. } => Some(generation),
        _ => None,
    }
}

/// The part of a phase that survives a restart. Which workers are ready and which have released the run is reported
/// again.
fn journalled(phase: &Phase) -> Phase {
    let mut phase = phase.clone();
    match &mut phase {
        Phase::Forming { ready, .. } => ready.clear(),
        Phase::Finishing { pending, .. } => pending.clear(),
        _ => {}
    }
    phase
}

fn check(
    now: u64,
    run: &Run,
    before: &Run,
    event: &Event,
    effects: &[Effect],
    away: &BTreeSet<WorkerId>,
) -> Result<(), TestCaseError> {
    prop_assert!(run.generation >= before.generation && run.lineage >= before.lineage);
    if before.is_terminal() && !matches!(event, Event::Resume { .. }) {
        prop_assert_eq!(&run.phase, &before.phase);
    }
    let persisted = effects.contains(&Effect::Persist);
    if journalled(&run.phase) != journalled(&before.phase) || run.lineage != before.lineage {
        prop_assert!(persisted, "not journalled: {:?}", effects);
    }
    if let Some(roster) = run.roster() {
        let mut next = 0;
        for member in &roster.members {
            prop_assert_eq!(member.first_virtual_rank, next);
            next += member.virtual_ranks;
            prop_assert!(!away.contains(&member.worker), "{} is away", member.worker);
        }
        prop_assert_eq!(next, 4);
        let (min, max) = (run.spec.workers.min.max(1), run.spec.max_workers());
        prop_assert!((min as usize..=max as usize).contains(&roster.members.len()));
        prop_assert_eq!(roster.generation, run.generation);
    }
    if run.phase == Phase::Completed && before.phase != Phase::Completed {
        prop_assert!(run.checkpoints.iter().any(|c| c.step == 10));
    }
    if let Phase::Finishing { pending, next, .. } = &run.phase
        && pending.is_empty()
    {
        prop_assert!(next.awaited().is_some(), "it hangs");
    }
    for effect in effects {
        match effect {
            Effect::SendRoster { roster, .. } => prop_assert_eq!(Some(roster), run.roster()),
            Effect::SendStop { generation, .. }
            | Effect::SendYield { generation, .. }
            | Effect::SendAbort { generation, .. } => prop_assert!(*generation <= run.generation),
            Effect::RemoveCheckpoint(info) | Effect::QuarantineCheckpoint(info) => {
                prop_assert!(!run.checkpoints.contains(info), "it is still listed");
            }
            _ => {}
        }
    }
    if let Some(start) = run.start_checkpoint(now) {
        prop_assert!(!run.is_void(start));
    }
    // A checkpoint that cannot be read stays listed, and its file is not removed.
    let about_reading = matches!(
        event,
        Event::CheckpointUnreadable { .. } | Event::CheckpointReadable { .. } | Event::Tick
    );
    if about_reading {
        prop_assert_eq!(&run.checkpoints, &before.checkpoints);
        prop_assert!(!effects.iter().any(|e| matches!(
            e,
            Effect::RemoveCheckpoint(_) | Effect::QuarantineCheckpoint(_)
        )));
    }
    if before.start_blocked(now).is_some() && matches!(before.phase, Phase::Queued { .. }) {
        prop_assert!(run.roster().is_none(), "it started although it was blocked");
    }
    let json = serde_json::to_string(run).unwrap();
    let back: Run = serde_json::from_str(&json).unwrap();
    prop_assert_eq!(&back.phase, &run.phase);
    prop_assert_eq!(back.newest_valid(), run.newest_valid());
    Ok(())
}

fn sequence(
    (min, max, keep_last): (u32, u32, u32),
    turns: Vec<(Event, bool, u64)>,
) -> Result<(), TestCaseError> {
    let mut run = queued();
    run.spec.workers.min = min;
    run.spec.workers.max = if max == 0 { 0 } else { max.max(min) };
    run.spec.checkpoint.keep_last = keep_last;
    run.limits.unreadable_patience_ms = 2500;
    run.limits.no_worker_patience_ms = 5000;
    let mut now = 0;
    let mut away: BTreeSet<WorkerId> = BTreeSet::new();
    for (mut event, present, ms) in turns {
        now += ms;
        if let Some(generation) = generation_of(&mut event)
            && present
        {
            *generation = run.generation;
        }
        if run.admit(&event).is_err() {
            continue;
        }
        if let Event::Assigned { workers } | Event::Joined { workers } = &event {
            workers.iter().for_each(|(worker, _)| {
                away.remove(worker);
            });
        }
        let before = run.clone();
        let effects = run.apply(now, event.clone());
        if let Event::WorkerLost { worker, .. } = &event
            && !matches!(run.phase, Phase::Finishing { .. })
        {
            away.insert(worker.clone());
        }
        if let Some(generation) = generation_of(&mut event.clone())
            && *generation != before.generation
        {
            prop_assert!(effects.is_empty() && run == before, "it heeds the past");
        }
        check(now, &run, &before, &event, &effects, &away)?;
        // Ticks at the times of `wake` leave nothing overdue: each handles at least one worker.
        if let Some(wake) = run.wake() {
            let (mut later, at) = (run.clone(), wake.max(now));
            later.liveness.overslept(at);
            for _ in 0..6 {
                later.apply(at, Event::Tick);
            }
            prop_assert!(later.wake().is_none_or(|next| next > at), "it spins");
        }
    }
    Ok(())
}

#[test]
fn what_must_hold_holds_after_every_event() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    };
    println!("{CASES} sequences");
    let sizes = (1u32..4, 0u32..5, 0u32..3);
    let turns = prop::collection::vec(any_turn(), 1..80);
    proptest!(config, |(sizes in sizes, turns in turns)| sequence(sizes, turns)?);
}
