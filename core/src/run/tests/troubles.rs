//! A worker's own trouble: who is left out, for how long, and when the run fails.

use super::*;

fn unfit(i: u8, generation: u64, trouble: Trouble) -> Event {
    unfit_because(i, generation, trouble, "no space left")
}

fn unfit_because(i: u8, generation: u64, trouble: Trouble, reason: &str) -> Event {
    released(
        i,
        generation,
        Outcome::Unfit {
            trouble,
            reason: reason.into(),
        },
    )
}

fn usable(workers: usize) -> Event {
    Event::Usable { workers }
}

fn left_out(run: &Run) -> Vec<WorkerId> {
    run.left_out().into_keys().collect()
}

fn failure_of(run: &Run) -> &str {
    match &run.phase {
        Phase::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_others_go_on_at_once_and_no_attempt_failed() {
    for forming in [true, false] {
        let mut run = match forming {
            true => {
                let mut run = queued();
                run.apply(0, assigned(&[0, 1, 2]));
                run
            }
            false => running(&[0, 1, 2]),
        };
        let effects = run.apply(1000, unfit(1, 1, Trouble::Disk));
        assert_eq!(members(&run), workers(&[0, 2]));
        assert!(sent(&effects).is_some() && aborted(&effects).is_empty());
        let why = &run.left_out()[&worker(1)];
        assert_eq!(
            (why.trouble, &*why.reason),
            (Trouble::Disk, "no space left")
        );
        assert_eq!((why.since_ms, why.until_ms), (1000, 11_000));
        assert_eq!(run.barred_until(&worker(1)), 11_000);
        assert_eq!(run.barred()[&worker(1)], 11_000);
        let logged = effects.iter().any(|effect| {
            matches!(effect, Effect::Log { warning: true, message }
                if message.starts_with("worker.left_out: worker w1 is left out (disk): no space left;"))
        });
        assert!(logged, "{effects:?}");
        assert_eq!((run.failures, run.futile, run.stale), (0, 1, 1));
    }
}

#[test]
fn any_number_of_workers_with_trouble_is_no_failure_of_the_run() {
    let mut run = queued();
    for now in 0..2 * u64::from(FUTILE_GENERATIONS) {
        run.apply(now, assigned(&[0]));
        run.apply(now, unfit(0, run.generation, Trouble::Memory));
        assert_eq!(run.phase_name(), "queued");
    }
}

#[test]
fn the_pause_depends_on_the_trouble_and_doubles() {
    for trouble in Trouble::ALL {
        let (first, longest) = trouble.pauses_ms();
        let mut run = queued();
        let (mut now, mut expected) = (0, first);
        for _ in 0..12 {
            run.apply(now, assigned(&[0]));
            run.apply(now, unfit(0, run.generation, trouble));
            let until = run.barred_until(&worker(0));
            assert_eq!(until - now, expected, "{trouble}");
            now = until;
            expected = (2 * expected).min(longest);
        }
        assert_eq!(expected, longest, "{trouble}");
        // Another kind, or the same one long after, begins anew.
        let other = match trouble {
            Trouble::Disk => Trouble::Memory,
            _ => Trouble::Disk,
        };
        for (later, next) in [(0, other), (2 * longest, trouble)] {
            let mut run = run.clone();
            let now = now + later;
            run.apply(now, assigned(&[0]));
            run.apply(now, unfit(0, run.generation, next));
            let pause = run.barred_until(&worker(0)) - now;
            assert_eq!(pause, next.pauses_ms().0, "{trouble} {next}");
        }
    }
}

#[test]
fn a_worker_that_is_ready_is_left_out_no_more() {
    let mut run = running(&[0, 1]);
    run.apply(0, unfit(1, 1, Trouble::Disk));
    run.apply(0, ready(0, 2, 0, "a"));
    assert_eq!(left_out(&run), workers(&[1]));
    run.apply(10_000, joined(&[1]));
    assert_eq!(left_out(&run), [], "a member is not left out");
    run.apply(10_001, ready(1, 3, 0, "a"));
    assert_eq!(left_out(&run), []);
    assert_eq!(run.barred_until(&worker(1)), 0);
    // What it had counts if it comes again soon.
    run.apply(10_002, ready(0, 3, 0, "a"));
    run.apply(10_003, unfit(1, 3, Trouble::Disk));
    assert_eq!(run.barred_until(&worker(1)), 30_003);
}

#[test]
fn a_worker_that_cannot_prepare_is_left_out_and_the_run_not_disturbed() {
    let mut run = running(&[0]);
    let effects = run.apply(
        5,
        Event::Unfit {
            worker: worker(3),
            trouble: Trouble::Data,
            reason: "pack 3 is missing".into(),
        },
    );
    assert!(matches!(&effects[..], [Effect::Log { .. }]), "{effects:?}");
    assert_eq!((left_out(&run), run.generation), (workers(&[3]), 1));
}

#[test]
fn a_worker_that_leaves_is_not_shown_and_is_soon_offered_if_it_says_hello_again() {
    let mut run = running(&[0, 1]);
    let mut now = 0;
    for _ in 0..5 {
        run.apply(now, unfit(1, run.generation, Trouble::Disk));
        run.apply(now, ready(0, run.generation, 0, "a"));
        now = run.barred_until(&worker(1));
        run.apply(now, joined(&[1]));
    }
    run.apply(now, unfit(1, run.generation, Trouble::Disk));
    assert_eq!(run.barred_until(&worker(1)), now + 320_000);
    run.apply(now + 1, lost(1));
    assert_eq!(left_out(&run), []);
    assert_eq!(run.barred_until(&worker(1)), now + 10_000);
}

#[test]
fn without_enough_usable_workers_the_run_fails_after_its_patience_with_all_reasons() {
    let mut run = queued();
    run.spec.workers.min = 2;
    run.limits.no_worker_patience_ms = 5_000;
    // Too few are there, and none has trouble: it waits.
    run.apply(0, usable(0));
    assert_eq!(run.wake(), None);
    run.apply(0, assigned(&[0, 1]));
    run.apply(1_000, unfit(0, 1, Trouble::Disk));
    run.apply(1_000, usable(1));
    assert_eq!(run.wake(), Some(6_000));
    // Another worker came in time.
    let mut rescued = run.clone();
    rescued.apply(5_999, usable(2));
    assert_eq!(rescued.wake(), None);
    assert!(rescued.apply(9_000, Event::Tick).is_empty());
    // A try in between that fails does not begin the patience anew.
    run.apply(2_000, assigned(&[0, 1]));
    assert!(run.apply(2_000, Event::Tick).is_empty());
    let reason = "CUDA error:\nout of memory";
    run.apply(
        7_000,
        unfit_because(1, run.generation, Trouble::Memory, reason),
    );
    run.apply(7_000, usable(1));
    run.apply(7_001, Event::Tick);
    let reason = failure_of(&run);
    let lines: Vec<&str> = reason.lines().collect();
    assert!(
        lines[0].starts_with("2 workers are needed, and for 5 s"),
        "{reason}"
    );
    assert!(lines[0].contains("no_worker_patience_s"), "{reason}");
    assert_eq!(
        lines[1..],
        [
            "worker w0 (disk): no space left",
            "worker w1 (memory): CUDA error: out of memory"
        ]
    );
    // A person resumes it: every worker may try again.
    run.apply(8_000, resume(None));
    assert_eq!((run.phase_name(), left_out(&run)), ("queued", vec![]));
    assert_eq!((run.wake(), run.barred_until(&worker(0))), (None, 0));
}

#[test]
fn a_generation_that_forms_ends_the_shortage() {
    let mut run = queued();
    run.limits.no_worker_patience_ms = 5_000;
    run.apply(0, assigned(&[0]));
    run.apply(0, unfit(0, 1, Trouble::Disk));
    run.apply(0, usable(0));
    run.apply(4_000, assigned(&[0]));
    run.apply(4_500, ready(0, 2, 0, "a"));
    assert_eq!(run.phase_name(), "running");
    run.apply(4_600, unfit(0, 2, Trouble::Disk));
    run.apply(4_600, usable(0));
    assert_eq!(run.wake(), Some(9_600));
    // The worker disconnects: nobody is left who could say why.
    run.apply(5_000, lost(0));
    run.apply(5_000, usable(0));
    assert_eq!(run.wake(), None);
}

/// Two workers that report the same content have no trouble of their own.
#[test]
fn the_same_wrong_content_everywhere_is_the_runs_trouble() {
    let wrong = "weights have SHA-256 a, not b";
    // (what each reports, whether the run fails at once)
    let table: [(&[(Trouble, &str)], bool); 6] = [
        (&[(Trouble::Content, wrong)], false),
        (
            &[(Trouble::Content, wrong), (Trouble::Content, wrong)],
            true,
        ),
        (&[(Trouble::Content, "c"), (Trouble::Content, wrong)], false),
        (&[(Trouble::Data, wrong), (Trouble::Data, wrong)], false),
        (&[(Trouble::Disk, wrong), (Trouble::Content, wrong)], false),
        (
            &[
                (Trouble::Content, wrong),
                (Trouble::Content, wrong),
                (Trouble::Content, wrong),
            ],
            true,
        ),
    ];
    for (reports, fails) in table {
        let mut run = queued();
        let all: Vec<u8> = (0..reports.len() as u8).collect();
        run.apply(0, assigned(&all));
        for (i, (trouble, reason)) in (0..).zip(reports) {
            assert_ne!(run.phase_name(), "failed", "{reports:?}");
            run.apply(1, unfit_because(i, run.generation, *trouble, reason));
        }
        assert_eq!(run.phase_name() == "failed", fails, "{reports:?}");
        if fails {
            let count = reports.len();
            let expected = format!("all {count} workers that tried report the same: {wrong}");
            assert_eq!(failure_of(&run), expected);
        }
    }
    // While one is left the run goes on.
    let mut run = running(&[0, 1, 2]);
    for i in [1, 2] {
        run.apply(1, unfit_because(i, run.generation, Trouble::Content, wrong));
    }
    assert_eq!(members(&run), workers(&[0]));
}

#[test]
fn what_every_worker_would_meet_still_fails_the_run_at_once() {
    let mut run = running(&[0, 1]);
    let effects = run.apply(1, released(1, 1, failure(true)));
    assert_eq!(aborted(&effects), [(worker(0), 1)]);
    assert_eq!(run.phase_name(), "failed");
}

#[test]
fn trouble_at_the_end_spoils_the_last_checkpoint_as_a_loss_does() {
    let mut run = running(&[0, 1]);
    run.apply(0, released(0, 1, Outcome::Completed { step: 10 }));
    run.apply(1, unfit(1, 1, Trouble::Disk));
    assert_eq!(run.phase_name(), "queued");
    let mut run = running(&[0, 1]);
    run.apply(0, Event::Cancel);
    run.apply(1, unfit(0, 1, Trouble::Disk));
    run.apply(1, unfit(1, 2, Trouble::Disk));
    assert_eq!(run.phase, Phase::Cancelled);
}
