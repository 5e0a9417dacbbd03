//! Bad input at every method of every service: the right code, the field's name, and a coordinator
//! that lives on.

mod checkpoints;
mod datasets;
mod runs;
mod sessions;
mod slices;

use crate::common;
use common::*;
use fovea_proto::pb;
use fovea_proto::pb::released::Outcome;

/// Texts that are no id, whatever it names.
pub fn bad_ids() -> Vec<String> {
    let mut bad: Vec<String> = [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "a/b",
        "a b",
        "-x",
        "\0",
        "é",
    ]
    .map(str::to_owned)
    .to_vec();
    bad.push("x".repeat(65));
    bad.push("y".repeat(1 << 20));
    bad
}

pub async fn server(dir: &tempfile::TempDir) -> Server {
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    server
        .upload(&dataset(dir.path(), "tiny", 1))
        .await
        .unwrap();
    server
}

/// It takes a run, gives it to a worker, and lists it.
pub async fn still_serves(server: &Server) {
    let mut worker = Worker::join(server, "sane").await;
    let run = server.submit(spec()).await.unwrap();
    let at = worker.assignment().await;
    assert_eq!(at.run_id, run.id);
    worker
        .released(
            &at,
            Outcome::Failed(pb::Failure {
                reason: "enough".into(),
                fatal: true,
            }),
        )
        .await;
    server.watch(&run.id).await.until(pb::Phase::Failed).await;
}
