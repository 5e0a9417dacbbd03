//! Label schemes: five grades and an ordinal head, with the same bits whoever computes them, and learnt.

use std::path::Path;

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset, tensors};

/// Steps at this size are quick, and the network is the whole GoogLeNet.
const SIZE: u32 = 64;
const PATIENTS: u32 = 48;

fn graded(name: &str, head: pb::Head) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(7),
        model: Some(pb::ModelSpec {
            classes: Some(5),
            head: Some(head.into()),
            ..Default::default()
        }),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(2),
            batch: Some(8),
            learning_rate: Some(0.0005),
            imbalance: Some(pb::Imbalance::ClassWeights.into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn workers(min: u32, max: u32, mut spec: pb::RunSpec) -> pb::RunSpec {
    spec.workers = Some(pb::WorkersSpec {
        min: Some(min),
        max: Some(max),
        ..Default::default()
    });
    spec
}

/// One test, so that the dataset is drawn and the cluster is started once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_grades_with_an_ordinal_head_have_the_same_bits_on_any_workers() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let cluster = Cluster::start(keep.path(), 2);
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    cluster.fovea(&["dataset", "add", &path(&prepared)]);

    let ordinal = |name: &str| graded(name, pb::Head::Ordinal);
    let one = cluster.submit(workers(1, 1, ordinal("one"))).await;
    let one = cluster.wait_completed(&one.id).await;
    let expected = tensors(&cluster.checkpoint(&one.id, one.total_steps).await);
    // An output for each grade but the last.
    assert_eq!(expected["loss3/classifier.weight"].len(), 4 * 1024 * 4);
    assert_eq!(expected["loss3/classifier.bias"].len(), 4 * 4);

    let killed = cluster.submit(workers(1, 2, ordinal("killed"))).await;
    cluster.wait_step(&killed.id, 3).await;
    cluster.workers[1].signal(libc::SIGKILL);
    let killed = cluster.wait_completed(&killed.id).await;
    assert!(killed.generation >= 2, "nobody noticed");
    let found = tensors(&cluster.checkpoint(&killed.id, killed.total_steps).await);
    assert!(found == expected, "other bits with a killed worker");
    let validation = |run: &pb::Run| -> Vec<_> {
        let epochs = run.epochs.iter();
        epochs.map(|e| e.validation.clone()).collect()
    };
    assert_eq!(validation(&killed), validation(&one));
    assert!(
        cluster
            .fovea(&["runs", "audit", &killed.id])
            .contains("2 clean of 2 begun")
    );

    // A softmax of the same classes is another run.
    let softmax = cluster
        .submit(workers(1, 1, graded("softmax", pb::Head::Softmax)))
        .await;
    let softmax = cluster.wait_completed(&softmax.id).await;
    let file = cluster.checkpoint(&softmax.id, softmax.total_steps).await;
    assert_eq!(
        tensors(&file)["loss3/classifier.weight"].len(),
        5 * 1024 * 4
    );

    // What is shown of it.
    let shown = cluster.fovea(&["run", &one.id]);
    for words in [
        "5 classes, an ordinal head, positive from grade 2",
        "  kappa  ",
    ] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    let runs = cluster.fovea(&["runs"]);
    let head: Vec<&str> = runs
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert!(
        head.windows(2).any(|names| names == ["AUC", "kappa"]),
        "{runs}"
    );
    let text = cluster.fovea(&["--json", "evaluate", &one.id, "--checkpoint", "newest"]);
    let figures: serde_json::Value = serde_json::from_str(text.trim()).expect("one JSON object");
    let last = one.epochs.last().and_then(|e| e.validation.clone());
    let last = last.expect("it was evaluated");
    assert_eq!((last.classes, last.confusion.len()), (5, 25));
    let confusion: Vec<u64> = figures["confusion"]
        .as_array()
        .expect("rows")
        .iter()
        .flat_map(|row| row.as_array().expect("a row"))
        .map(|n| n.as_u64().expect("a count"))
        .collect();
    assert_eq!(confusion, last.confusion);
    assert_eq!(figures["kappa"]["value"].as_f64(), last.quadratic_kappa);
    assert_eq!(figures["auc"]["value"].as_f64(), last.auc);
    assert!(figures["auc"]["low"].as_f64() < last.auc, "{figures}");
    assert_eq!(figures["recall"].as_array().map(Vec::len), Some(5));
    // Beside a baseline its class is the median, too.
    let best = cluster.fovea(&["--json", "evaluate", &one.id]);
    let best: serde_json::Value = serde_json::from_str(best.trim()).expect("one JSON object");
    let beside = [
        "--labels",
        "grades",
        "--features",
        "nayak2008",
        "--draws",
        "100",
    ];
    let command = ["--json", "baseline", &*path(&prepared), "--run", &one.id];
    let text = cluster.fovea(&[&command[..], &beside].concat());
    let compared = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .find(|record: &serde_json::Value| record["name"] == one.id.as_str())
        .expect("the run is in the table");
    assert_eq!(compared["kappa"]["value"], best["kappa"]["value"]);
    let csv = keep.path().join("scores.csv");
    let newest = ["evaluate", &one.id, "--checkpoint", "newest", "--csv"];
    let text = cluster.fovea(&[&newest[..], &[&*path(&csv)]].concat());
    assert!(
        text.contains("the highest class that is reached with a probability above 1/2"),
        "{text}"
    );
    let scores = std::fs::read_to_string(csv).expect("the scores");
    for row in scores.lines().skip(1) {
        let cells: Vec<f64> = row.split(',').skip(5).map(|p| p.parse().unwrap()).collect();
        let [of_classes @ .., positive] = &cells[..] else {
            panic!("{row}")
        };
        assert_eq!(of_classes.len(), 5, "{row}");
        let sum: f64 = of_classes.iter().sum();
        let above: f64 = of_classes[2..].iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row}");
        assert!((above - positive).abs() < 1e-5, "{row}");
    }
    let report = keep.path().join("report.html");
    let newest = ["report", &one.id, "--checkpoint", "newest", "-o"];
    cluster.fovea(&[&newest[..], &[&*path(&report)]].concat());
    let page = std::fs::read_to_string(report).expect("the report");
    assert!(page.contains("Median class") && page.contains("grade 4"));
}
