//! `Workers.UploadSlice`.

use fovea_proto::{CHUNK_BYTES, pb};
use tonic::Code::{self, FailedPrecondition, InvalidArgument, NotFound};

use super::{server, still_serves};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn slices() {
    use pb::slice_upload::Part;
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut worker = Worker::join(&server, "w0").await;
    let run = server.submit(spec()).await.unwrap();
    let at = worker.assignment().await;
    let bytes = state(1);
    let good = slice_parts("w0", &at, 0, 1, 1, &bytes);
    let upload = |parts: Vec<pb::SliceUpload>| {
        let mut client = server.workers();
        async move { client.upload_slice(tokio_stream::iter(parts)).await }
    };
    refused(upload(good.clone()).await, FailedPrecondition, "ready");
    worker.ready(&at).await;
    server.watch(&run.id).await.until(pb::Phase::Running).await;

    type Change = fn(&mut pb::SliceHeader);
    let headers: Vec<(Change, Code, &str)> = vec![
        (
            |h| h.run_id = "../x".into(),
            InvalidArgument,
            "header.run_id",
        ),
        (|h| h.run_id = "other-1".into(), NotFound, "other-1"),
        (|h| h.generation = 0, InvalidArgument, "header.generation"),
        (
            |h| h.generation = u64::MAX,
            InvalidArgument,
            "header.generation",
        ),
        (
            |h| h.generation = 2,
            FailedPrecondition,
            "header.generation",
        ),
        (|h| h.worker_id.clear(), InvalidArgument, "header.worker_id"),
        (
            |h| h.worker_id = "w9".into(),
            FailedPrecondition,
            "header.worker_id",
        ),
        (|h| h.step = 0, InvalidArgument, "header.step"),
        (|h| h.step = 5, InvalidArgument, "header.step"),
        (|h| h.step = u64::MAX, InvalidArgument, "header.step"),
        (|h| h.offset = 1, InvalidArgument, "header.offset"),
        (|h| h.offset = u64::MAX, InvalidArgument, "header.offset"),
        (|h| h.elements -= 1, InvalidArgument, "header.offset"),
        (|h| h.elements = u64::MAX, InvalidArgument, "header.offset"),
        (|h| h.digest = "no".into(), InvalidArgument, "header.digest"),
        (
            |h| h.state_digest.clear(),
            InvalidArgument,
            "header.state_digest",
        ),
        (
            |h| h.state_digest = "x".repeat(32),
            InvalidArgument,
            "header.state_digest",
        ),
        (
            |h| h.digest = "0".repeat(32),
            InvalidArgument,
            "header.digest",
        ),
    ];
    for (change, code, named) in headers {
        let mut parts = good.clone();
        let Some(Part::Header(header)) = &mut parts[0].part else {
            panic!()
        };
        change(header);
        refused(upload(parts).await, code, named);
    }
    let data = |bytes: Vec<u8>| pb::SliceUpload {
        part: Some(Part::Data(bytes.into())),
    };
    let streams: Vec<(&str, Vec<pb::SliceUpload>, &str)> = vec![
        ("nothing", vec![], "header"),
        (
            "an empty message",
            vec![pb::SliceUpload { part: None }],
            "header",
        ),
        ("data first", good[1..].to_vec(), "header"),
        (
            "twice the header",
            vec![good[0].clone(), good[0].clone()],
            "header",
        ),
        (
            "an empty message inside",
            vec![good[0].clone(), pb::SliceUpload { part: None }],
            "part",
        ),
        ("header only", good[..1].to_vec(), "ended early"),
        ("truncated", good[..good.len() - 1].to_vec(), "ended early"),
        (
            "too much",
            [good.clone(), vec![data(vec![1])]].concat(),
            "data",
        ),
        (
            "too large a piece",
            vec![good[0].clone(), data(vec![0; CHUNK_BYTES + 1])],
            "data",
        ),
    ];
    for (what, parts, named) in streams {
        let status = upload(parts).await.expect_err(what);
        assert_eq!(status.code(), InvalidArgument, "{what}: {status:?}");
        assert!(status.message().contains(named), "{what}: {status:?}");
    }
    assert!(server.run(&run.id).await.checkpoints.is_empty());

    // After all that the slice still has its place.
    let mut watch = server.watch(&run.id).await;
    upload(good).await.unwrap();
    while server.run(&run.id).await.checkpoints.is_empty() {
        watch.next().await.expect("the run goes on");
    }
    drop(worker);
    let cancel = pb::CancelRequest {
        run_id: run.id.clone(),
    };
    server.runs().cancel(cancel).await.unwrap();
    still_serves(&server).await;
    server.stop().await;
}
