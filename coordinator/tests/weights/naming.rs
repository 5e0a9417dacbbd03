//! How runs name weights, and what uses them.

use pb::Phase;
use tonic::Code;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_names_weights_and_its_spec_pins_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let digest = sha256(googlenet());
    add(&server, "bvlc", "w.x", googlenet()).await.unwrap();
    let upper = digest.to_uppercase();
    for (weights, sha256) in [
        ("bvlc", ""),
        ("bvlc", &*digest),
        ("bvlc", &upper),
        (&*format!("sha256:{digest}"), ""),
        // An older client names the path that it read, and the digest.
        ("/home/a/bvlc.caffemodel", &digest),
    ] {
        let run = server.submit(spec_from(weights, sha256)).await.unwrap();
        let model = run.spec.unwrap().model.unwrap();
        assert_eq!(model.weights.as_deref(), Some("bvlc"), "{weights}");
        assert_eq!(model.weights_sha256, Some(digest.clone()), "{weights}");
    }
    let zeros = "0".repeat(64);
    let path = "/home/a/w.caffemodel";
    for (weights, sha256, code, named) in [
        ("nothing", "", Code::NotFound, "fovea weights list"),
        (
            &*format!("sha256:{zeros}"),
            "",
            Code::NotFound,
            "fovea weights add",
        ),
        ("sha256:12", "", Code::InvalidArgument, "model.weights"),
        (
            "bvlc",
            &*zeros,
            Code::InvalidArgument,
            "spec.model.weights_sha256",
        ),
        (
            path,
            "",
            Code::FailedPrecondition,
            "`fovea weights add /home/a/w.caffemodel`",
        ),
        (
            path,
            &zeros,
            Code::FailedPrecondition,
            "open no path that a run names",
        ),
    ] {
        let submitted = server.submit(spec_from(weights, sha256)).await;
        refused(submitted, code, named);
    }
    // Without weights a digest means nothing.
    let run = server.submit(spec_from("", &digest)).await.unwrap();
    let model = run.spec.unwrap().model.unwrap();
    assert_eq!(model.weights_sha256.as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_a_run_uses_are_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let digest = sha256(googlenet());
    refused(remove(&server, "bvlc").await, Code::NotFound, "bvlc");
    add(&server, "bvlc", "w.x", googlenet()).await.unwrap();
    let run = server.submit(spec_from("bvlc", "")).await.unwrap();
    assert_eq!(
        list(&server).await[0].used_by,
        std::slice::from_ref(&run.id)
    );
    let prefixed = format!("sha256:{digest}");
    for name in ["bvlc", &digest, &prefixed] {
        let command = format!("`fovea cancel {}`", run.id);
        refused(
            remove(&server, name).await,
            Code::FailedPrecondition,
            &command,
        );
    }
    let cancel = pb::CancelRequest {
        run_id: run.id.clone(),
    };
    server.runs().cancel(cancel).await.unwrap();
    assert_eq!(list(&server).await[0].used_by, [""; 0]);
    let freed = remove(&server, &prefixed).await.unwrap();
    assert!(freed >= googlenet().len() as u64, "{freed}");
    assert_eq!(list(&server).await, []);
    assert!(!dir.path().join("data/weights").join(&digest).exists());
    refused(
        fetch(&server, &digest).await,
        Code::FailedPrecondition,
        "fovea weights add",
    );

    // Resumed, it waits for them, and costs no attempt.
    let resume = pb::ResumeRequest {
        run_id: run.id.clone(),
        checkpoint_step: None,
    };
    server.runs().resume(resume).await.unwrap();
    let mut worker = Worker::join(&server, "w0").await;
    let waiting = waits_for(&server, &run.id, "they were removed").await;
    assert_eq!((waiting.phase(), waiting.generation), (Phase::Queued, 0));
    add(&server, "", "again.safetensors", googlenet())
        .await
        .unwrap();
    let model = worker.assignment().await.spec.unwrap().model.unwrap();
    assert_eq!(model.weights_sha256, Some(digest));
}
