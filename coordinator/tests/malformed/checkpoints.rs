//! `Checkpoints`.

use fovea_proto::pb;
use tonic::Code::{InvalidArgument, NotFound};

use super::{bad_ids, server, still_serves};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let run = server.submit(spec()).await.unwrap();
    let mut checkpoints = server.checkpoints();
    let list = |id: &str| pb::ListCheckpointsRequest { run_id: id.into() };
    let get = |id: &str, step| pb::GetCheckpointRequest {
        run_id: id.into(),
        step,
    };
    let verify = |id: &str, step| pb::VerifyCheckpointsRequest {
        run_id: id.into(),
        step,
    };
    for id in bad_ids() {
        refused(
            checkpoints.verify(verify(&id, None)).await,
            InvalidArgument,
            "run_id",
        );
        refused(checkpoints.list(list(&id)).await, InvalidArgument, "run_id");
        refused(
            checkpoints.get(get(&id, None)).await.map(|_| ()),
            InvalidArgument,
            "run_id",
        );
    }
    refused(checkpoints.list(list("no-1")).await, NotFound, "no-1");
    refused(
        checkpoints.verify(verify("no-1", None)).await,
        NotFound,
        "no-1",
    );
    refused(
        checkpoints.verify(verify(&run.id, Some(u64::MAX))).await,
        NotFound,
        "at step",
    );
    // All of none are none.
    let verified = checkpoints.verify(verify(&run.id, None)).await.unwrap();
    assert!(verified.into_inner().checkpoints.is_empty());
    refused(
        checkpoints.get(get("no-1", None)).await.map(|_| ()),
        NotFound,
        "no-1",
    );
    refused(
        checkpoints.get(get(&run.id, None)).await.map(|_| ()),
        NotFound,
        "no checkpoint",
    );
    refused(
        checkpoints
            .get(get(&run.id, Some(u64::MAX)))
            .await
            .map(|_| ()),
        NotFound,
        "at step",
    );
    let cancel = pb::CancelRequest { run_id: run.id };
    server.runs().cancel(cancel).await.unwrap();
    still_serves(&server).await;
    server.stop().await;
}
