//! The server goes away, forbids, and what was removed here is removed there.

use super::seaweed::ALL_RIGHTS;
use super::*;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_s3), ignore = "needs .s3-server: make s3-server")]
async fn training_goes_on_while_the_object_store_is_away() {
    let mut place = Place::new().await;
    let server = place.server().await;
    server.upload(&place.tiny).await.unwrap();
    let (run, at, mut worker) = begin(&server, false).await;
    place.step(&mut worker, &at, 1).await;
    checkpoint(&server, &worker, &at, 1, &state(1)).await;
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    place.bucket.kill();
    for step in 2..=3 {
        place.step(&mut worker, &at, step).await;
        checkpoint(&server, &worker, &at, step, &state(step as u32)).await;
    }
    // Retention kept 2 and 3, which are only here; it is shown why.
    let shown = async {
        loop {
            let list = listed(&server, &run.id).await;
            if list.store_problem.contains("is away") {
                return list;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let list = soon("the trouble", shown).await;
    let local = i32::from(CheckpointPlace::Local);
    assert_eq!(list.places, [local, local]);
    let runs = server
        .runs()
        .list(pb::ListRunsRequest::default())
        .await
        .unwrap();
    assert!(runs.into_inner().store_problem.contains("is away"));
    // A restart meanwhile changes nothing.
    server.kill().await;
    let server = place.server().await;
    let mut worker = Worker::rejoin(&server, "w0", &at).await;
    place.step(&mut worker, &at, 4).await;
    checkpoint(&server, &worker, &at, 4, &state(4)).await;
    place.bucket.go_on().await;
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    let list = listed(&server, &run.id).await;
    assert_eq!(list.store_problem, "");
    let steps: Vec<u64> = list.checkpoints.iter().map(|c| c.step).collect();
    assert_eq!(steps, [3, 4]);
    // What retention removed meanwhile is removed there, too, with its ledger kept.
    place
        .bucket
        .until_keys("the removals", |keys| {
            keys.iter()
                .filter(|key| key.starts_with("checkpoints/"))
                .count()
                == 4
        })
        .await;
    assert_eq!(place.bucket.unfinished().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_s3), ignore = "needs .s3-server: make s3-server")]
async fn rights_that_are_taken_away_are_named_and_waited_for() {
    let mut place = Place::new().await;
    let server = place.server().await;
    server.upload(&place.tiny).await.unwrap();
    let (run, at, mut worker) = begin(&server, false).await;
    place.step(&mut worker, &at, 1).await;
    checkpoint(&server, &worker, &at, 1, &state(1)).await;
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    place.bucket.set_rights(&["Read", "List"]).await;
    place.step(&mut worker, &at, 2).await;
    checkpoint(&server, &worker, &at, 2, &state(2)).await;
    let refused = async {
        loop {
            let problem = listed(&server, &run.id).await.store_problem;
            if problem.contains("does not allow to") {
                return problem;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let problem = soon("the refusal", refused).await;
    assert!(
        problem.contains("PutObject") && !problem.contains("fovea-secret"),
        "{problem}"
    );
    // `fovea admin verify` names it.
    let mut stream = server
        .admin()
        .verify(pb::VerifyStoreRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut problems = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        if let Some(pb::verify_store_event::Event::Problem(problem)) = event.event {
            problems.push(problem);
        }
    }
    assert!(
        problems
            .iter()
            .any(|p| p.what == "object store" && p.problem.contains("does not allow")),
        "{problems:?}"
    );
    // Training goes on.
    place.step(&mut worker, &at, 3).await;
    place.bucket.set_rights(&ALL_RIGHTS).await;
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    let verify = server
        .admin()
        .verify(pb::VerifyStoreRequest::default())
        .await;
    let mut stream = verify.unwrap().into_inner();
    let mut summary = None;
    while let Some(event) = stream.message().await.unwrap() {
        match event.event {
            Some(pb::verify_store_event::Event::Problem(problem)) => panic!("{problem:?}"),
            Some(pb::verify_store_event::Event::Summary(all)) => summary = Some(all),
            _ => {}
        }
    }
    assert!(summary.unwrap().objects >= 3);
    assert_eq!(place.bucket.unfinished().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_s3), ignore = "needs .s3-server: make s3-server")]
async fn what_is_removed_here_is_removed_there() {
    let place = Place::new().await;
    let server = place.server().await;
    server.upload(&place.tiny).await.unwrap();
    let (run, at, mut worker) = begin(&server, false).await;
    for step in 1..=3 {
        place.step(&mut worker, &at, step).await;
        checkpoint(&server, &worker, &at, step, &state(step as u32)).await;
    }
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    let folder = |name: &str| format!("{name}/{}/", run.id);
    let (checkpoints, ledger) = (folder("checkpoints"), folder("ledger"));
    let count = |keys: &[String], of: &str| keys.iter().filter(|key| key.starts_with(of)).count();
    place
        .bucket
        .until_keys("two checkpoints and a ledger", |keys| {
            count(keys, &checkpoints) == 4 && count(keys, &ledger) == 1
        })
        .await;
    let request = pb::DeleteCheckpointRequest {
        run_id: run.id.clone(),
        step: 2,
    };
    server.checkpoints().delete(request).await.unwrap();
    place
        .bucket
        .until_keys("one checkpoint", |keys| {
            count(keys, &checkpoints) == 2 && count(keys, &ledger) == 2
        })
        .await;
    let mut watch = server.watch(&run.id).await;
    let request = pb::CancelRequest {
        run_id: run.id.clone(),
    };
    server.runs().cancel(request).await.unwrap();
    drop(worker);
    watch.until(Phase::Cancelled).await;
    let request = pb::DeleteRunRequest {
        run_id: run.id.clone(),
        with_checkpoints: true,
    };
    let removed = async {
        while server.runs().delete(request.clone()).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    soon("the run's removal", removed).await;
    let request = pb::DeleteDatasetRequest {
        dataset: "tiny".into(),
    };
    server.datasets().delete(request).await.unwrap();
    place
        .bucket
        .until_keys("nothing but the identity", |keys| keys == ["store.json"])
        .await;
}
