//! A worker with trouble of its own is left out, the run goes on with the others to the same bits, and the worker serves
//! again when its trouble has ended.

use std::fs;

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset, tensors};

fn spec(name: &str, min: u32, max: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(5),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(2),
            batch: Some(3),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(min),
            max: Some(max),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_data_folder_cannot_be_used_holds_nobody_up() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let dir = keep.path();
    let prepared = synthetic_dataset(dir, 16, 64);
    let mut cluster = Cluster::start(dir, 1);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let alone = cluster.submit(spec("alone", 1, 1)).await;
    let done = cluster.wait_completed(&alone.id).await;
    let expected = tensors(&cluster.checkpoint(&alone.id, done.total_steps).await);

    // A file is where its folder of datasets should be.
    let broken = dir.join("broken");
    let obstacle = broken.join("worker-data/datasets");
    fs::create_dir_all(obstacle.parent().expect("a folder")).expect("a folder can be made");
    fs::write(&obstacle, "not a folder").expect("a file can be written");
    cluster.add_worker_in(&broken);
    let two = cluster.fovea_until(&["workers", "--json"], |text| text.lines().count() == 2);
    let broken_id = two
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|worker| worker["id"].as_str().map(str::to_owned))
        .find(|id| id.starts_with("w1-"))
        .expect("the second worker is listed");

    let run = cluster.submit(spec("without", 1, 2)).await;
    let without = cluster
        .run_until(&run.id, |run| !run.left_out.is_empty())
        .await;
    let [left_out] = &without.left_out[..] else {
        panic!("{:?}", without.left_out)
    };
    assert_eq!(left_out.worker_id, broken_id);
    assert_eq!(left_out.trouble(), pb::Trouble::Disk);
    assert!(
        left_out.reason.contains("worker-data/datasets"),
        "{left_out:?}"
    );
    let done = cluster.wait_completed(&run.id).await;
    let file = cluster.checkpoint(&run.id, done.total_steps).await;
    assert!(tensors(&file) == expected, "the run without it differs");

    // A run that needs both waits and says why, and so does the list.
    let run = cluster.submit(spec("both", 2, 2)).await;
    let waits = cluster
        .run_until(&run.id, |run| run.reason.contains("left out: "))
        .await;
    let named = format!("left out: {broken_id} (disk): ");
    assert!(waits.reason.contains(&named), "{}", waits.reason);
    let table = cluster.fovea(&["workers"]);
    let line = format!("{broken_id} is left out of {} (disk): ", run.id);
    assert!(table.contains(&line), "{table}");
    let table = cluster.fovea(&["run", &run.id]);
    assert!(
        table.contains(&format!("left out    {broken_id} (disk): ")),
        "{table}"
    );

    // When its trouble has ended it is offered again by itself, and both train to the same bits.
    fs::remove_file(&obstacle).expect("the file can be removed");
    let done = cluster.wait_completed(&run.id).await;
    assert!(done.left_out.is_empty(), "{:?}", done.left_out);
    let file = cluster.checkpoint(&run.id, done.total_steps).await;
    assert!(tensors(&file) == expected, "the run with both differs");
}
