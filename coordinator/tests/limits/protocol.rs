//! Clients that speak another version of the protocol.

use fovea_proto::pb::runs_client::RunsClient;
use fovea_proto::{PROTOCOL, pb};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_refused_and_other_programs_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let list = async |agent: &str| {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        let channel = endpoint.user_agent(agent).unwrap().connect().await.unwrap();
        RunsClient::new(channel)
            .list(pb::ListRunsRequest::default())
            .await
    };
    let newer = list(&format!("fovea/9.0.0 protocol/{}", PROTOCOL + 1)).await;
    refused(newer, Code::FailedPrecondition, "upgrade the coordinator");
    let older = list("fovea/0.0.1 protocol/1").await;
    refused(older, Code::FailedPrecondition, "upgrade the client");
    for served in ["grpcurl/1.9.1", &fovea_proto::user_agent()] {
        let reply = list(served).await;
        assert!(reply.is_ok(), "{served}: {reply:?}");
    }
    server.stop().await;
}
