//! A journal that was restored from an older backup.

use super::*;

/// A run of two steps with a checkpoint of the second; the coordinator was killed then, its journal was copied, and
/// another coordinator goes on with the same worker.
struct Trained {
    place: Place,
    backup: tempfile::TempDir,
    server: Server,
    run: pb::Run,
    at: pb::Assignment,
    worker: Worker,
}

impl Trained {
    async fn new() -> Self {
        let place = Place::new();
        let server = place.fresh_server().await;
        let (run, at, mut worker) = begin(&server).await;
        for step in 1..=2 {
            place.step(&mut worker, &at, step).await;
        }
        checkpoint(&server, &worker, &at, 2).await;
        server.kill().await;
        let backup = tempfile::tempdir().unwrap();
        copy_journal(&place.data(), backup.path());
        let server = place.server().await;
        let worker = Worker::rejoin(&server, "w0", &at).await;
        Self {
            place,
            backup,
            server,
            run,
            at,
            worker,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_journal_adopts_newer_checkpoints_over_those_that_retention_removed() {
    let Trained {
        place,
        backup,
        server,
        run,
        at,
        mut worker,
    } = Trained::new().await;
    for step in 3..=10 {
        place.step(&mut worker, &at, step).await;
        if step % 2 == 0 {
            checkpoint(&server, &worker, &at, step).await;
        }
    }
    let kept = [8, 10].map(|step| format!("step-{step:010}.g1.safetensors"));
    eventually("only the kept files", || place.stored(&run) == kept).await;
    server.kill().await;
    copy_journal(backup.path(), &place.data());

    let server = place.server().await;
    let adopted = server
        .run_when(&run.id, "the newer checkpoints", |run| {
            run.checkpoints.iter().any(|c| c.step == 10)
        })
        .await;
    let steps: Vec<u64> = adopted.checkpoints.iter().map(|c| c.step).collect();
    assert!(steps.ends_with(&[8, 10]), "{steps:?}");
    assert_eq!(place.stored(&run), kept);
    // Nothing is missing in its ledger.
    let request = pb::AuditRequest {
        run_id: run.id.clone(),
    };
    let audit = server.runs().audit(request).await.unwrap().into_inner();
    assert_eq!((audit.steps, &*audit.problems), (10, &[][..]), "{audit:?}");
    // And it goes on from the newest.
    let mut worker = Worker::join(&server, "w0").await;
    let at = worker.assignment().await;
    assert_eq!(at.start_step, 10);
    assert_eq!(at.checkpoint.map(|c| c.step), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_only_a_lost_journal_knew_are_taken_again() {
    let Trained {
        place,
        backup,
        server,
        run,
        at,
        mut worker,
    } = Trained::new().await;
    for step in 3..=5 {
        place.step(&mut worker, &at, step).await;
    }
    server.kill().await;
    copy_journal(backup.path(), &place.data());

    // Steps 3 to 5 were acknowledged, so the worker has forgotten them.
    let server = place.server().await;
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    let samples = samples(&place.tiny, &at, 6);
    worker.send(committed_with(&at, report(6), samples)).await;
    let again = worker.assignment().await;
    assert_eq!((again.generation, again.start_step), (2, 2));
    assert_eq!(again.lineage, at.lineage + 1, "the worker's state is void");
    let reason = server.run(&run.id).await.reason;
    assert!(
        reason.contains("account for steps 3-5; rewinding to checkpoint 2"),
        "{reason}"
    );
    worker.ready(&again).await;
    for step in 3..=6 {
        place.step(&mut worker, &again, step).await;
    }
    let request = pb::AuditRequest {
        run_id: run.id.clone(),
    };
    let audit = server.runs().audit(request).await.unwrap().into_inner();
    assert_eq!((audit.steps, &*audit.problems), (6, &[][..]), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_run_takes_nothing_of_another_one_of_its_id() {
    let place = Place::new();
    let server = place.fresh_server().await;
    server.kill().await;
    // Before the first run, but with the dataset.
    let backup = tempfile::tempdir().unwrap();
    copy_journal(&place.data(), backup.path());
    let server = place.server().await;
    let (lost, at, mut worker) = begin(&server).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 2).await;
    server.kill().await;
    let stored = place.stored(&lost);
    copy_journal(backup.path(), &place.data());

    // Its folder is seen at the start, and its id is not given again.
    let server = place.server().await;
    let run = server.submit(small_spec()).await.unwrap();
    assert_ne!(run.id, lost.id);
    assert_eq!(run.checkpoints, []);
    assert_eq!(place.stored(&lost), stored);
    server.kill().await;
    copy_journal(backup.path(), &place.data());

    // Where the folder is elsewhere at the start, the id is given again; when it is back, the next start takes nothing.
    let aside = place.data().join("aside");
    std::fs::rename(place.checkpoints().join(&lost.id), &aside).unwrap();
    let server = place.server().await;
    let mut names = Vec::new();
    for _ in 0..2 {
        names.push(server.submit(small_spec()).await.unwrap().id);
    }
    assert!(names.contains(&lost.id), "{names:?}");
    server.kill().await;
    let _ = std::fs::remove_dir(place.checkpoints().join(&lost.id));
    std::fs::rename(&aside, place.checkpoints().join(&lost.id)).unwrap();
    let server = place.server().await;
    let run = server.run(&lost.id).await;
    assert_eq!(
        (run.phase(), &*run.checkpoints),
        (Phase::Queued, &[][..]),
        "{run:?}"
    );
    // A worker that still trains the other run of that id is not taken for one of this.
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    assert_eq!(worker.abort().await.run_id, lost.id);
}

/// A backup over the wire, as the client fetches it.
async fn backup(server: &Server) -> Vec<u8> {
    use pb::backup_part::Part;
    let request = pb::BackupRequest {};
    let mut stream = server.admin().backup(request).await.unwrap().into_inner();
    let (mut archive, mut ended) = (Vec::new(), false);
    while let Some(part) = stream.message().await.unwrap() {
        match part.part.unwrap() {
            Part::Info(info) => assert_eq!((info.runs, info.live_runs), (1, 1)),
            Part::Data(data) => archive.extend_from_slice(&data),
            Part::End(_) => ended = true,
        }
    }
    assert!(ended);
    archive
}

/// The disk of the data folder is lost, that of the stores is not, and they have newer checkpoints than the backup knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_replaces_a_lost_data_folder() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, at, mut worker) = begin(&server).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 2).await;
    // While the run is under way.
    let archive = backup(&server).await;
    for step in 3..=6 {
        place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 6).await;
    server.kill().await;
    let aside = place.dir.path().join("volume");
    std::fs::create_dir(&aside).unwrap();
    for store in ["checkpoints", "datasets", "weights"] {
        std::fs::rename(place.data().join(store), aside.join(store)).unwrap();
    }
    std::fs::remove_dir_all(place.data()).unwrap();

    let file = place.dir.path().join("fovea.tar");
    std::fs::write(&file, archive).unwrap();
    let restored = fovea_coordinator::restore(&file, &place.data()).unwrap();
    let report = restored.report().join("\n");
    assert!(report.contains("1 run, 1 under way, 1 dataset"), "{report}");
    assert!(report.contains("holds no store"), "{report}");
    for store in ["checkpoints", "datasets", "weights"] {
        std::fs::rename(aside.join(store), place.data().join(store)).unwrap();
    }
    let server = place.server().await;
    let adopted = server
        .run_when(&run.id, "the newer checkpoint", |run| {
            run.checkpoints.iter().any(|c| c.step == 6)
        })
        .await;
    assert_eq!(adopted.id, run.id);
    let request = pb::AuditRequest {
        run_id: run.id.clone(),
    };
    let audit = server.runs().audit(request).await.unwrap().into_inner();
    assert_eq!((audit.steps, &*audit.problems), (6, &[][..]), "{audit:?}");
    let mut worker = Worker::join(&server, "w0").await;
    let at = worker.assignment().await;
    assert_eq!(at.start_step, 6);
}

/// Backups are whole whatever happens at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn backups_are_made_while_a_run_trains() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (_, at, mut worker) = begin(&server).await;
    for step in 1..=10 {
        let (archive, ()) = tokio::join!(backup(&server), place.step(&mut worker, &at, step));
        let file = place.dir.path().join("fovea.tar");
        std::fs::write(&file, archive).unwrap();
        let to = place.dir.path().join(format!("restored-{step}"));
        fovea_coordinator::restore(&file, &to).unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(place.data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("tmp-"))
        .collect();
    assert_eq!(left, [""; 0]);
}
