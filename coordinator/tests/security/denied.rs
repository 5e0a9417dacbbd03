//! Workers that are shut out.

use fovea_proto::pb;
use fovea_security::Role;
use tonic::Code;

use super::pki::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_worker_is_out_at_once_and_stays_out() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    let one = channel(&server, &pki.member(Role::Worker, "one"))
        .await
        .unwrap();
    let two = channel(&server, &pki.member(Role::Worker, "two"))
        .await
        .unwrap();
    let mut first = Worker::begin_on(one.clone(), hello("one-1-a")).await;
    let mut second = Worker::begin_on(one.clone(), hello("one-2-b")).await;
    let _other = Worker::begin_on(two, hello("two-1-a")).await;

    let deny = pb::DenyWorkerRequest {
        name: "one".into(),
        reason: "stolen".into(),
    };
    let denied = server.cluster().deny_worker(deny).await.unwrap();
    assert_eq!(denied.into_inner().sessions, 2);
    let sentence = "the worker one is denied (stolen); an admin can let it in again";
    for worker in [&mut first, &mut second] {
        let end = soon("the end of a session", worker.end()).await;
        refused::<()>(Err(end), Code::PermissionDenied, sentence);
    }
    let back = Worker::open_on(one.clone(), hello("one-1-a")).await;
    refused(back.map(drop), Code::PermissionDenied, sentence);
    // Whatever else it asks for.
    let mut datasets = pb::datasets_client::DatasetsClient::new(one.clone());
    let get = pb::GetDatasetRequest {
        dataset: "tiny".into(),
    };
    refused(datasets.get(get).await, Code::PermissionDenied, sentence);
    let mut cluster = server.cluster();
    let connected = cluster.list_workers(pb::ListWorkersRequest {});
    let connected = connected.await.unwrap().into_inner().workers;
    let ids: Vec<&str> = connected.iter().map(|worker| &*worker.id).collect();
    assert_eq!(ids, ["two-1-a"]);

    server.kill().await;
    let server = pki.server(|_| ()).await;
    let one = channel(&server, &pki.member(Role::Worker, "one"))
        .await
        .unwrap();
    let back = Worker::open_on(one.clone(), hello("one-1-a")).await;
    refused(back.map(drop), Code::PermissionDenied, sentence);
    let mut cluster = server.cluster();
    let denied = cluster.list_denied(pb::ListDeniedRequest {});
    let denied = denied.await.unwrap().into_inner().denied;
    assert_eq!(denied.len(), 1);
    let pb::DeniedWorker {
        name, reason, by, ..
    } = &denied[0];
    assert_eq!([name, reason, by], ["one", "stolen", "root"]);

    // Somebody else denies it again: without a reason the first one stays, with a reason that counts.
    for (again, kept) in [("", "stolen"), ("sold", "sold"), ("", "sold")] {
        let deny = pb::DenyWorkerRequest {
            name: "one".into(),
            reason: again.into(),
        };
        server.cluster().deny_worker(deny).await.unwrap();
        let mut cluster = server.cluster();
        let denied = cluster.list_denied(pb::ListDeniedRequest {}).await.unwrap();
        let denied = denied.into_inner().denied;
        assert_eq!((denied.len(), &*denied[0].reason), (1, kept), "{again:?}");
    }

    let allow = pb::AllowWorkerRequest { name: "one".into() };
    server.cluster().allow_worker(allow.clone()).await.unwrap();
    drop(Worker::begin_on(one, hello("one-1-a")).await);
    let again = server.cluster().allow_worker(allow).await;
    refused(again, Code::NotFound, "one is not denied");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_be_denied_who_has_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), |_| ()).await;
    let deny = pb::DenyWorkerRequest {
        name: "one".into(),
        reason: String::new(),
    };
    let denied = server.cluster().deny_worker(deny).await;
    refused(denied, Code::FailedPrecondition, "has no TLS");
    server.stop().await;

    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    let deny = pb::DenyWorkerRequest {
        name: "a b".into(),
        reason: String::new(),
    };
    let denied = server.cluster().deny_worker(deny).await;
    refused(denied, Code::InvalidArgument, "name:");
    server.stop().await;
}
