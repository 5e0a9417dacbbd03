//! What people may do.

use fovea_core::ids::DatasetName;
use fovea_dataset::{Recipe, write_ungraded};
use fovea_proto::pb;
use fovea_proto::pb::run_event::Event;
use fovea_security::Role;
use pb::admin_client::AdminClient;
use pb::checkpoints_client::CheckpointsClient;
use pb::datasets_client::DatasetsClient;
use pb::groups_client::GroupsClient;
use pb::runs_client::RunsClient;
use tonic::Code;

use super::pki::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn people_do_what_their_roles_allow() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    server
        .upload(&dataset(pki.path(), "tiny", 1))
        .await
        .unwrap();
    let mut people = Vec::new();
    for (role, name) in [
        (Role::Viewer, "vic"),
        (Role::Submitter, "ann"),
        (Role::Submitter, "bob"),
        (Role::Worker, "w"),
        (Role::Coordinator, "other"),
    ] {
        people.push(channel(&server, &pki.member(role, name)).await.unwrap());
    }
    let [viewer, ann, bob, worker, coordinator] = people.try_into().unwrap();
    let runs = |channel: &tonic::transport::Channel| RunsClient::new(channel.clone());
    let submit = pb::SubmitRequest { spec: Some(spec()) };

    // A viewer looks, and does no more.
    runs(&viewer)
        .list(pb::ListRunsRequest::default())
        .await
        .unwrap();
    let denied = runs(&viewer).submit(submit.clone()).await;
    refused(
        denied,
        Code::PermissionDenied,
        "vic (viewer) may not do this: it needs a certificate or a token of a submitter",
    );
    let mut datasets = DatasetsClient::new(viewer.clone());
    let denied = datasets.fetch_pack(pb::FetchPackRequest::default()).await;
    refused(
        denied,
        Code::PermissionDenied,
        "it needs a certificate or a token of a worker",
    );

    // Neither does a worker submit, nor another coordinator do anything.
    for channel in [&worker, &coordinator] {
        let denied = runs(channel).submit(submit.clone()).await;
        refused(denied, Code::PermissionDenied, "may not do this");
        let denied = runs(channel).list(pb::ListRunsRequest::default()).await;
        refused(denied, Code::PermissionDenied, "may not do this");
    }

    // Runs belong to who has submitted them.
    let run = runs(&ann)
        .submit(submit)
        .await
        .unwrap()
        .into_inner()
        .run
        .unwrap();
    assert_eq!(run.submitted_by, "ann");
    let run_id = || run.id.clone();
    let others = "r-1 belongs to ann, and bob (submitter) may change only its own runs";
    let pause = || pb::PauseRequest { run_id: run_id() };
    let resume = || pb::ResumeRequest {
        run_id: run_id(),
        checkpoint_step: None,
    };
    let cancel = || pb::CancelRequest { run_id: run_id() };
    let delete = || pb::DeleteRunRequest {
        run_id: run_id(),
        with_checkpoints: true,
    };
    let denied = Code::PermissionDenied;
    refused(runs(&bob).pause(pause()).await, denied, others);
    refused(runs(&bob).cancel(cancel()).await, denied, others);
    let priority = |priority: pb::Priority| pb::SetPriorityRequest {
        run_id: run_id(),
        priority: priority.into(),
    };
    let high = priority(pb::Priority::High);
    refused(runs(&bob).set_priority(high.clone()).await, denied, others);
    let role = "vic (viewer) may not do this";
    refused(runs(&viewer).set_priority(high.clone()).await, denied, role);
    let mut watch = server.watch(&run.id).await;
    let raised = runs(&ann).set_priority(high).await.unwrap().into_inner();
    assert_eq!(raised.priority(), pb::Priority::High);
    let note = loop {
        if let Some(Event::Note(note)) = watch.next().await {
            break note;
        }
    };
    let expected = "run.priority_changed: priority changed from normal to high by ann";
    assert_eq!(note, expected);
    let low = priority(pb::Priority::Low);
    let lowered = server.runs().set_priority(low).await.unwrap();
    assert_eq!(lowered.into_inner().priority(), pb::Priority::Low);
    refused(runs(&bob).resume(resume()).await, denied, others);
    refused(runs(&bob).delete(delete()).await, denied, others);
    let mut checkpoints = CheckpointsClient::new(bob.clone());
    let removal = pb::DeleteCheckpointRequest {
        run_id: run_id(),
        step: 1,
    };
    refused(checkpoints.delete(removal).await, denied, others);
    let verify = AdminClient::new(bob.clone())
        .verify(pb::VerifyStoreRequest::default())
        .await;
    refused(
        verify.map(drop),
        denied,
        "it needs a certificate or a token of an admin",
    );
    let removal = pb::DeleteDatasetRequest {
        dataset: "tiny".into(),
    };
    let removal = DatasetsClient::new(bob.clone()).delete(removal).await;
    refused(
        removal,
        denied,
        "it needs a certificate or a token of an admin",
    );
    // Photographs without grades, which somebody sent for a prediction, are another matter.
    let set = pki.path().join("ungraded");
    let recipe = Recipe::new("crop".parse().unwrap(), 32).unwrap();
    let name = DatasetName::new("predict-1").unwrap();
    write_ungraded(&set, name, &recipe, [vec![9; 32 * 32 * 3]]).unwrap();
    server.upload(&set).await.unwrap();
    let removal = || pb::DeleteDatasetRequest {
        dataset: "predict-1".into(),
    };
    let removed = DatasetsClient::new(viewer.clone()).delete(removal()).await;
    refused(removed, denied, "vic (viewer) may not do this");
    let removed = DatasetsClient::new(bob.clone()).delete(removal()).await;
    assert!(removed.unwrap().into_inner().freed_bytes > 0);
    // Its owner pauses it, an admin resumes it, and its owner cancels and removes it.
    runs(&ann).pause(pause()).await.unwrap();
    server.runs().resume(resume()).await.unwrap();
    runs(&ann).cancel(cancel()).await.unwrap();
    runs(&ann).delete(delete()).await.unwrap();

    // So do groups.
    let groups = |channel: &tonic::transport::Channel| GroupsClient::new(channel.clone());
    let two = pb::SubmitGroupRequest {
        spec: Some(spec()),
        folds: 2,
        seeds: Vec::new(),
        ..Default::default()
    };
    refused(
        groups(&viewer).submit(two.clone()).await,
        denied,
        "vic (viewer) may not do this",
    );
    let group = groups(&ann).submit(two).await.unwrap().into_inner();
    assert_eq!((&*group.id, &*group.submitted_by), ("r-g2", "ann"));
    let cancel = || pb::CancelGroupRequest {
        group_id: group.id.clone(),
    };
    let others = "r-g2 belongs to ann, and bob (submitter) may change only its own runs";
    refused(groups(&bob).cancel(cancel()).await, denied, others);
    let high = pb::SetGroupPriorityRequest {
        group_id: group.id.clone(),
        priority: pb::Priority::High.into(),
    };
    refused(groups(&bob).set_priority(high).await, denied, others);
    let seen = groups(&viewer)
        .list(pb::ListGroupsRequest::default())
        .await
        .unwrap();
    assert_eq!(seen.into_inner().groups, std::slice::from_ref(&group));
    groups(&ann).cancel(cancel()).await.unwrap();

    // What there is not is denied, too.
    let mut grpc = tonic::client::Grpc::new(ann.clone());
    grpc.ready().await.unwrap();
    let path = "/fovea.v1.Runs/Nonsense".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<pb::GetRunRequest, pb::Run>::default();
    let answer = grpc
        .unary(
            tonic::Request::new(pb::GetRunRequest::default()),
            path,
            codec,
        )
        .await;
    refused(answer, Code::Unimplemented, "does not know this request");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_everybody_may_do_everything_and_runs_belong_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), |_| ()).await;
    server
        .upload(&dataset(dir.path(), "tiny", 1))
        .await
        .unwrap();
    let run = server.submit(spec()).await.unwrap();
    assert_eq!(run.submitted_by, "");
    let cancel = pb::CancelRequest { run_id: run.id };
    server.runs().cancel(cancel).await.unwrap();
    server.stop().await;
}
