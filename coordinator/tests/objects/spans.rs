//! What a collector gets of an upload: a part of the checkpoint's span.

#[path = "../../../traces/testing/receiver.rs"]
mod receiver;

use fovea_traces::names;
use receiver::{Received, Receiver};

use super::*;

/// The attempts to upload the checkpoint of this step.
fn uploads<'a>(spans: &'a [Received], run: &str, step: &str) -> Vec<&'a Received> {
    let wanted = |s: &&Received| {
        s.span.name == names::MIRROR && s.get(names::RUN) == run && s.get(names::STEP) == step
    };
    spans.iter().filter(wanted).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_s3), ignore = "needs .s3-server: make s3-server")]
async fn an_upload_of_a_checkpoint_is_a_part_of_its_span() {
    let place = Place::new().await;
    let receiver = Receiver::start("127.0.0.1:0").await;
    let (with_bucket, collector) = (place.with_bucket(), receiver.address);
    let server = Server::start(&place.data(), |config| {
        with_bucket(config);
        config.otlp_endpoint = format!("http://{collector}");
    })
    .await;
    server.upload(&place.tiny).await.unwrap();
    let (run, at, mut worker) = begin(&server, false).await;
    place.step(&mut worker, &at, 1).await;
    checkpoint(&server, &worker, &at, 1, &state(1)).await;
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    let spans = receiver
        .until("the upload", |spans| {
            let stored = |s: &Received| s.span.name == names::CHECKPOINT;
            let all = uploads(spans, &run.id, "1");
            all.iter().any(|s| s.is_ok()) && spans.iter().any(stored)
        })
        .await;
    let checkpoint = spans.iter().find(|s| s.span.name == names::CHECKPOINT);
    let checkpoint = checkpoint.expect("the checkpoint's span");
    let attempts = uploads(&spans, &run.id, "1");
    for attempt in &attempts {
        assert!(attempt.is_child_of(checkpoint), "{attempt:#?}");
        assert_eq!(attempt.span.kind, 3, "a call");
        assert_eq!(attempt.get(names::BYTES), checkpoint.get(names::BYTES));
        assert_eq!(attempt.get(names::GENERATION), at.generation.to_string());
    }
    assert_eq!(attempts.iter().filter(|s| s.is_ok()).count(), 1);
    // Its run goes on: a stop would wait for the worker.
    server.kill().await;
}
