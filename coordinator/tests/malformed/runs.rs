//! `Runs`.

use fovea_proto::pb;
use tonic::Code::{self, InvalidArgument, NotFound};

use super::{bad_ids, server, still_serves};
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn runs() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut runs = server.runs();
    for id in bad_ids() {
        let run_id = || id.clone();
        let named = "run_id";
        refused(
            runs.get(pb::GetRunRequest { run_id: run_id() }).await,
            InvalidArgument,
            named,
        );
        refused(
            runs.watch(pb::WatchRequest { run_id: run_id() })
                .await
                .map(|_| ()),
            InvalidArgument,
            named,
        );
        refused(
            runs.cancel(pb::CancelRequest { run_id: run_id() }).await,
            InvalidArgument,
            named,
        );
        let pause = pb::PauseRequest { run_id: run_id() };
        refused(runs.pause(pause).await, InvalidArgument, named);
        let high = pb::SetPriorityRequest {
            run_id: run_id(),
            priority: pb::Priority::High.into(),
        };
        refused(runs.set_priority(high).await, InvalidArgument, named);
        let audit = pb::AuditRequest { run_id: run_id() };
        refused(runs.audit(audit).await, InvalidArgument, named);
        let resume = pb::ResumeRequest {
            run_id: run_id(),
            checkpoint_step: Some(u64::MAX),
        };
        refused(runs.resume(resume).await, InvalidArgument, named);
    }
    for unknown in ["nobody-1", "r-0", "r-18446744073709551616", "r", "r-01"] {
        let run_id = || unknown.to_owned();
        refused(
            runs.get(pb::GetRunRequest { run_id: run_id() }).await,
            NotFound,
            unknown,
        );
        refused(
            runs.watch(pb::WatchRequest { run_id: run_id() })
                .await
                .map(|_| ()),
            NotFound,
            unknown,
        );
        refused(
            runs.cancel(pb::CancelRequest { run_id: run_id() }).await,
            NotFound,
            unknown,
        );
        let pause = pb::PauseRequest { run_id: run_id() };
        refused(runs.pause(pause).await, NotFound, unknown);
        let priority = |priority| pb::SetPriorityRequest {
            run_id: run_id(),
            priority,
        };
        let high = priority(pb::Priority::High.into());
        refused(runs.set_priority(high).await, NotFound, unknown);
        for unset in [0, 4, -1] {
            let unset = runs.set_priority(priority(unset)).await;
            refused(unset, InvalidArgument, "priority");
        }
        let audit = pb::AuditRequest { run_id: run_id() };
        refused(runs.audit(audit).await, NotFound, unknown);
        let resume = pb::ResumeRequest {
            run_id: run_id(),
            checkpoint_step: None,
        };
        refused(runs.resume(resume).await, NotFound, unknown);
    }
    let list = |page_size, token: &str| pb::ListRunsRequest {
        page_size,
        page_token: token.into(),
    };
    refused(
        runs.list(list(1001, "")).await,
        InvalidArgument,
        "page_size",
    );
    refused(
        runs.list(list(0, "next")).await,
        InvalidArgument,
        "page_token",
    );
    refused(
        runs.list(list(0, &"9".repeat(4096))).await,
        InvalidArgument,
        "page_token",
    );

    refused(
        runs.submit(pb::SubmitRequest { spec: None }).await,
        InvalidArgument,
        "spec",
    );
    type Change = fn(&mut pb::RunSpec);
    fn train(spec: &mut pb::RunSpec) -> &mut pb::TrainSpec {
        spec.train.get_or_insert_default()
    }
    fn model(spec: &mut pb::RunSpec) -> &mut pb::ModelSpec {
        spec.model.get_or_insert_default()
    }
    let specs: Vec<(Change, Code, &str)> = vec![
        (|s| s.name.clear(), InvalidArgument, "name"),
        (|s| s.name = "../x".into(), InvalidArgument, "name"),
        (|s| s.name = "n".repeat(1 << 20), InvalidArgument, "name"),
        (
            |s| s.dataset = "a/b".into(),
            InvalidArgument,
            "spec.dataset",
        ),
        (|s| s.dataset = "other".into(), NotFound, "other"),
        (
            |s| train(s).epochs = Some(0),
            InvalidArgument,
            "train.epochs",
        ),
        (
            |s| train(s).epochs = Some(u32::MAX),
            InvalidArgument,
            "train.epochs",
        ),
        (|s| train(s).batch = Some(0), InvalidArgument, "train.batch"),
        (
            |s| train(s).virtual_ranks = Some(0),
            InvalidArgument,
            "train.virtual_ranks",
        ),
        (
            |s| train(s).virtual_ranks = Some(100),
            InvalidArgument,
            "train.virtual_ranks",
        ),
        (
            |s| train(s).learning_rate = Some(f64::NAN),
            InvalidArgument,
            "train.learning_rate",
        ),
        (
            |s| train(s).learning_rate = Some(-1.0),
            InvalidArgument,
            "train.learning_rate",
        ),
        (
            |s| train(s).momentum = Some(f64::INFINITY),
            InvalidArgument,
            "train.momentum",
        ),
        (
            |s| train(s).weight_decay = Some(f64::NAN),
            InvalidArgument,
            "train.weight_decay",
        ),
        (
            |s| train(s).policy = Some(99),
            InvalidArgument,
            "spec.train.policy",
        ),
        (
            |s| train(s).precision = Some(-1),
            InvalidArgument,
            "spec.train.precision",
        ),
        (
            |s| train(s).reduction = Some(3),
            InvalidArgument,
            "spec.train.reduction",
        ),
        (
            |s| train(s).threads = Some(0),
            InvalidArgument,
            "train.threads",
        ),
        (
            |s| model(s).init = Some(7),
            InvalidArgument,
            "spec.model.init",
        ),
        (
            |s| model(s).classes = Some(3),
            InvalidArgument,
            "model.classes",
        ),
        (
            |s| model(s).positive_from = Some(0),
            InvalidArgument,
            "model.positive_from",
        ),
        (
            |s| model(s).dropout = Some(1.0),
            InvalidArgument,
            "model.dropout",
        ),
        (
            |s| model(s).weights = Some("w".repeat(5000)),
            InvalidArgument,
            "model.weights",
        ),
        (
            |s| model(s).weights_sha256 = Some("xyz".into()),
            InvalidArgument,
            "model.weights_sha256",
        ),
        (
            |s| {
                model(s).frozen = Some(pb::LayerList {
                    names: vec!["conv1".into()],
                })
            },
            InvalidArgument,
            "model.frozen",
        ),
        (
            |s| {
                s.workers = Some(pb::WorkersSpec {
                    min: Some(9),
                    max: None,
                    ..Default::default()
                })
            },
            InvalidArgument,
            "workers.min",
        ),
    ];
    for (change, code, named) in specs {
        let mut spec = spec();
        change(&mut spec);
        refused(server.submit(spec).await, code, named);
    }
    // All problems at once.
    let mut spec = spec();
    train(&mut spec).epochs = Some(0);
    model(&mut spec).classes = Some(3);
    let status = server.submit(spec).await.unwrap_err();
    for named in ["train.epochs", "model.classes"] {
        assert!(status.message().contains(named), "{status:?}");
    }
    // A message that is larger than any sane one.
    let request = pb::GetRunRequest {
        run_id: "z".repeat(5 << 20),
    };
    assert!(runs.get(request).await.is_err());
    let none = runs.list(list(0, "")).await.unwrap().into_inner();
    assert!(none.runs.is_empty(), "nothing bad was accepted");
    still_serves(&server).await;

    // Pages, newest first.
    for _ in 0..4 {
        server.submit(crate::common::spec()).await.unwrap();
    }
    let page = runs.list(list(3, "")).await.unwrap().into_inner();
    let ids = |page: &pb::ListRunsResponse| -> Vec<String> {
        page.runs.iter().map(|r| r.id.clone()).collect()
    };
    assert_eq!(ids(&page), ["r-5", "r-4", "r-3"]);
    let page = runs
        .list(list(3, &page.next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(ids(&page), ["r-2", "r-1"]);
    assert_eq!(page.next_page_token, "");
    server.stop().await;
}
