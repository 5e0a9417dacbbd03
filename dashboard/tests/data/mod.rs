//! Made-up pages: the same for tests and for the example that writes them to files.

pub mod groups;

use std::path::Path;

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::ids::{RunId, WorkerId};
use fovea_core::metrics::Evaluation;
use fovea_core::roster::Roster;
use fovea_core::run::{EpochResult, Extent, Phase as CorePhase, Run, StepPhases, StepReport};
use fovea_core::spec::{EvaluateSpec, Part};
use fovea_dashboard::model::{
    Actions, Audited, Compared, DatasetList, DatasetRow, Disk, Noted, Overview, Phase, RunList,
    RunPage, RunRow, Scored, SplitRow, WorkerList, WorkerRow, WorkerState, best_epoch, checkpoints,
};
use fovea_dashboard::{Here, Shell, Viewer};
use fovea_evaluation::{Draws, Sample, Samples, Wanted, choose, evaluate};
use fovea_runfile::RunFile;

pub const NOW: u64 = 1_795_774_500_000;

/// A number from 0 to 1 that looks random.
pub fn noise(of: u64) -> f64 {
    let mixed = (of ^ 0x9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((mixed >> 33) % 100_000) as f64 / 100_000.0
}

pub fn run(number: u64, epochs_done: u32) -> Run {
    let text = format!(
        "name = \"retina\"\ndataset = \"eyepacs-512\"\nseed = {number}\n[model]\nclasses = 5\nweights = \"bvlc\"\n\
         [train]\nepochs = 12\nvirtual_ranks = 8\nbatch = 32\n"
    );
    let file = RunFile::parse("run.toml", Path::new(""), &text).unwrap();
    let extent = Extent {
        steps_per_epoch: 110,
        total_steps: 1320,
        train_samples: 28_100,
        validation_samples: 3_512,
    };
    let id = RunId::new(format!("retina-{number}")).unwrap();
    let mut run = Run::new(
        id,
        number,
        file.spec().unwrap(),
        "d".repeat(64),
        extent,
        NOW - 5_400_000,
    );
    run.submitted_by = Some("ann".into());
    run.times.began_ms = Some(NOW - 5_300_000);
    for epoch in 0..epochs_done {
        let at = f64::from(epoch);
        run.epochs.push(EpochResult {
            epoch,
            step: u64::from(epoch + 1) * 110,
            train_loss: Some(0.5 + 0.7 / (1.0 + at)),
            validation: Evaluation {
                samples: 3_512,
                positives: 690,
                loss: 0.62 + 0.6 / (1.0 + at) + 0.05 * noise(number * 100 + u64::from(epoch)),
                accuracy: 0.7,
                auc: Some(0.945 - 0.22 / (1.0 + at) - 0.01 * noise(number * 7 + u64::from(epoch))),
                sensitivity: Some(0.81),
                specificity: Some(0.93),
                quadratic_kappa: Some(0.78 - 0.4 / (1.0 + at) - 0.02 * noise(u64::from(epoch))),
                confusion: vec![vec![1; 5]; 5],
            },
        });
        run.checkpoints.push(CheckpointInfo {
            step: u64::from(epoch + 1) * 110,
            generation: 1,
            bytes: 41_234_567,
            sha256: "3f".repeat(32),
            stored_at_ms: NOW - 400_000 * u64::from(epochs_done - epoch),
            fingerprint: Fingerprint {
                device: "cpu".into(),
                cpu: "x".into(),
                libtorch: "2".into(),
                threads: 1,
                precision: "float32".into(),
                fovea: "0.1.0".into(),
                kernels: String::new(),
                path: String::new(),
            },
            lineage: run.lineage,
        });
    }
    run.checkpoints
        .drain(..run.checkpoints.len().saturating_sub(4));
    run
}

pub fn training(number: u64, epochs_done: u32) -> Run {
    let mut run = run(number, epochs_done);
    let worker = |rank| {
        let id = WorkerId::new(format!("gpu-node-{rank}-4711-0a1b2c3d")).unwrap();
        (id, format!("10.20.30.4{rank}:7071"))
    };
    let workers: Vec<(WorkerId, String)> = (0..3).map(worker).collect();
    let roster = Roster::deal(3, &workers, 8, 0);
    run.generation = 3;
    run.phase = CorePhase::Running {
        roster,
        stopping: None,
    };
    let step = u64::from(epochs_done) * 110 + 37;
    run.progress = Some(StepReport {
        step,
        loss: 0.731,
        images: 256,
        images_per_s: 412.7,
        learning_rate: 0.0007,
        phases: StepPhases {
            load_ms: 12.0,
            forward_ms: 170.0,
            backward_ms: 331.0,
            reduce_ms: 92.0,
            optimizer_ms: 15.0,
        },
    });
    run
}

/// A completed evaluation of a checkpoint of `retina-7` on the test part.
pub fn evaluation(number: u64) -> Run {
    let mut run = run(number, 1);
    run.id = RunId::new(format!("retina.test-{number}")).unwrap();
    run.spec.evaluate = Some(EvaluateSpec {
        run: RunId::new("retina-7").unwrap(),
        step: 770,
        part: Part::Test,
        rotations: false,
        maps: false,
    });
    run.checkpoints.clear();
    run.phase = CorePhase::Completed;
    run.times.ended_ms = Some(NOW - 60_000);
    run
}

pub fn row(run: &Run, waiting: Option<&str>) -> RunRow {
    RunRow::of(run, run.progress, waiting)
}

pub fn worker(number: usize, state: WorkerState) -> WorkerRow {
    WorkerRow {
        id: format!("gpu-node-{number}-4711-0a1b2c3d"),
        state,
        reason: match state {
            WorkerState::LeftOut => "of retina-7 (disk): writing the dataset's index: No space left on device (offered again in 12 s)".into(),
            WorkerState::Waiting => "retina-9: needs 2 workers, and 1 is idle".into(),
            _ => String::new(),
        },
        host: format!("gpu-node-{number}"),
        address: format!("10.20.30.{number}:7071"),
        device: "NVIDIA H100 80GB HBM3".into(),
        version: "0.1.0".into(),
        run: (state == WorkerState::Training).then(|| "retina-7".into()),
        hosts: (state == WorkerState::Training).then_some((number as u32 * 2, 2)),
        memory: Some(78_000_000_000),
        used: number.is_multiple_of(2).then_some((31_400_000_000, Some(85_000_000_000))),
        step_ms: (state == WorkerState::Training).then_some(612.4),
        waiting: (state == WorkerState::Training).then_some(0.12),
        last_seen_ms: if number == 3 { 42_000 } else { 200 },
        connected_ms: 8_000_000,
    }
}

pub fn overview() -> Overview {
    let mut queued = run(9, 0);
    queued.progress = None;
    let mut paused = run(8, 3);
    paused.phase = CorePhase::Paused;
    let mut failed = run(3, 2);
    failed.phase = CorePhase::Failed {
        reason: "train.learning_rate: the loss is not finite at step 212; a smaller rate may help"
            .into(),
    };
    failed.times.ended_ms = Some(NOW - 90_000_000);
    let ended = |number| {
        let mut run = run(number, 12);
        run.phase = CorePhase::Completed;
        run.times.ended_ms = Some(NOW - 3_600_000 * (8 - number));
        row(&run, None)
    };
    Overview {
        live: vec![
            row(
                &queued,
                Some("needs 2 workers, and 1 is idle: 3 train retina-7 and 1 is left out of it"),
            ),
            row(&paused, None),
            row(&training(7, 7), None),
            row(&training(6, 2), None),
        ],
        ended: vec![
            row(&evaluation(10), None),
            ended(5),
            ended(4),
            row(&failed, None),
        ],
        workers: [
            (WorkerState::Training, 6),
            (WorkerState::Idle, 1),
            (WorkerState::LeftOut, 1),
        ]
        .into(),
        disk: Some(Disk {
            free: 812_000_000_000,
            total: 2_000_000_000_000,
            wanted: 1 << 30,
        }),
        problems: Vec::new(),
    }
}

pub fn losses(steps: u64) -> Vec<(f64, f64)> {
    let loss = |step: u64| 0.45 + 1.2 / (1.0 + step as f64 / 60.0) + 0.35 * noise(step);
    let all: Vec<(f64, f64)> = (1..=steps).map(|step| (step as f64, loss(step))).collect();
    fovea_dashboard::thin(&all, fovea_dashboard::MOST_POINTS)
}

pub fn scored() -> Scored {
    let samples: Vec<Sample> = (0..800u64)
        .map(|number| {
            let grade = [0, 0, 0, 0, 0, 1, 2, 2, 3, 4][(number % 10) as usize];
            let p = (noise(number) * 0.75 + f64::from(grade) * 0.11).min(0.99) as f32;
            let rest = (1.0 - p) / 2.0;
            Sample {
                patient: format!("p{}", number / 2),
                eye: None,
                grade,
                label: usize::from(grade),
                probabilities: vec![rest, rest, p / 3.0, p / 3.0, p / 3.0],
            }
        })
        .collect();
    let scheme = run(1, 0).spec.scheme();
    let samples = Samples::new(&samples, scheme).unwrap();
    let points = choose(&samples, Wanted::default());
    let draws = Draws {
        number: 60,
        seed: 0,
    };
    Scored::Known {
        epoch: 7,
        is_best: true,
        evaluated: Box::new(evaluate(&samples, &points, draws)),
    }
}

pub fn run_page(run: &Run) -> RunPage {
    let phase = Phase::of(run);
    RunPage {
        row: row(run, None),
        spec_text: "name = \"retina\"\n".into(),
        spec: run.spec.clone(),
        generation: run.generation,
        validation_samples: 3_512,
        train_samples: 28_100,
        losses: losses(run.progress.map_or(0, |p| p.step)),
        epochs: run.epochs.clone(),
        scored: scored(),
        checkpoints: checkpoints(run),
        evaluations: Vec::new(),
        full_step: run.progress,
        events: vec![
            Noted {
                at_ms: NOW - 600_000,
                event: "worker.joined".into(),
                text: "gpu-node-2-4711-0a1b2c3d joins at the next step".into(),
            },
            Noted {
                at_ms: NOW - 1_600_000,
                event: "worker.evicted".into(),
                text: "gpu-node-4-4711-99aa made no progress for 5.04 s (limit 5.00 s, 10x the median step); generation 2 continues without it".into(),
            },
        ],
        events_since_ms: NOW - 86_400_000,
        audit: Some(Audited {
            at_ms: NOW - 60_000,
            steps: 807,
            total_steps: 1320,
            train_samples: 28_100,
            clean_epochs: 7,
            samples_used: 206_000,
            problems: Vec::new(),
        }),
        workers: (0..3).map(|n| worker(n, WorkerState::Training)).collect(),
        actions: Actions::of(phase, true),
        may_not: None,
    }
}

pub fn runs() -> RunList {
    let Overview { live, ended, .. } = overview();
    RunList {
        runs: live.into_iter().chain(ended).collect(),
        older: Some(3),
        is_later: false,
    }
}

pub fn workers() -> WorkerList {
    let states = [
        WorkerState::Training,
        WorkerState::Training,
        WorkerState::Training,
        WorkerState::LeftOut,
        WorkerState::Idle,
        WorkerState::Waiting,
    ];
    WorkerList {
        workers: states
            .into_iter()
            .enumerate()
            .map(|(n, state)| worker(n, state))
            .collect(),
        all: 6,
        page: 1,
        pages: 1,
    }
}

pub fn datasets() -> DatasetList {
    let split = |name, grades: [u64; 5]| SplitRow {
        name,
        samples: grades.iter().sum(),
        patients: Some(grades.iter().sum::<u64>() / 2),
        grades,
    };
    DatasetList {
        datasets: vec![DatasetRow {
            name: "eyepacs-512".into(),
            digest: "3f".repeat(32),
            image_size: 512,
            preprocessing: "clahe (clip 2, tiles 8), circle, bilinear, rules 3".into(),
            scale: "icdr".into(),
            is_graded: true,
            packs: 104,
            bytes: 27_600_000_000,
            splits: vec![
                split("Training", [20_650, 1_954, 4_234, 699, 566]),
                split("Validation", [2_580, 244, 529, 87, 71]),
                split("Test", [2_580, 245, 529, 87, 71]),
            ],
            problem: None,
            used_by: vec!["retina-7".into(), "retina-9".into()],
        }],
        unreadable: Vec::new(),
        page: 1,
        pages: 1,
    }
}

pub fn compared() -> Vec<Compared> {
    [4u64, 5, 7]
        .into_iter()
        .map(|number| {
            let run = training(number, if number == 7 { 7 } else { 11 });
            Compared {
                row: row(&run, None),
                spec: run.spec.clone(),
                epochs: run.epochs.clone(),
                best: best_epoch(&run).cloned(),
                losses: losses(run.progress.map_or(0, |p| p.step)),
            }
        })
        .collect()
}

pub fn shell(here: Here, live: Option<&str>) -> Shell {
    Shell {
        viewer: Some(Viewer {
            named: Some(("ann".into(), "submitter".into())),
            can_leave: true,
            may_submit: true,
            csrf: "0123456789abcdef".into(),
        }),
        here,
        live: live.map(str::to_owned),
        style: "style.css".into(),
        script: "live.js".into(),
        now_ms: NOW,
        version: "0.1.0 (abc1234)".into(),
        cluster: Some("clinic".into()),
    }
}
