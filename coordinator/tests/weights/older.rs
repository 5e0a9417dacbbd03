//! Runs of older versions, which named a path that workers opened.

use pb::Phase;

use super::*;

/// A data folder with a queued run whose spec an older version would have written: a path, and perhaps its digest.
async fn folder_with_run(weights: &str, sha256: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let run = server.submit(spec()).await.unwrap();
    server.stop().await;
    let db = rusqlite::Connection::open(dir.path().join("data/journal.db")).unwrap();
    let changed = db.execute(
        "UPDATE runs SET run = json_set(run, '$.spec.model.weights', ?1, '$.spec.model.weights_sha256', ?2)",
        [weights, sha256],
    );
    assert_eq!(changed.unwrap(), 1);
    db.close().unwrap();
    // The folder of an older version has no such store, and its journal does not know one.
    std::fs::remove_dir_all(dir.path().join("data/weights")).unwrap();
    let db = rusqlite::Connection::open(dir.path().join("data/journal.db")).unwrap();
    let changed = db.execute("DELETE FROM stores WHERE kind = 'weights'", []);
    assert_eq!(changed.unwrap(), 1);
    db.close().unwrap();
    (dir, run.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_path_and_digest_waits_until_the_file_is_added() {
    let digest = sha256(googlenet());
    let (dir, run) = folder_with_run("/data/bvlc.caffemodel", &digest).await;
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let mut worker = Worker::join(&server, "w0").await;
    let waiting = waits_for(&server, &run, "`fovea weights add /data/bvlc.caffemodel`").await;
    assert_eq!((waiting.phase(), waiting.generation), (Phase::Queued, 0));
    // A worker that asks all the same has to wait.
    let status = fetch(&server, &digest).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    add(&server, "", "bvlc.safetensors", googlenet())
        .await
        .unwrap();
    let assignment = worker.assignment().await;
    assert_eq!(assignment.run_id, run);
    // What the run starts from by its spec is unchanged: workers compare specs.
    let model = assignment.spec.unwrap().model.unwrap();
    assert_eq!(model.weights.as_deref(), Some("/data/bvlc.caffemodel"));
    assert_eq!(model.weights_sha256, Some(digest));
    assert_eq!(list(&server).await[0].used_by, [run]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_a_path_alone_says_what_to_do() {
    let (dir, run) = folder_with_run("/data/bvlc.caffemodel", "").await;
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    add(&server, "", "bvlc.safetensors", googlenet())
        .await
        .unwrap();
    let _worker = Worker::join(&server, "w0").await;
    let waiting = waits_for(&server, &run, "cancel this run, and submit it again").await;
    assert_eq!((waiting.phase(), waiting.generation), (Phase::Queued, 0));
}
