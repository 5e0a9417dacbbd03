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
    let adopted = shown(&server, &run.id, "the newer checkpoints", |run| {
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
