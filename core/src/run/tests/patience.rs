//! How long a first step may take before its worker counts as stuck.

use super::*;
use crate::pipeline::Pipeline;
use crate::spec::{EvaluateSpec, Part, Precision, Reduction};

/// A run on images of `size` px, which the workers `of` are about to begin.
fn begun(size: u32, of: &[u8], set: impl FnOnce(&mut Run)) -> Run {
    let mut run = queued();
    run.pipeline = Some(Pipeline {
        steps: "crop, bilinear, rules 3".into(),
        size,
        digest: "d".into(),
        recipe: None,
    });
    run.spec.train.batch = 256;
    set(&mut run);
    run.apply(0, assigned(of));
    for &i in of {
        run.apply(0, ready(i, 1, 0, "a"));
    }
    assert_eq!(run.phase_name(), "running");
    run
}

fn heartbeat(i: u8, now: u64, waiting_for: Option<u32>) -> Event {
    Event::Progress {
        worker: worker(i),
        generation: 1,
        heartbeat: Heartbeat {
            ticks: 3,
            waiting_for,
            polls: now,
            scored: 0,
        },
    }
}

#[test]
fn the_longest_piece_of_work_follows_from_images_batch_threads_precision_and_device() {
    let piece = |size, set: fn(&mut Run)| begun(size, &[0], set).longest_piece_ms() as f64;
    let base = piece(512, |_| {});
    // A core that does 61 multiply-adds in a nanosecond needs 104 s.
    assert!((1.5e6..1.7e6).contains(&base), "{base}");
    type Change = fn(&mut Run);
    let table: [(&str, Change, f64); 9] = [
        ("batch", |r| r.spec.train.batch = 64, 0.25),
        ("threads", |r| r.spec.train.threads = 8, 0.125),
        ("bf16", |r| r.spec.train.precision = Precision::Bf16, 10.0),
        ("tf32", |r| r.spec.train.precision = Precision::Tf32, 1.0),
        // All four virtual ranks at once.
        ("fast", |r| r.spec.train.reduction = Reduction::Fast, 4.0),
        (
            "scores",
            |r| r.spec.evaluate = Some(evaluation()),
            1.0 / 3.0,
        ),
        ("a GPU", |r| r.fingerprint = Some(on_gpu()), 0.01),
        (
            "any worker",
            |r| {
                r.fingerprint = Some(on_gpu());
                r.spec.workers.mixed = true;
            },
            1.0,
        ),
        ("a size that is not known", |r| r.pipeline = None, 0.0),
    ];
    for (what, set, expected) in table {
        let mut run = begun(512, &[0], |_| {});
        set(&mut run);
        let ratio = run.longest_piece_ms() as f64 / base;
        assert!((ratio - expected).abs() < 1e-3, "{what}: {ratio}");
    }
    let mut run = begun(512, &[0], |run| {
        run.spec.train.precision = Precision::Bf16;
    });
    run.fingerprint = Some(Fingerprint {
        cpu: "x (avx2 fma avx512f avx512_bf16)".into(),
        ..fingerprint()
    });
    assert_eq!(run.longest_piece_ms() as f64, base);
    // The recipe's step is no reason to wait for longer than for any other.
    let recipe = piece(224, |run| run.spec.train.batch = 16);
    assert!((10e3..40e3).contains(&recipe), "{recipe}");
}

fn evaluation() -> EvaluateSpec {
    EvaluateSpec {
        run: RunId::new("dr-7").unwrap(),
        step: 8,
        part: Part::All,
        rotations: false,
        maps: false,
    }
}

fn on_gpu() -> Fingerprint {
    Fingerprint {
        device: "NVIDIA H200".into(),
        ..fingerprint()
    }
}

/// The first gradient on large images, of which the other worker has fewer.
#[test]
fn a_first_step_of_minutes_is_taken_and_one_that_never_ends_is_not_waited_for() {
    let mut run = begun(512, &[0, 1], |_| {});
    let limit = run.longest_piece_ms();
    let mut tick = |now| {
        run.apply(now, heartbeat(0, now, None));
        run.apply(now, heartbeat(1, now, Some(0)));
        run.apply(now, Event::Tick)
    };
    for now in (0..=limit).step_by(1000) {
        assert_eq!(tick(now), [], "at {now}");
    }
    let effects = tick(limit + 1000);
    assert_eq!(aborted(&effects), [(worker(0), 1)]);
    // As ever where the work is small.
    let mut run = begun(64, &[0], |run| run.spec.train.batch = 4);
    for now in (0..=60_000).step_by(1000) {
        run.apply(now, heartbeat(0, 1, None));
        assert_eq!(run.apply(now, Event::Tick), [], "at {now}");
    }
    let effects = run.apply(61_000, Event::Tick);
    assert_eq!(aborted(&effects), [(worker(0), 1)]);
}
