//! Bodies that are no messages: INVALID_ARGUMENT at every kind of method, and the coordinator
//! lives on.

use std::pin::Pin;

use fovea_proto::pb;
use http_body::Body as _;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;

use crate::common::*;

/// The status with which a method answers a body of exactly these bytes.
async fn answer(channel: &Channel, method: &str, body: &str) -> Status {
    let mut channel = channel.clone();
    let request = http::Request::post(format!("/fovea.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body.to_owned()))
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let response = soon("an answer", channel.call(request)).await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let mut body = response.into_body();
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let frame = soon("the answer's end", frame).await;
        let frame = frame.expect("a status in the trailers").unwrap();
        if let Some(trailers) = frame.trailers_ref() {
            return Status::from_header_map(trailers).expect("a status");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbage_body_is_the_clients_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let methods = [
        // One message, many messages, and messages both ways.
        "Runs/Get",
        "Runs/Submit",
        "Runs/Watch",
        "Datasets/Create",
        "Workers/UploadSlice",
        "Workers/Session",
    ];
    let bodies = [
        ("GET / HTTP/1.1\r\n\r\n", "no gRPC frame"),
        ("\0\0\0\0\x03\x0f\x0f\x0f", "no protobuf"),
        ("\0\0\0\0\x0a\x0a\x05", "less than the frame says"),
        ("\0\0", "half a frame's header"),
        ("\x01\0\0\0\x01\x0a", "compressed"),
        ("", "nothing"),
    ];
    for method in methods {
        for (body, what) in bodies {
            let status = answer(&server.channel, method, body).await;
            let code = status.code();
            assert_eq!(code, Code::InvalidArgument, "{method}, {what}: {status:?}");
            assert!(!status.message().is_empty(), "{method}, {what}");
        }
    }
    // The same connection still serves.
    let list = server.runs().list(pb::ListRunsRequest::default()).await;
    assert!(list.is_ok(), "{list:?}");
    server.stop().await;
}
