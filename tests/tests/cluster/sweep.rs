//! A sweep with successive halving, while its coordinator and a worker are killed: the variants go on that their results name, no other
//! run is trained further, and their bits are those of a run that was submitted alone.

use std::collections::BTreeMap;

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset, tensors};
use serde_json::Value;

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;
const RUN: &str = "\
name = \"tried\"
dataset = \"synthetic\"
seed = 5
[model]
strategy = \"from_scratch\"
[train]
epochs = 4
virtual_ranks = 2
batch = 4
[checkpoint]
every_epochs = 0
every_steps = 3
";
const SWEEP: &str = "\
run = \"run.toml\"
name = \"lr\"
[vary]
train.learning_rate = [0.0001, 0.0003, 0.001, 0.003]
[selection]
halving = [1, 3]
keep_one_of = 2
";

fn auc(run: &pb::Run, epoch: usize) -> f64 {
    let validation = run.epochs[epoch]
        .validation
        .as_ref()
        .expect("it was evaluated");
    validation.auc.expect("both classes are there")
}

/// The runs with the highest AUC after an epoch, `keep` of them, of equals the earlier.
fn best(runs: &BTreeMap<usize, pb::Run>, of: &[usize], epoch: usize, keep: usize) -> Vec<usize> {
    let mut ranked = of.to_vec();
    ranked.sort_by(|a, b| auc(&runs[b], epoch).total_cmp(&auc(&runs[a], epoch)));
    ranked.truncate(keep);
    ranked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disturbed_sweep_trains_the_variants_on_that_their_results_name() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let dir = keep.path();
    let prepared = synthetic_dataset(dir, PATIENTS, SIZE);
    let mut cluster = Cluster::start(dir, 2);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    std::fs::write(dir.join("run.toml"), RUN).expect("the run file is written");
    let file = dir.join("sweep.toml");
    std::fs::write(&file, SWEEP).expect("the sweep is written");
    let file = file.to_str().expect("UTF-8");

    let planned = cluster.fovea(&["sweep", file, "--dry-run"]);
    assert!(planned.contains("4 variants of 1 run each"), "{planned}");
    assert!(planned.contains("train.learning_rate=0.003"), "{planned}");
    let none = cluster.fovea(&["group", "list"]);
    assert!(none.contains("no groups yet"), "{none}");

    cluster.fovea(&["sweep", file]);
    let group = "lr-g1";
    let ids: Vec<String> = (1..=4).map(|n| format!("lr.v{n}-{}", n + 1)).collect();
    // While the first rung is trained the coordinator dies, later a worker.
    cluster.wait_step(&ids[1], 2).await;
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    cluster.wait_step(&ids[2], 1).await;
    cluster.workers[1].signal(libc::SIGKILL);
    let watching = cluster.fovea(&["group", "watch", group]);

    let mut runs = BTreeMap::new();
    for (at, id) in ids.iter().enumerate() {
        runs.insert(at, cluster.run(id).await);
    }
    let second = best(&runs, &[0, 1, 2, 3], 0, 2);
    let mut sorted = second.clone();
    sorted.sort_unstable();
    let winner = best(&runs, &sorted, 2, 1);
    for (at, run) in &runs {
        let (phase, epochs, reason) = if winner.contains(at) {
            (pb::Phase::Completed, 4, "")
        } else if second.contains(at) {
            (
                pb::Phase::Paused,
                3,
                "dropped after epoch 3: place 2 of 2 by AUC",
            )
        } else {
            (pb::Phase::Paused, 1, "dropped after epoch 1: place")
        };
        assert_eq!(
            (run.phase(), run.epochs.len()),
            (phase, epochs),
            "{run:?}\n{watching}"
        );
        assert!(run.reason.starts_with(reason), "{}", run.reason);
        let audit = cluster.fovea(&["runs", "audit", &run.id]);
        assert!(audit.contains("clean"), "{audit}");
    }
    let shown = cluster.fovea(&["group", "show", group]);
    let first = shown
        .lines()
        .skip_while(|line| !line.starts_with("variant"))
        .nth(1);
    let first = first.expect("a variant");
    assert!(
        first.trim_start().starts_with(&(winner[0] + 1).to_string())
            && first.contains("1 completed"),
        "{shown}"
    );
    let evaluated = cluster.fovea(&["--json", "group", "evaluate", group, "--draws", "100"]);
    let evaluated: Vec<Value> = evaluated
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let variants: Vec<&Value> = evaluated
        .iter()
        .filter(|r| r["type"] == "group_evaluation")
        .map(|r| &r["variant"])
        .collect();
    assert_eq!(variants, [winner[0] as u64 + 1], "only it has completed");

    // The bits of a run that nobody paused and no group held.
    let mut alone = runs[&winner[0]].spec.clone().expect("a spec");
    alone.name = "alone".into();
    let alone = cluster.submit(alone).await;
    let alone = cluster.wait_completed(&alone.id).await;
    let last = async |run: &pb::Run| tensors(&cluster.checkpoint(&run.id, run.total_steps).await);
    assert!(
        last(&alone).await == last(&runs[&winner[0]]).await,
        "other bits"
    );

    // Who resumes a dropped run trains it to its end.
    let dropped = (0..4)
        .find(|at| !second.contains(at))
        .expect("two were dropped");
    cluster.fovea(&["resume", &ids[dropped]]);
    let resumed = cluster.wait_completed(&ids[dropped]).await;
    assert_eq!(resumed.epochs.len(), 4);
    assert_eq!(resumed.reason, "");
    let cancelled = cluster.fovea(&["group", "cancel", group]);
    assert!(
        cancelled.contains("all runs of group lr-g1 have ended: 2 completed, 2 cancelled"),
        "{cancelled}"
    );
}
