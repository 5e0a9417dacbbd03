//! A data folder with long ledgers, as Fovea 976f9b6 (journal schema 2) wrote it. Later versions migrate it.

use std::fs;
use std::path::Path;

use fovea_core::ids::RunId;
use fovea_core::ledger;
use fovea_core::metrics::{Score, evaluate};
use fovea_core::plan::ShardPlan;
use fovea_core::run::{EpochResult, Extent, Phase, Run, StepReport};
use fovea_core::spec::{RunSpec, Scheme};
use rusqlite::{Connection, params};

use super::{SEED, Samples, epoch_samples};

/// The schema of 976f9b6, word for word.
const SCHEMA_2: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
    CREATE TABLE runs (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, run TEXT NOT NULL);
    CREATE TABLE datasets (name TEXT PRIMARY KEY, digest TEXT NOT NULL);
    CREATE TABLE ledger (run INTEGER NOT NULL, step INTEGER NOT NULL, loss REAL NOT NULL,
                         count INTEGER NOT NULL, samples BLOB NOT NULL, PRIMARY KEY (run, step)) WITHOUT ROWID;
    INSERT INTO meta (key, value) VALUES ('schema_version', 2);
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;";

/// Writes the folder: `runs` runs of about `steps` steps each, every tenth of which is paused and the others completed, and
/// one more, the last, of about `long` steps. All steps use the samples that the plan says, so that an audit is clean.
/// Returns the steps of the runs and of the long one, which are whole epochs.
pub fn write(
    data_dir: &Path,
    prepared: &Path,
    samples: &Samples,
    runs: u64,
    steps: u64,
    long: u64,
) -> (u64, u64) {
    let manifest = samples.dataset.manifest();
    copy(prepared, &data_dir.join("datasets").join(&manifest.digest));
    fs::create_dir_all(data_dir.join("checkpoints")).expect("a folder can be made");
    let mut db = Connection::open(data_dir.join("journal.db")).expect("a new database");
    db.execute_batch(SCHEMA_2).expect("the schema");
    let insert = "INSERT INTO datasets (name, digest) VALUES (?1, ?2)";
    db.execute(insert, params!["synthetic", manifest.digest])
        .expect("a row");
    let insert = "INSERT INTO meta (key, value) VALUES ('next_run', ?1)";
    db.execute(insert, [runs as i64 + 2]).expect("a row");
    let plan = samples.plan(1);
    let per_epoch = plan.steps_per_epoch();
    let whole = |steps: u64| steps.div_ceil(per_epoch) * per_epoch;
    for number in 1..=runs + 1 {
        let is_long = number == runs + 1;
        let wanted = whole(if is_long { long } else { steps });
        let paused = number % 10 == 0 && !is_long;
        write_run(&mut db, number, samples, &plan, wanted, paused);
        if number % 20 == 0 {
            eprintln!("{number} of {runs} ledgers are written");
        }
    }
    let _: String = db
        .query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))
        .expect("the log is folded in");
    (whole(steps), whole(long))
}

fn write_run(
    db: &mut Connection,
    number: u64,
    samples: &Samples,
    plan: &ShardPlan,
    steps: u64,
    paused: bool,
) {
    let per_epoch = plan.steps_per_epoch();
    let epochs = steps / per_epoch;
    let run = run(number, samples, plan, steps, paused);
    let json = serde_json::to_string(&run).expect("a run is JSON");
    let transaction = db.transaction().expect("a transaction");
    transaction
        .execute(
            "INSERT INTO runs (number, id, run) VALUES (?1, ?2, ?3)",
            params![number as i64, run.id.as_str(), json],
        )
        .expect("a row");
    {
        let mut insert = transaction
            .prepare(
                "INSERT INTO ledger (run, step, loss, count, samples) VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .expect("a statement");
        for epoch in 0..epochs {
            let used = epoch_samples(plan, epoch as u32);
            for (step, used) in (epoch * per_epoch + 1..).zip(used) {
                let packed = ledger::pack(&used, plan.train_samples());
                let row = params![number as i64, step as i64, 0.5, used.len() as i64, packed];
                insert.execute(row).expect("a row");
            }
        }
    }
    transaction.commit().expect("the rows are written");
}

fn run(number: u64, samples: &Samples, plan: &ShardPlan, steps: u64, paused: bool) -> Run {
    let per_epoch = plan.steps_per_epoch();
    let epochs = steps / per_epoch;
    // A paused run has some way to go.
    let planned = epochs + u64::from(paused) * 10;
    let spec: RunSpec = toml::from_str(&format!(
        "name = 'old'\ndataset = 'synthetic'\nseed = {SEED}\n\
         [train]\nepochs = {planned}\nvirtual_ranks = 1\nbatch = 1"
    ))
    .expect("a valid run");
    let extent = Extent {
        steps_per_epoch: per_epoch,
        total_steps: planned * per_epoch,
        train_samples: plan.train_samples(),
        validation_samples: samples.validation.into(),
    };
    let id = RunId::new(format!("old-{number}")).expect("a valid id");
    let digest = samples.dataset.manifest().digest.clone();
    let mut run = Run::new(id, number, spec, digest, extent, 1_700_000_000_000);
    run.phase = if paused {
        Phase::Paused
    } else {
        Phase::Completed
    };
    run.generation = 1;
    let scores: Vec<Score> = (0..2)
        .map(|sample| Score {
            sample,
            label: sample,
            probabilities: vec![0.5, 0.5],
            loss: 0.7,
            map: None,
        })
        .collect();
    let validation = evaluate(&scores, Scheme::softmax(2, 1));
    run.epochs = (0..epochs)
        .map(|epoch| EpochResult {
            epoch: epoch as u32,
            step: (epoch + 1) * per_epoch,
            train_loss: Some(0.5),
            validation: validation.clone(),
        })
        .collect();
    run.progress = Some(StepReport {
        step: steps,
        loss: 0.5,
        images: 1,
        images_per_s: 10.0,
        learning_rate: 0.001,
        phases: Default::default(),
    });
    run
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
