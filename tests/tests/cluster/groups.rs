//! Cross-validation as one submission: folds that are held out once each, figures that are those of the single runs, and the
//! bits of a run that was submitted alone and lost a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset, tensors};
use serde_json::Value;

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;
const RUN: &str = "\
name = \"cv\"
dataset = \"synthetic\"
seed = 11
[train]
epochs = 4
virtual_ranks = 2
batch = 6
learning_rate = 0.0005
[checkpoint]
every_epochs = 0
every_steps = 2
";

/// The records of `fovea --json`, by type.
fn records(cluster: &Cluster, args: &[&str]) -> BTreeMap<String, Vec<Value>> {
    let text = cluster.fovea(&[&["--json"][..], args].concat());
    let mut records: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).expect("a line is a record");
        let kind = record["type"].as_str().expect("it has a type").to_owned();
        records.entry(kind).or_default().push(record);
    }
    records
}

fn one<'a>(records: &'a BTreeMap<String, Vec<Value>>, kind: &str) -> &'a Value {
    let [record] = &records[kind][..] else {
        panic!("{} records of {kind}", records[kind].len())
    };
    record
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Mean and spread, computed here from the single runs' figures.
fn assert_spread(spread: &Value, values: &[f64]) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(number(&spread["runs"]), n);
    for (key, expected) in [
        ("mean", mean),
        ("sd", variance.sqrt()),
        ("min", least),
        ("max", most),
    ] {
        let found = number(&spread[key]);
        assert!(
            (found - expected).abs() < 1e-12,
            "{key}: {spread} of {values:?}"
        );
    }
}

/// The photographs that a run held out, with their patients.
fn held_out(cluster: &Cluster, run: &str, dir: &Path) -> BTreeMap<String, String> {
    let file = dir.join(format!("{run}.csv"));
    let path = file.to_str().expect("UTF-8");
    cluster.fovea(&[
        "evaluate",
        run,
        "--checkpoint",
        "newest",
        "--draws",
        "100",
        "--csv",
        path,
    ]);
    let text = std::fs::read_to_string(file).expect("the scores were written");
    let mut rows = BTreeMap::new();
    for row in text.lines().skip(1) {
        let mut cells = row.split(',').map(str::to_owned);
        let (image, patient) = (cells.next(), cells.next());
        rows.insert(image.expect("an image"), patient.expect("a patient"));
    }
    rows
}

