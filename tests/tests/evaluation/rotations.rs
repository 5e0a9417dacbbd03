//! Evaluations in which a photograph counts as the mean over its four rotations. That their scores are those of predictions with
//! rotations is checked in `predict.rs`.

use super::{PATIENTS, SIZE, spec};
use fovea_tests::{Cluster, synthetic_dataset};

/// They are recorded as what they are, are found again as such, take their thresholds from the validation split in the same way, and
/// have their own part of the report.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_with_rotations_is_another_one_than_upright() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let cluster = Cluster::start(keep.path(), 1);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let mut short = spec("turned");
    short.train.as_mut().expect("given").epochs = Some(1);
    let run = cluster.submit(short).await;
    let run = cluster.wait_completed(&run.id).await;
    let evaluate = |options: &[&str]| -> serde_json::Value {
        let args = [&["--json", "evaluate", &run.id, "--draws", "100"], options].concat();
        let text = cluster.fovea(&args);
        let records = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let mut figures =
            records.filter(|record: &serde_json::Value| record["type"] == "evaluation");
        figures.next().expect("the figures")
    };
    let uses = || async {
        let evaluations = cluster.run(&run.id).await.evaluations;
        let of = |e: fovea_proto::pb::EvaluationRecord| (e.part().as_str_name(), e.rotations);
        evaluations.into_iter().map(of).collect::<Vec<_>>()
    };

    let upright = evaluate(&["--split", "train"]);
    assert_eq!(upright["rotations"], false);
    assert_eq!(uses().await, [("PART_TRAIN", false)]);
    let turned = evaluate(&["--split", "train", "--rotations"]);
    assert_eq!(turned["rotations"], true);
    assert_ne!(turned["auc"], upright["auc"], "one scored for the other");
    // The thresholds of rotated scores are chosen on rotated scores.
    let all = [
        ("PART_TRAIN", false),
        ("PART_TRAIN", true),
        ("PART_VALIDATION", true),
    ];
    assert_eq!(uses().await, all);
    let own = evaluate(&["--rotations"]);
    let thresholds = |of: &serde_json::Value| {
        let points = of["points"].as_array().expect("points").iter();
        points
            .map(|p| p["point"]["threshold"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(thresholds(&own), thresholds(&turned));
    assert_ne!(thresholds(&own), thresholds(&evaluate(&[])));
    // All of these are there: nothing is scored again.
    assert_eq!(
        evaluate(&["--split", "train", "--rotations"])["roc"],
        turned["roc"]
    );
    assert_eq!(evaluate(&["--split", "train"])["roc"], upright["roc"]);
    assert_eq!(uses().await, all);

    let text = cluster.fovea(&["evaluate", &run.id, "--rotations"]);
    assert!(
        text.contains("(validation, mean over four rotations)"),
        "{text}"
    );
    let listed = cluster.fovea(&["run", &run.id]);
    assert!(
        listed.contains("on synthetic (train, four rotations)"),
        "{listed}"
    );
    let page = keep.path().join("report.html");
    cluster.fovea(&["report", &run.id, "-o", page.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(page).expect("the report");
    let titles = [
        "Validation split",
        "Validation split, mean over four rotations",
        "Training split, mean over four rotations",
    ];
    let found = titles.map(|title| page.find(&format!(">{title}<")));
    assert!(
        found.iter().all(Option::is_some) && found.is_sorted(),
        "{found:?}"
    );

    // Without the scores that its thresholds are from, what was scored with rotations is left out of the report, with the reason.
    let shown: serde_json::Value =
        serde_json::from_str(cluster.fovea(&["--json", "run", &run.id]).trim()).expect("JSON");
    let evaluations = shown["evaluations"].as_array().expect("evaluations");
    let validation = evaluations
        .iter()
        .find(|e| e["part"] == "validation")
        .expect("one");
    let scored = validation["run"].as_str().expect("an id");
    cluster.fovea(&["runs", "rm", scored, "--yes"]);
    let page = keep.path().join("less.html");
    cluster.fovea(&["report", &run.id, "-o", page.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(page).expect("the report");
    assert!(!page.contains(">Training split, mean over four rotations<"));
    assert!(
        page.contains("(train, four rotations) is left out"),
        "the reason"
    );
}
