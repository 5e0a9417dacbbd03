//! What is stored stays: stores that are not mounted, cannot be read or are full, too few file descriptors, and flipped
//! bits in packs. Real processes; each test trains a tiny run of its own.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fovea_proto::pb::runs_client::RunsClient;
use fovea_proto::{connect, pb};
use fovea_tests::faults::{SmallDisk, corrupt_file, inspect, packs_below};
use fovea_tests::launch::{CoordinatorOptions, Started};
use fovea_tests::{Cluster, synthetic_dataset, tensors};
use pb::Phase;

/// A checkpoint after every so many steps.
const EVERY: u64 = 3;
const DEADLINE: Duration = Duration::from_secs(120);

/// A dozen steps or so, with a checkpoint every few, of which all are kept.
fn spec(name: &str) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        train: Some(pb::TrainSpec {
            epochs: Some(4),
            virtual_ranks: Some(2),
            batch: Some(6),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(1),
            max: Some(2),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(EVERY),
            keep_last: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The steps of the checkpoints that a completed run has.
fn checkpoints(run: &pb::Run) -> Vec<u64> {
    let mut steps: Vec<u64> = (1..=run.total_steps / EVERY).map(|i| i * EVERY).collect();
    steps.push(run.total_steps);
    steps.dedup();
    steps
}

type Tensors = BTreeMap<String, Vec<u8>>;

/// A cluster with the dataset `synthetic`, which lies prepared in `dir`.
fn cluster(dir: &Path, workers: usize, options: CoordinatorOptions) -> (Cluster, PathBuf) {
    let prepared = synthetic_dataset(dir, 24, 64);
    let cluster = Cluster::start_with(dir, workers, options);
    add_dataset(&cluster, &prepared);
    (cluster, prepared)
}

fn add_dataset(cluster: &Cluster, prepared: &Path) -> String {
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")])
}

/// Trains to the end: the run, and its final tensors.
async fn trained(cluster: &Cluster, name: &str) -> (pb::Run, Tensors) {
    let run = cluster.submit(spec(name)).await;
    finished(cluster, &run.id).await
}

async fn finished(cluster: &Cluster, run: &str) -> (pb::Run, Tensors) {
    let run = cluster.wait_completed(run).await;
    let file = cluster.checkpoint(&run.id, run.total_steps).await;
    (run, tensors(&file))
}

/// Every checkpoint is listed, its file is there, and its bytes are those that were stored.
async fn assert_whole(cluster: &Cluster, run: &str, steps: &[u64]) {
    let listed = cluster.run(run).await.checkpoints;
    let listed: Vec<u64> = listed.iter().map(|stored| stored.step).collect();
    assert_eq!(listed, steps, "checkpoints of {run}");
    let output = cluster.try_fovea(&["checkpoint", "verify", run]);
    assert!(output.status.success(), "{output:?}");
    let folder = fs::read_dir(cluster.checkpoint_store().join(run)).expect("the run's folder");
    let files = folder.flatten().filter(|file| {
        let path = file.path();
        path.extension().is_some_and(|end| end == "safetensors")
    });
    assert_eq!(files.count(), steps.len(), "files of {run}");
}

fn stop(cluster: &mut Cluster) {
    cluster.coordinator.signal(libc::SIGTERM);
    let status = cluster.coordinator.wait(DEADLINE);
    assert!(status.success(), "{status}: {}", cluster.coordinator.log());
}

fn text(output: &std::process::Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// A finished run; stop the coordinator; an empty folder in the place of `checkpoints`; start; the folder back; start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unmounted_store_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut cluster, _) = cluster(dir.path(), 1, CoordinatorOptions::new(dir.path()));
    let (run, _) = trained(&cluster, "kept").await;
    assert_whole(&cluster, &run.id, &checkpoints(&run)).await;
    stop(&mut cluster);
    let store = cluster.checkpoint_store();
    let away = dir.path().join("not-mounted");
    fs::rename(&store, &away).expect("it can be moved");
    fs::create_dir(&store).expect("a folder can be made");

    let (process, status) = match cluster.options.try_start("coordinator-unmounted.log") {
        Started::Ended(process, status) => (process, status),
        Started::Serving(process, _) => panic!("it served: {}", process.log()),
    };
    let log = process.log();
    assert_eq!(status.code(), Some(4), "{log}");
    assert!(log.contains(&*store.to_string_lossy()), "{log}");
    assert!(
        log.contains("mounted") && log.contains("--accept-store"),
        "{log}"
    );
    let made = fs::read_dir(&store).expect("the folder").count();
    assert_eq!(made, 0, "files were made in a folder that is not the store");

    fs::remove_dir(&store).expect("it is empty");
    fs::rename(&away, &store).expect("it can be moved");
    cluster.restart_coordinator();
    assert_whole(&cluster, &run.id, &checkpoints(&run)).await;
}

/// The store goes away while the coordinator runs: every answer says so, and the run that needs it goes on when it is back.
#[cfg_attr(
    not(has_root),
    ignore = "needs root, to start a coordinator that is not root"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_store_is_waited_for_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = CoordinatorOptions::new(dir.path());
    options.unprivileged = true;
    let (mut cluster, _) = cluster(dir.path(), 1, options);
    let (run, expected) = trained(&cluster, "kept").await;
    let paused = cluster.submit(spec("paused")).await;
    cluster.wait_step(&paused.id, 4).await;
    let mut runs = cluster.runs().await;
    let request = pb::PauseRequest {
        run_id: paused.id.clone(),
    };
    runs.pause(request).await.expect("it can be paused");
    let is_paused = |run: &pb::Run| run.phase() == Phase::Paused;
    let paused = cluster.run_until(&paused.id, is_paused).await;
    let stored: Vec<u64> = paused.checkpoints.iter().map(|c| c.step).collect();

    let store = cluster.checkpoint_store();
    let mode = fs::metadata(&store).expect("the store").permissions();
    fs::set_permissions(&store, Permissions::from_mode(0o000)).expect("root may");
    let target = dir.path().join("copy.safetensors");
    let target = target.to_str().expect("UTF-8");
    for args in [
        &["checkpoint", "verify", &run.id][..],
        &["checkpoint", "get", &run.id, "--output", target],
    ] {
        let output = cluster.try_fovea(args);
        assert!(!output.status.success(), "{args:?}: {output:?}");
        let text = text(&output);
        assert!(text.contains("Permission denied"), "{args:?}: {text}");
        assert!(!text.contains("is corrupt"), "{args:?}: {text}");
    }
    let request = pb::ResumeRequest {
        run_id: paused.id.clone(),
        checkpoint_step: None,
    };
    runs.resume(request).await.expect("it can be resumed");
    let waits = |run: &pb::Run| run.phase() == Phase::Queued && run.reason.contains("Permission");
    cluster.run_until(&paused.id, waits).await;
    assert!(cluster.coordinator.is_running());

    fs::set_permissions(&store, mode).expect("root may");
    let (_, resumed) = finished(&cluster, &paused.id).await;
    assert!(resumed == expected, "the bits differ");
    assert_whole(&cluster, &run.id, &checkpoints(&run)).await;
    let mut all = stored;
    all.extend(checkpoints(&paused));
    all.sort_unstable();
    all.dedup();
    assert_whole(&cluster, &paused.id, &all).await;
    stop(&mut cluster);
    cluster.restart_coordinator();
    assert_whole(&cluster, &run.id, &checkpoints(&run)).await;
    assert_whole(&cluster, &paused.id, &all).await;
}

/// 60 watchers at a coordinator that may open 64 files, while a run takes checkpoints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_file_descriptors_cost_watchers_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = CoordinatorOptions::new(dir.path());
    options.open_files = Some(64);
    let (mut cluster, _) = cluster(dir.path(), 2, options);
    // Workers and this client are connected before the watchers take what there is.
    let mut runs = cluster.runs().await;
    let run = cluster.submit(spec("watched")).await;
    cluster.wait_step(&run.id, 1).await;
    let address = cluster.options.listen.clone();
    let mut watchers = Vec::new();
    for _ in 0..60 {
        let (address, run_id) = (address.clone(), run.id.clone());
        watchers.push(tokio::spawn(async move {
            let channel = connect(&address, Duration::from_secs(10))
                .await
                .map_err(|e| e.to_string())?;
            let request = pb::WatchRequest { run_id };
            let stream = RunsClient::new(channel.clone()).watch(request).await;
            let mut stream = stream.map_err(|e| e.to_string())?.into_inner();
            // Nobody is cut off who was let in.
            while stream.message().await.map_err(|e| e.to_string())?.is_some() {}
            Ok::<_, String>(())
        }));
    }
    let end = Instant::now() + DEADLINE;
    let done = loop {
        let request = pb::GetRunRequest {
            run_id: run.id.clone(),
        };
        let now = runs.get(request).await.expect("the coordinator answers");
        let now = now.into_inner();
        let ended = [Phase::Completed, Phase::Failed, Phase::Cancelled];
        if ended.contains(&now.phase()) {
            break now;
        }
        assert!(Instant::now() < end, "{:?} {}", now.phase(), now.reason);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(done.phase(), Phase::Completed, "{}", done.reason);
    let mut refused = Vec::new();
    for watcher in watchers {
        if let Err(reason) = watcher.await.expect("no watcher panics") {
            refused.push(reason);
        }
    }
    // They cannot all be let in with 64 descriptors.
    assert!(!refused.is_empty() && refused.len() < 60, "{refused:?}");
    drop(runs);
    let log = cluster.coordinator.log();
    assert!(log.contains("connection.refused: "), "{log}");
    assert!(cluster.coordinator.is_running(), "{log}");
    assert!(cluster.workers.iter_mut().all(|w| w.is_running()));
    assert_whole(&cluster, &run.id, &checkpoints(&done)).await;
}

/// The disk of the whole data folder is full for some checkpoints.
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = CoordinatorOptions::new(dir.path());
    fs::create_dir(options.data_dir()).expect("a folder can be made");
    let disk = SmallDisk::mount(&options.data_dir(), 600 << 20).expect("a tmpfs");

    // Less than the free space that the coordinator keeps: it says which figure is in the way.
    options.environment = vec![("FOVEA_MIN_FREE_MIB".into(), "1024".into())];
    let prepared = synthetic_dataset(dir.path(), 24, 64);
    let mut cluster = Cluster::start_with(dir.path(), 0, options.clone());
    let output = cluster.try_fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output).contains("min_free_mib"), "{output:?}");
    assert!(
        text(&output).contains("the coordinator's disk is too full"),
        "{output:?}"
    );
    stop(&mut cluster);
    drop(cluster);

    options.environment = vec![("FOVEA_MIN_FREE_MIB".into(), "0".into())];
    let mut cluster = Cluster::start_with(dir.path(), 1, options);
    add_dataset(&cluster, &prepared);
    let (first, expected) = trained(&cluster, "kept").await;
    let run = cluster.submit(spec("filled")).await;
    cluster.wait_step(&run.id, 1).await;
    disk.fill().expect("only full");
    // The checkpoint of step 3 cannot be written, or its steps cannot.
    let end = Instant::now() + DEADLINE;
    let mut log = cluster.coordinator.log();
    let events = [
        "checkpoint.failed: ",
        "checkpoint.delayed: ",
        "journal.blocked: ",
    ];
    while !events.iter().any(|event| log.contains(event)) {
        assert!(
            Instant::now() < end,
            "nothing is said of the full disk: {log}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        log = cluster.coordinator.log();
    }
    assert!(cluster.coordinator.is_running(), "{log}");
    disk.free().expect("it can be freed");
    let (done, tensors) = finished(&cluster, &run.id).await;
    assert!(tensors == expected, "the bits differ");
    let stored: Vec<u64> = done.checkpoints.iter().map(|c| c.step).collect();
    assert_eq!(stored.last(), Some(&done.total_steps), "{stored:?}");
    assert_whole(&cluster, &run.id, &stored).await;
    assert_whole(&cluster, &first.id, &checkpoints(&first)).await;
    let left = inspect::temporary_files(&cluster.options.data_dir()).expect("it can be read");
    assert_eq!(left, Vec::<PathBuf>::new());
    // The data folder is the disk: the coordinator must be gone before.
    stop(&mut cluster);
    drop(disk);
}