/// One test, so that the dataset is drawn and the cluster is started once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_folds_are_one_submission_with_the_figures_and_bits_of_single_runs() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let dir = keep.path();
    let prepared = synthetic_dataset(dir, PATIENTS, SIZE);
    let mut cluster = Cluster::start(dir, 2);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let file = dir.join("run.toml");
    std::fs::write(&file, RUN).expect("the run file is written");
    let file = file.to_str().expect("UTF-8");
    let alone = ["--set", "workers.max=1"];
    let submit = [&["submit", file, "--folds", "3"][..], &alone[..]].concat();
    let submitted = records(&cluster, &submit);
    let group = one(&submitted, "group")["id"].as_str().expect("an id");
    let runs: Vec<&str> = one(&submitted, "group")["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .map(|run| run["run"].as_str().expect("an id"))
        .collect();
    assert_eq!(
        (group, &runs[..]),
        ("cv-g1", &["cv.f1-2", "cv.f2-3", "cv.f3-4"][..])
    );

    // All of them run and complete; it ends when they have.
    let watched = cluster.fovea(&["group", "watch", group]);
    for run in &runs {
        let completed = format!("{run}: completed");
        assert!(watched.contains(&completed), "{watched}");
        // Each epoch used each photograph of the other folds once.
        let audit = records(&cluster, &["runs", "audit", run]);
        let audit = one(&audit, "audit");
        assert_eq!(audit["clean"], true, "{audit}");
        assert_eq!(number(&audit["train_samples"]), 32.0);
    }

    // Each patient is held out once.
    let mut seen = BTreeSet::new();
    let mut images = 0;
    for run in &runs {
        let rows = held_out(&cluster, run, dir);
        assert_eq!(rows.len(), 16, "{rows:?}");
        images += rows.len();
        for patient in rows.values().collect::<BTreeSet<_>>() {
            assert!(seen.insert(patient.clone()), "{patient} is in two folds");
        }
    }
    assert_eq!((seen.len(), images), (24, 48));

    // Shown from the runs' last epochs, evaluated from their scores: the same figures.
    let shown = records(&cluster, &["group", "show", group]);
    let auc = |run: &Value| {
        let epochs = run["epochs"].as_array().expect("epochs");
        number(&epochs.last().expect("an epoch")["validation"]["auc"])
    };
    let by_epoch: Vec<f64> = shown["run"].iter().map(auc).collect();
    assert_eq!(by_epoch.len(), 3);
    assert_spread(&one(&shown, "group_figures")["spread"]["auc"], &by_epoch);
    let evaluated = records(&cluster, &["group", "evaluate", group, "--draws", "200"]);
    let figure = |name: &str| -> Vec<f64> {
        let runs = evaluated["evaluation"].iter();
        runs.map(|e| number(&e[name]["value"])).collect()
    };
    for (scores, epoch) in figure("auc").iter().zip(&by_epoch) {
        assert!((scores - epoch).abs() < 1e-9, "{scores} and {epoch}");
    }
    let together = one(&evaluated, "group_evaluation");
    for name in ["auc", "accuracy", "brier"] {
        assert_spread(&together["spread"][name], &figure(name));
    }
    let [pooled] = &together["pooled"].as_array().expect("of one seed")[..] else {
        panic!("{together}")
    };
    assert_eq!(
        (number(&pooled["samples"]), number(&pooled["patients"])),
        (48.0, 24.0)
    );
    // Of all photographs the share that is right is that of the folds, which are of one size.
    let accuracy = figure("accuracy").iter().sum::<f64>() / 3.0;
    let found = number(&pooled["accuracy"]["value"]);
    assert!((found - accuracy).abs() < 1e-9, "{found} and {accuracy}");
    let low = number(&pooled["auc"]["low"]);
    assert!(low <= number(&pooled["auc"]["value"]), "{pooled}");
    let text = cluster.fovea(&["group", "evaluate", group, "--draws", "200"]);
    for words in [
        "all 48 photographs of 24 patients together",
        "no standard error of the mean",
        "of 3 values a deviation is known roughly",
    ] {
        assert!(text.contains(words), "{text}");
    }

    // A fold alone, on two workers of which one is killed: the bits of the fold in the group.
    let fold = [
        "--set",
        "fold.index=2",
        "--set",
        "fold.of=3",
        "--set",
        "workers.min=1",
    ];
    let submitted = records(&cluster, &[&["submit", file][..], &fold[..]].concat());
    let disturbed = one(&submitted, "run")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    cluster
        .run_until(&disturbed, |run| run.workers.len() == 2)
        .await;
    cluster.wait_step(&disturbed, 2).await;
    cluster.workers[1].signal(libc::SIGKILL);
    let disturbed = cluster.wait_completed(&disturbed).await;
    assert!(disturbed.generation > 1, "nobody missed the worker");
    let calm = cluster.run(runs[1]).await;
    assert_eq!(calm.phase(), pb::Phase::Completed);
    let last = async |run: &pb::Run| tensors(&cluster.checkpoint(&run.id, run.total_steps).await);
    assert!(last(&calm).await == last(&disturbed).await, "other bits");
    let other = cluster.run(runs[0]).await;
    assert!(last(&other).await != last(&calm).await, "folds are alike");

    // The group is still there after a restart, and goes with its runs.
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    let listed = cluster.fovea_until(&["group", "list"], |text| text.contains("cv-g1"));
    assert!(listed.contains("3 completed"), "{listed}");
    let kept = cluster.try_fovea(&["group", "rm", group, "--yes"]);
    let text = String::from_utf8_lossy(&kept.stderr).into_owned();
    assert!(
        text.contains("--with-checkpoints removes them, too. Nothing was removed"),
        "{text}"
    );
    let removed = cluster.fovea(&["group", "rm", group, "--yes", "--with-checkpoints"]);
    assert!(removed.contains("removed: 3 runs with "), "{removed}");
    let gone = cluster.try_fovea(&["group", "show", group]);
    assert!(!gone.status.success());
}
