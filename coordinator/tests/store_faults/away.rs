//! Files that go away while the coordinator runs, and removals.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_run_removes_the_ledgers_of_its_removed_checkpoints() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, at, mut worker) = begin_with_checkpoints(&place, &server, 3).await;
    let ledgers = place.checkpoints().join(".ledger").join(&run.id);
    eventually("the ledger of the first", || {
        ledgers.join("step-0000000001.g1.json").is_file()
    })
    .await;
    cancel(&server, &run.id).await;
    let stop = worker.stop().await;
    assert_eq!(stop.run_id, run.id);
    worker.upload(&at, 0, 3, &state(3)).await.unwrap();
    let stopped = pb::released::Outcome::StoppedStep(3);
    worker.released(&at, stopped).await;
    server
        .run_when(&run.id, "its end", |run| run.phase() == Phase::Cancelled)
        .await;
    let request = pb::DeleteRunRequest {
        run_id: run.id.clone(),
        with_checkpoints: true,
    };
    server.runs().delete(request.clone()).await.unwrap();
    assert!(!ledgers.exists());
    refused(server.runs().delete(request).await, Code::NotFound, &run.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_delays_checkpoints_and_loses_none() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, at, mut worker) = begin_with_checkpoints(&place, &server, 2).await;
    let before = place.stored(&run);

    // Gone; then an empty folder, as a mount point is.
    let away = place.data().join("away");
    std::fs::rename(place.checkpoints(), &away).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::create_dir(place.checkpoints()).unwrap();
        }
        worker.upload(&at, 0, 3, &state(3)).await.unwrap_err();
        let waits = server
            .run_when(&run.id, "the reason", |run| !run.reason.is_empty())
            .await;
        assert!(
            waits.reason.contains("checkpoint 3 cannot be stored"),
            "{}",
            waits.reason
        );
        assert_eq!(waits.phase(), Phase::Running);
        // Nothing is taken off the list while the store cannot be asked.
        let request = pb::DeleteCheckpointRequest {
            run_id: run.id.clone(),
            step: 1,
        };
        server.checkpoints().delete(request).await.unwrap_err();
        assert_eq!(server.run(&run.id).await.checkpoints.len(), 2);
    }
    // Training goes on.
    place.step(&mut worker, &at, 3).await;
    assert_eq!(std::fs::read_dir(place.checkpoints()).unwrap().count(), 0);
    std::fs::remove_dir(place.checkpoints()).unwrap();
    std::fs::rename(&away, place.checkpoints()).unwrap();
    assert_eq!(place.stored(&run), before);
    // The problem is over, and that shows before the next checkpoint.
    server
        .run_when(&run.id, "no reason", |run| run.reason.is_empty())
        .await;
    checkpoint(&server, &worker, &at, 3).await;
    let stored = server.run(&run.id).await;
    assert_eq!(
        (stored.checkpoints.last().unwrap().step, &*stored.reason),
        (3, "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_dataset_was_removed_waits_and_goes_on_when_it_is_back() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let run = server.submit(small_spec()).await.unwrap();
    let remove = || pb::DeleteDatasetRequest {
        dataset: "tiny".into(),
    };
    refused(
        server.datasets().delete(remove()).await,
        Code::FailedPrecondition,
        &format!("cancel it first (`fovea cancel {}`)", run.id),
    );
    cancel(&server, &run.id).await;
    server.datasets().delete(remove()).await.unwrap();
    refused(
        server.datasets().delete(remove()).await,
        Code::NotFound,
        "tiny",
    );
    let mut worker = Worker::join(&server, "w0").await;
    resume(&server, &run.id).await;
    let waits = server
        .run_when(&run.id, "the reason", |run| {
            run.reason.contains("fovea dataset add")
        })
        .await;
    assert_eq!((waits.phase(), waits.generation), (Phase::Queued, 0));
    server.upload(&place.tiny).await.unwrap();
    let at = worker.assignment().await;
    assert_eq!(at.run_id, run.id);
}

/// A dataset that stays unreadable does not keep another from being used again.
#[tokio::test(flavor = "multi_thread")]
async fn each_unreadable_dataset_is_tried_again_in_its_turn() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let first = dataset(place.dir.path(), "before-tiny", 2);
    server.upload(&first).await.unwrap();
    let listed = |server: &Server| {
        let datasets = server.datasets();
        async move {
            let request = pb::ListDatasetsRequest {};
            let reply = datasets.clone().list(request).await.unwrap();
            reply.into_inner().datasets
        }
    };
    let both = listed(&server).await;
    assert_eq!(both.len(), 2);
    let manifest = |d: &pb::Dataset| {
        let folder = place.data().join("datasets").join(&d.digest);
        folder.join("manifest.json")
    };
    server.kill().await;
    for dataset in &both {
        let path = manifest(dataset);
        std::fs::rename(&path, path.with_extension("aside")).unwrap();
    }
    let server = place.server().await;
    let problems = listed(&server).await;
    assert!(
        problems.iter().all(|d| !d.problem.is_empty()),
        "{problems:?}"
    );
    // The last by name comes back, and the one before it does not.
    let back = both.iter().max_by_key(|d| &d.name).unwrap();
    let path = manifest(back);
    std::fs::rename(path.with_extension("aside"), &path).unwrap();
    soon("the dataset to be usable", async {
        loop {
            let now = listed(&server).await;
            let problem = |d: &pb::Dataset| !d.problem.is_empty();
            let left: Vec<&str> = now
                .iter()
                .filter(|d| problem(d))
                .map(|d| &*d.name)
                .collect();
            if left == ["before-tiny"] {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}
