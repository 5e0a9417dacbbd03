//! Workers that join with a token.

use fovea_proto::pb;
use fovea_security::authority::{key, request_for};
use fovea_security::{Role, Tls, TlsFiles, Token, write_private, write_public};
use pb::identity_client::IdentityClient;
use tonic::{Code, Status};

use super::pki::*;
use super::tokens::{create, stranger};
use crate::common::*;

/// A worker's key, and its request for a certificate.
struct Joiner<'a> {
    pki: &'a Pki,
    name: &'static str,
    request: Vec<u8>,
}

impl<'a> Joiner<'a> {
    fn new(pki: &'a Pki, name: &'static str) -> Self {
        let path = pki.path().join(format!("{name}.key"));
        write_private(&path, &key().unwrap()).unwrap();
        let request = request_for(&path).unwrap();
        Self { pki, name, request }
    }

    async fn join(&self, server: &Server, token: &Token) -> Result<pb::JoinResponse, Status> {
        let request = pb::JoinRequest {
            token: token.reveal(),
            signing_request: self.request.clone().into(),
            host: self.name.into(),
        };
        let mut client = IdentityClient::new(stranger(server, token).await);
        Ok(client.join(request).await?.into_inner())
    }

    fn load(&self, joined: &pb::JoinResponse) -> Tls {
        let at = |end: &str| self.pki.path().join(format!("{}.{end}", self.name));
        write_public(&at("pem"), &joined.certificate).unwrap();
        write_public(&at("ca"), &joined.ca).unwrap();
        load(TlsFiles {
            certificate: at("pem"),
            key: at("key"),
            ca: at("ca"),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_joins_gets_a_name_and_keeps_it() {
    let pki = Pki::new("eyes");
    let server = pki.server(|config| config.tls_ca_key = pki.ca_key()).await;
    let (token, info) = create(&server, "worker", "", 2).await.unwrap();
    assert_eq!((info.role.as_str(), info.uses, info.used), ("worker", 2, 0));
    let node = Joiner::new(&pki, "node-1");
    let joined = node.join(&server, &token).await.unwrap();
    assert!(joined.name.starts_with("node-1-"), "{}", joined.name);
    let tls = node.load(&joined);
    let identity = tls.identity();
    assert_eq!(
        (identity.role(), identity.name()),
        (Role::Worker, &*joined.name)
    );
    let until = tls.certificate().until.unix_timestamp() as u64;
    assert_eq!(until, joined.expires_at_ms / 1000);

    // It trains in its name, and in no other.
    let own = channel(&server, &tls).await.unwrap();
    let id = format!("{}-1-a", joined.name);
    drop(Worker::begin_on(own.clone(), hello(&id)).await);
    let other = Worker::open_on(own.clone(), hello("node-1-1-a")).await;
    refused(other.map(drop), Code::PermissionDenied, "is no process of");

    // A lost answer costs no use; another worker is the second, and there is no third.
    let again = node.join(&server, &token).await.unwrap();
    assert_eq!(again.name, joined.name);
    let second = Joiner::new(&pki, "node-2");
    let second = second.join(&server, &token).await.unwrap();
    assert_ne!(second.name, joined.name);
    let third = Joiner::new(&pki, "node-3");
    let refusal = third.join(&server, &token).await;
    refused(
        refusal,
        Code::PermissionDenied,
        "is used up: 2 workers have joined",
    );

    // Renewal keeps the name; it is for workers only.
    let renew = pb::RenewRequest {
        signing_request: node.request.clone().into(),
    };
    let mut client = IdentityClient::new(own);
    let renewed = client.renew(renew.clone()).await.unwrap().into_inner();
    assert_eq!(renewed.name, joined.name);
    assert_eq!(node.load(&renewed).identity(), identity);
    let mut admin = IdentityClient::new(server.channel.clone());
    refused(admin.renew(renew).await, Code::PermissionDenied, "a worker");

    // What the journal knows of it is there after a kill.
    server.kill().await;
    let server = pki.server(|config| config.tls_ca_key = pki.ca_key()).await;
    let refusal = third.join(&server, &token).await;
    refused(refusal, Code::PermissionDenied, "is used up");
    let again = node.join(&server, &token).await.unwrap();
    assert_eq!(again.name, joined.name);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_join_reads_why() {
    let pki = Pki::new("eyes");
    let server = pki.server(|config| config.tls_ca_key = pki.ca_key()).await;
    let (token, _) = create(&server, "worker", "", 0).await.unwrap();
    let (person, _) = create(&server, "admin", "ann", 0).await.unwrap();
    let node = Joiner::new(&pki, "node-1");
    let refusal = node.join(&server, &person).await;
    refused(refusal, Code::PermissionDenied, "stands for a person");
    let relabelled: Token = (person.reveal().replacen("fvt1", "fvj1", 1))
        .parse()
        .unwrap();
    let refusal = node.join(&server, &relabelled).await;
    refused(refusal, Code::PermissionDenied, "stands for a person");
    for (request, named) in [
        (Vec::new(), "signing_request:"),
        (vec![0x30; 20_000], "more than 16384 bytes"),
        (
            node.request[..node.request.len() - 1].to_vec(),
            "signing_request:",
        ),
    ] {
        let bad = Joiner {
            pki: &pki,
            name: "bad",
            request,
        };
        let refusal = bad.join(&server, &token).await;
        refused(refusal, Code::InvalidArgument, named);
    }
    let mut tokens = pb::tokens_client::TokensClient::new(server.channel.clone());
    let short = pb::CreateTokenRequest {
        role: "worker".into(),
        valid_s: 1,
        ..Default::default()
    };
    let ended = tokens.create(short).await.unwrap().into_inner();
    let ended: Token = ended.token.parse().unwrap();
    let begun = std::time::Instant::now();
    let refusal = loop {
        match node.join(&server, &ended).await {
            Ok(_) => assert!(begun.elapsed() < PATIENCE, "it never ends"),
            refusal => break refusal,
        }
    };
    refused(refusal, Code::PermissionDenied, "has expired on ");
    let id = token.id().to_owned();
    tokens.revoke(pb::RevokeTokenRequest { id }).await.unwrap();
    let refusal = node.join(&server, &token).await;
    refused(refusal, Code::PermissionDenied, "it was revoked");
    server.stop().await;

    let server = pki.server(|_| ()).await;
    let refusal = node.join(&server, &token).await;
    refused(refusal, Code::FailedPrecondition, "tls_ca_key is not set");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_worker_gets_no_certificate_for_its_old_key() {
    let pki = Pki::new("eyes");
    let server = pki.server(|config| config.tls_ca_key = pki.ca_key()).await;
    let (limited, _) = create(&server, "worker", "", 2).await.unwrap();
    let (free, _) = create(&server, "worker", "", 0).await.unwrap();
    for (name, first, other) in [("node-1", &limited, &free), ("node-2", &free, &limited)] {
        let node = Joiner::new(&pki, name);
        let joined = node.join(&server, first).await.unwrap();
        // It keeps its name, whatever token it joins with.
        let again = node.join(&server, first).await.unwrap();
        assert_eq!(again.name, joined.name);
        let deny = pb::DenyWorkerRequest {
            name: joined.name.clone(),
            reason: "sold".into(),
        };
        server.cluster().deny_worker(deny).await.unwrap();
        let sentence = format!("the worker {} is denied (sold)", joined.name);
        for token in [first, other] {
            let refusal = node.join(&server, token).await;
            refused(refusal, Code::PermissionDenied, &sentence);
        }
        let allow = pb::AllowWorkerRequest {
            name: joined.name.clone(),
        };
        server.cluster().allow_worker(allow).await.unwrap();
        let back = node.join(&server, first).await.unwrap();
        assert_eq!(back.name, joined.name);
        let deny = pb::DenyWorkerRequest {
            name: joined.name,
            reason: "sold".into(),
        };
        server.cluster().deny_worker(deny).await.unwrap();
    }
    // Its refusals have used up nothing, and are remembered after a kill.
    server.kill().await;
    let server = pki.server(|config| config.tls_ca_key = pki.ca_key()).await;
    let path = pki.path().join("node-2.key");
    let again = Joiner {
        pki: &pki,
        name: "node-2",
        request: request_for(&path).unwrap(),
    };
    for token in [&limited, &free] {
        let refusal = again.join(&server, token).await;
        refused(refusal, Code::PermissionDenied, "is denied (sold)");
    }
    Joiner::new(&pki, "node-3")
        .join(&server, &limited)
        .await
        .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_listed_with_the_token_that_it_joined_with() {
    let pki = Pki::new("eyes");
    let server = pki.server(|config| config.tls_ca_key = pki.ca_key()).await;
    let (token, _) = create(&server, "worker", "", 0).await.unwrap();
    let node = Joiner::new(&pki, "node-1");
    let joined = node.join(&server, &token).await.unwrap();
    let own = channel(&server, &node.load(&joined)).await.unwrap();
    let by_file = channel(&server, &pki.member(Role::Worker, "two"))
        .await
        .unwrap();
    let id = format!("{}-1-a", joined.name);
    let listed = async |server: &Server| {
        let request = pb::ListWorkersRequest {};
        let listed = server.cluster().list_workers(request).await.unwrap();
        let tokens = listed
            .into_inner()
            .workers
            .into_iter()
            .map(|w| (w.id, w.token_id));
        tokens.collect::<Vec<_>>()
    };
    let _workers = [
        Worker::begin_on(own.clone(), hello(&id)).await,
        Worker::begin_on(by_file, hello("two-1-a")).await,
    ];
    let expected = [
        (id, token.id().to_owned()),
        ("two-1-a".into(), String::new()),
    ];
    assert_eq!(listed(&server).await, expected);
    // Also after it has renewed its certificate for another key.
    let other = Joiner::new(&pki, "other");
    let renew = pb::RenewRequest {
        signing_request: other.request.clone().into(),
    };
    IdentityClient::new(own).renew(renew).await.unwrap();
    assert_eq!(listed(&server).await, expected);
    let deny = pb::DenyWorkerRequest {
        name: joined.name.clone(),
        reason: String::new(),
    };
    server.cluster().deny_worker(deny).await.unwrap();
    let refusal = other.join(&server, &token).await;
    refused(refusal, Code::PermissionDenied, "is denied");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_key_that_cannot_sign_is_refused_at_the_start() {
    let (pki, other) = (Pki::new("eyes"), Pki::new("eyes"));
    let start = async |change: &dyn Fn(&mut fovea_coordinator::Config)| {
        let mut config = fovea_coordinator::Config {
            data_dir: pki.path().join("data"),
            ..Default::default()
        };
        with(&mut config, pki.issue(Role::Coordinator, "main", 30));
        change(&mut config);
        let error = fovea_coordinator::Coordinator::open(config)
            .await
            .unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let (code, text) = start(&|config| config.tls_ca_key = other.ca_key()).await;
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("is not the key of the CA's certificate"),
        "{text}"
    );
    let (code, text) = start(&|config| config.tls_ca_key = "missing.key".into()).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("missing.key"), "{text}");
}
