//! Evaluations that are refused, or that fail.

use super::*;
use tonic::Code;

/// What cannot be evaluated is refused with what to do, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_evaluated_is_refused() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let mut cluster = Cluster::start(keep.path(), 1);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let mut short = spec("short");
    short.train.as_mut().expect("given").epochs = Some(1);
    let run = cluster.submit(short).await;
    let run = cluster.wait_completed(&run.id).await;
    let step = run.total_steps;

    let mut written = spec("written");
    written.evaluate = Some(pb::EvaluateSpec {
        run_id: run.id.clone(),
        step,
        part: pb::Part::All.into(),
        ..Default::default()
    });
    let submit = pb::SubmitRequest {
        spec: Some(written),
    };
    let refused = cluster.runs().await.submit(submit).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("spec.evaluate"), "{refused}");

    let refused = evaluate(&cluster, &run, step + 1, pb::Part::Validation)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("fovea checkpoints"), "{refused}");
    let refused = evaluate(&cluster, &run, step, pb::Part::Test)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("no samples in the part test"),
        "{refused}"
    );
    let refused = evaluate(&cluster, &run, step, pb::Part::Unspecified)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let output = cluster.try_fovea(&["evaluate", &run.id, "--dataset", "nothing"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("nothing"), "{text}");

    // Photographs of another size are other inputs.
    let other = keep.path().join("other");
    let drawings = keep.path().join("drawings-too");
    let at = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    cluster.fovea(&[
        "synthetic",
        "--out",
        &at(&drawings),
        "--patients",
        "8",
        "--size",
        "96",
    ]);
    cluster.fovea(&[
        "prepare",
        &at(&drawings),
        "--out",
        &at(&other),
        "--size",
        "96",
    ]);
    cluster.fovea(&["dataset", "add", &at(&other)]);
    let output = cluster.try_fovea(&["evaluate", &run.id, "--dataset", "other"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("--size 64"), "{text}");

    // So are those that were processed in another way, and both are named. Weights from the run go on with its own
    // photographs only.
    let clahe = keep.path().join("clahe");
    cluster.fovea(&[
        "prepare",
        &at(&drawings),
        "--out",
        &at(&clahe),
        "--size",
        "64",
        "--preprocess",
        "clahe",
    ]);
    cluster.fovea(&["dataset", "add", &at(&clahe)]);
    let both = ["crop, circle, bilinear", "clahe (clip 2, tiles 8), circle"];
    let output = cluster.try_fovea(&["evaluate", &run.id, "--dataset", "clahe"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(both.iter().all(|part| text.contains(part)), "{text}");
    let file = at(&keep.path().join("learnt.safetensors"));
    cluster.fovea(&["checkpoint", "get", &run.id, "-o", &file]);
    cluster.fovea(&["weights", "add", &file]);
    let mut onwards = spec("onwards");
    onwards.model = Some(pb::ModelSpec {
        weights: Some("learnt".into()),
        ..Default::default()
    });
    onwards.dataset = "clahe".into();
    let submit = |spec| pb::SubmitRequest { spec: Some(spec) };
    let mut runs = cluster.runs().await;
    let refused = runs.submit(submit(onwards.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        both.iter().all(|part| refused.message().contains(part)),
        "{refused}"
    );
    // Larger ones of the same kind.
    onwards.dataset = "other".into();
    let accepted = runs.submit(submit(onwards)).await;
    let accepted = accepted.expect("accepted").into_inner();
    cluster.fovea(&["cancel", &accepted.run.expect("a run").id]);

    // Nothing of all that was recorded or begun.
    assert!(cluster.run(&run.id).await.evaluations.is_empty());
    assert!(!cluster.fovea(&["runs"]).contains("short-1."));

    // An evaluation has no audit and is not evaluated itself, and one that nobody can make is cancelled.
    cluster.workers[0].signal(libc::SIGKILL);
    let made = evaluate(&cluster, &run, step, pb::Part::Train)
        .await
        .expect("accepted");
    let waits = made.run.expect("the evaluation");
    for command in [
        ["runs", "audit", &waits.id].as_slice(),
        &["evaluate", &waits.id],
    ] {
        let output = cluster.try_fovea(command);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(&run.id), "{text}");
    }
    cluster.fovea(&["cancel", &waits.id]);
    cluster
        .run_until(&waits.id, |r| r.phase() == pb::Phase::Cancelled)
        .await;
    // Made anew by a worker that comes; the one that was cancelled does not count.
    cluster.add_worker();
    let anew = evaluate(&cluster, &run, step, pb::Part::Train)
        .await
        .expect("accepted");
    assert!(!anew.existed);
    cluster
        .wait_completed(&anew.run.expect("the evaluation").id)
        .await;
}
