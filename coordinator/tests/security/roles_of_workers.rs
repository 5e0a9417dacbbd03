//! What workers may do: train, in their own name.

use fovea_proto::pb;
use fovea_security::Role;
use pb::workers_client::WorkersClient;
use tonic::Code;

use super::pki::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_speaks_in_its_own_name_only() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    server
        .upload(&dataset(pki.path(), "tiny", 1))
        .await
        .unwrap();
    let one = channel(&server, &pki.member(Role::Worker, "one"))
        .await
        .unwrap();
    let two = channel(&server, &pki.member(Role::Worker, "two"))
        .await
        .unwrap();
    let ann = channel(&server, &pki.member(Role::Submitter, "ann"))
        .await
        .unwrap();

    let stranger = Worker::open_on(one.clone(), hello("two-1-a")).await;
    let named = "hello.worker_id: two-1-a is no process of one (worker)";
    refused(stranger.map(drop), Code::PermissionDenied, named);
    let person = Worker::open_on(ann, hello("ann-1-a")).await;
    refused(
        person.map(drop),
        Code::PermissionDenied,
        "it needs a certificate or a token of a worker",
    );

    // A slice in another's name is refused, and in its own taken.
    let mut worker = Worker::begin_on(one.clone(), hello("one-1-a")).await;
    let run = server.submit(spec()).await.unwrap();
    let mut watch = server.watch(&run.id).await;
    let assignment = worker.assignment().await;
    worker.ready(&assignment).await;
    watch.until(pb::Phase::Running).await;
    let bytes = state(1);
    let parts = || slice_parts("one-1-a", &assignment, 0, 1, 1, &bytes);
    let upload = WorkersClient::new(two)
        .upload_slice(tokio_stream::iter(parts()))
        .await;
    let named = "header.worker_id: one-1-a is no process of two (worker)";
    refused(upload, Code::PermissionDenied, named);
    let upload = WorkersClient::new(one)
        .upload_slice(tokio_stream::iter(parts()))
        .await;
    if let Err(status) = upload {
        assert_ne!(status.code(), Code::PermissionDenied, "{status}");
    }
    // The worker of this test takes no checkpoint, for which a stop would wait.
    server.kill().await;
}
