//! The ledger, by its audit.

use fovea_proto::pb;
use tonic::Code;

use super::{Stage, spec_of};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_epoch_is_said_to_be_clean() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [w0]) = stage.begin(spec_of(2, 1, 2), ["w0"]).await;
    let before = stage.audit(&run).await;
    assert_eq!((before.steps, &*before.problems), (0, &[][..]));
    assert_eq!(before.train_samples, run.train_samples);
    assert_eq!(before.total_steps, run.total_steps);
    let steps = run.steps_per_epoch + 2;
    for step in 1..=steps {
        stage.step(&w0, &at, step).await;
    }
    watch.until_step(steps).await;
    // At once: what waits to be written is part of it.
    let audit = stage.audit(&run).await;
    assert_eq!((audit.steps, &*audit.problems), (steps, &[][..]));
    assert_eq!(audit.clean_epochs, 1);
    assert_eq!(audit.samples_used, run.train_samples + 4);
    assert!(audit.ledger_bytes > 0);
    let request = pb::AuditRequest {
        run_id: "r-9".into(),
    };
    refused(
        stage.server.runs().audit(request).await,
        Code::NotFound,
        "r-9",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sample_and_a_missing_step_are_found() {
    let stage = Stage::new().await;
    let (run, at, mut watch, [w0]) = stage.begin(spec_of(2, 1, 2), ["w0"]).await;
    let last = run.steps_per_epoch;
    for step in 1..=last {
        let mut samples = stage.samples(&at, step);
        if step == 2 {
            // One is used twice, so that another is left out.
            samples[0] = stage.samples(&at, 1)[0];
        }
        if step != 4 {
            w0.send(committed_with(&at, report(step), samples)).await;
        }
    }
    watch.until_step(last).await;
    let audit = stage.audit(&run).await;
    let text = audit.problems.join("; ");
    for found in [
        "step 2 did not use the samples",
        "steps 4 to 4 are missing",
        "left out 3 samples and used 1 more often than planned",
    ] {
        assert!(text.contains(found), "{found}: {text}");
    }
    assert_eq!((audit.steps, audit.clean_epochs), (last - 1, 0));

    // A step that is reported again replaces the entry.
    for step in [2, 4] {
        stage.step(&w0, &at, step).await;
    }
    stage.step(&w0, &at, last + 1).await;
    watch.until_step(last + 1).await;
    let audit = stage.audit(&run).await;
    assert_eq!((audit.clean_epochs, &*audit.problems), (1, &[][..]));
}