/// A worker whose slice finds no room stops in its time all the same, says what is not stored, and its coordinator knows.
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stops_in_time_while_the_checkpoint_store_is_full() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = CoordinatorOptions::new(dir.path());
    let store = options.data_dir().join("checkpoints");
    fs::create_dir_all(&store).expect("a folder can be made");
    let disk = SmallDisk::mount(&store, 600 << 20).expect("a tmpfs");
    options.environment = vec![("FOVEA_MIN_FREE_MIB".into(), "0".into())];
    let prepared = synthetic_dataset(dir.path(), 24, 64);
    let mut cluster = Cluster::start_with(dir.path(), 1, options);
    assert_eq!(cluster.checkpoint_store(), store);
    add_dataset(&cluster, &prepared);
    let (_, expected) = trained(&cluster, "kept").await;
    disk.fill().expect("only full");
    let run = cluster.submit(spec("unstored")).await;
    let end = Instant::now() + DEADLINE;
    while !cluster.workers[0]
        .log()
        .contains("checkpoint.upload_failed: ")
    {
        assert!(Instant::now() < end, "{}", cluster.workers[0].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let worker = &mut cluster.workers[0];
    let asked = Instant::now();
    worker.signal(libc::SIGTERM);
    let status = worker.wait(DEADLINE);
    let (took, log) = (asked.elapsed(), worker.log());
    assert!(status.success(), "{status} after {took:?}: {log}");
    // stop_timeout_s.
    assert!(took < Duration::from_secs(10), "{took:?}: {log}");
    assert!(
        log.contains(
            "checkpoint.not_stored: this worker shuts down before its slice of checkpoint"
        ),
        "{log}"
    );
    // The run does not wait for a worker that is gone.
    let queued = |run: &pb::Run| run.phase() == Phase::Queued;
    cluster.run_until(&run.id, queued).await;
    disk.free().expect("it can be freed");
    cluster.add_worker();
    let (_, tensors) = finished(&cluster, &run.id).await;
    assert!(tensors == expected, "the bits differ");
    // The store is the disk: the coordinator must be gone before.
    stop(&mut cluster);
    drop(disk);
}

/// A flipped bit in a pack never reaches the weights, wherever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_pack_is_found_and_repaired() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut cluster, prepared) = cluster(dir.path(), 1, CoordinatorOptions::new(dir.path()));
    let (_, expected) = trained(&cluster, "undisturbed").await;

    // In a worker's cache: the pack is fetched again.
    let worker = &mut cluster.workers[0];
    worker.signal(libc::SIGTERM);
    assert!(worker.wait(DEADLINE).success(), "{}", worker.log());
    let cached = packs_below(&cluster.worker_data());
    assert!(!cached.is_empty(), "no pack is cached");
    for pack in &cached {
        corrupt_file(pack).expect("it can be written");
    }
    cluster.add_worker();
    let (_, tensors) = trained(&cluster, "cached").await;
    let log = cluster.workers[1].log();
    assert!(tensors == expected, "the bits differ: {log}");
    assert!(log.contains("pack.corrupt: "), "{log}");

    // In the coordinator's only copy: the run waits and names the cure.
    let worker = &mut cluster.workers[1];
    worker.signal(libc::SIGTERM);
    assert!(worker.wait(DEADLINE).success(), "{}", worker.log());
    fs::remove_dir_all(cluster.worker_data()).expect("the cache can be removed");
    let held = packs_below(&cluster.options.data_dir());
    let damaged = held.iter().find(|pack| {
        let name = pack.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("train")
    });
    corrupt_file(damaged.expect("a pack to train on")).expect("it can be written");
    cluster.add_worker();
    let run = cluster.submit(spec("repaired")).await;
    let waits = |run: &pb::Run| {
        assert!(run.phase() != Phase::Failed, "{}", run.reason);
        run.phase() == Phase::Queued && run.reason.contains("fovea dataset add")
    };
    let waiting = cluster.run_until(&run.id, waits).await;
    assert!(waiting.reason.contains("synthetic"), "{}", waiting.reason);
    let answer = add_dataset(&cluster, &prepared).to_lowercase();
    assert!(
        answer.contains("replaced") || answer.contains("repaired"),
        "{answer}"
    );
    let (_, tensors) = finished(&cluster, &run.id).await;
    assert!(tensors == expected, "the bits differ");
    let log = cluster.coordinator.log();
    let events = ["pack.corrupt: ", "pack.unusable: "];
    assert!(events.iter().any(|event| log.contains(event)), "{log}");
}
