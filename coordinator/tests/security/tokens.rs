//! Tokens of people: whom they stand for, for how long, and who is refused with one.

use std::time::Instant;

use fovea_proto::{connect, connect_pinned, pb};
use fovea_security::{Pin, Role, Token, TokenKind};
use pb::identity_client::IdentityClient;
use pb::runs_client::RunsClient;
use pb::tokens_client::TokensClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::pki::*;
use crate::common::*;

/// Asks for a token as the server's admin.
pub async fn create(
    server: &Server,
    role: &str,
    name: &str,
    uses: u32,
) -> Result<(Token, pb::TokenInfo), Status> {
    let request = pb::CreateTokenRequest {
        role: role.into(),
        name: name.into(),
        valid_s: 600,
        uses,
    };
    create_with(server, request).await
}

async fn create_with(
    server: &Server,
    request: pb::CreateTokenRequest,
) -> Result<(Token, pb::TokenInfo), Status> {
    let mut tokens = TokensClient::new(server.channel.clone());
    let reply = tokens.create(request).await?.into_inner();
    Ok((reply.token.parse().unwrap(), reply.info.unwrap()))
}

/// A channel of somebody without a certificate.
pub async fn stranger(server: &Server, token: &Token) -> Channel {
    let pin = Pin::new(token.ca_sha256());
    connect_pinned(&server.address, &pin, PATIENCE)
        .await
        .unwrap()
}

type Bearer = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send>;

/// The same, with this text in the header of each request.
fn with(channel: Channel, header: &str) -> InterceptedService<Channel, Bearer> {
    let value: AsciiMetadataValue = header.parse().unwrap();
    let bearer: Bearer = Box::new(move |mut request| {
        request
            .metadata_mut()
            .insert("authorization", value.clone());
        Ok(request)
    });
    InterceptedService::new(channel, bearer)
}

async fn bearer(server: &Server, token: &Token) -> InterceptedService<Channel, Bearer> {
    let header = format!("Bearer {}", token.reveal());
    with(stranger(server, token).await, &header)
}

async fn list(server: &Server, token: &Token) -> Result<(), Status> {
    let mut runs = RunsClient::new(bearer(server, token).await);
    let request = pb::ListRunsRequest::default();
    runs.list(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_stands_for_its_person_also_after_a_restart_until_it_is_revoked() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    server
        .upload(&dataset(pki.path(), "tiny", 1))
        .await
        .unwrap();
    let (ann, info) = create(&server, "submitter", "ann", 0).await.unwrap();
    let (vic, _) = create(&server, "viewer", "vic", 0).await.unwrap();
    assert_eq!(info.created_by, "root");
    assert_eq!(info.expires_at_ms - info.created_at_ms, 600_000);

    let mut identity = IdentityClient::new(bearer(&server, &ann).await);
    let shown = identity.show(pb::ShowIdentityRequest {}).await.unwrap();
    let expected = pb::ShowIdentityResponse {
        cluster: "eyes".into(),
        role: "submitter".into(),
        name: "ann".into(),
        token_id: info.id.clone(),
        token_expires_at_ms: info.expires_at_ms,
    };
    assert_eq!(shown.into_inner(), expected);
    let submit = async |token: &Token| {
        let mut runs = RunsClient::new(bearer(&server, token).await);
        let spec = Some(spec());
        runs.submit(pb::SubmitRequest { spec }).await
    };
    let run = submit(&ann).await.unwrap().into_inner().run.unwrap();
    assert_eq!(run.submitted_by, "ann");
    let named = "vic (viewer, token ";
    refused(submit(&vic).await, Code::PermissionDenied, named);
    let mut tokens = TokensClient::new(bearer(&server, &ann).await);
    let more = tokens.list(pb::ListTokensRequest {}).await;
    refused(more, Code::PermissionDenied, "a token of an admin");

    server.kill().await;
    let server = pki.server(|_| ()).await;
    list(&server, &ann).await.unwrap();
    let mut tokens = TokensClient::new(server.channel.clone());
    let shown = tokens.list(pb::ListTokensRequest {}).await.unwrap();
    let mut shown = shown.into_inner().tokens;
    // Both may have been made in the same millisecond.
    shown.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<&str> = shown.iter().map(|token| &*token.name).collect();
    assert_eq!(names, ["ann", "vic"]);
    assert!(shown[0].last_used_at_ms > 0 && shown[1].last_used_at_ms == 0);

    let id = ann.id().to_owned();
    let revoke = pb::RevokeTokenRequest { id };
    tokens.revoke(revoke.clone()).await.unwrap();
    let text = format!("knows no token {}: it was revoked", ann.id());
    refused(list(&server, &ann).await, Code::Unauthenticated, &text);
    let again = tokens.revoke(revoke).await;
    refused(again, Code::NotFound, "fovea token list");
    list(&server, &vic).await.unwrap();
    server.kill().await;
    let server = pki.server(|_| ()).await;
    refused(list(&server, &ann).await, Code::Unauthenticated, &text);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_and_says_so() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    let request = pb::CreateTokenRequest {
        role: "viewer".into(),
        name: "vic".into(),
        valid_s: 1,
        uses: 0,
    };
    let (token, _) = create_with(&server, request).await.unwrap();
    let begun = Instant::now();
    let ended = loop {
        match list(&server, &token).await {
            Ok(()) => assert!(begun.elapsed() < PATIENCE, "it never ends"),
            Err(status) => break status,
        }
    };
    let named = format!("token {} has expired on ", token.id());
    refused::<()>(Err(ended), Code::Unauthenticated, &named);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_of_a_person_is_refused_with_its_own_sentence() {
    let pki = Pki::new("eyes");
    let server = pki.server(|config| config.tls_ca_key = pki.ca_key()).await;
    let (ann, _) = create(&server, "admin", "ann", 0).await.unwrap();
    let (join, _) = create(&server, "worker", "", 0).await.unwrap();
    let text = ann.reveal();
    let (wrong, digit) = text.split_at(text.len() - 1);
    let digit = if digit == "0" { "1" } else { "0" };
    let unknown = Token::create(TokenKind::Person, ann.ca_sha256()).unwrap();
    let known_as_person = join.reveal().replacen("fvj1", "fvt1", 1);
    for (header, named) in [
        (String::new(), "the header authorization"),
        ("Basic YTpi".to_owned(), "the header authorization"),
        ("Bearer nonsense".to_owned(), "is not a token of Fovea"),
        (format!("Bearer {wrong}{digit}"), "the secret of token"),
        (format!("Bearer {}", unknown.reveal()), "knows no token"),
        (
            format!("Bearer {}", join.reveal()),
            "is for workers that join",
        ),
        (
            format!("Bearer {known_as_person}"),
            "is for workers that join",
        ),
    ] {
        let channel = stranger(&server, &ann).await;
        let mut runs = RunsClient::new(with(channel, &header));
        let answer = runs.list(pb::ListRunsRequest::default()).await;
        refused(answer, Code::Unauthenticated, named);
    }
    let mut nobody = RunsClient::new(stranger(&server, &ann).await);
    let answer = nobody.list(pb::ListRunsRequest::default()).await;
    refused(
        answer,
        Code::Unauthenticated,
        "a certificate or a token is needed",
    );
    // A certificate counts, whatever the header says.
    let vic = channel(&server, &pki.member(Role::Viewer, "vic"))
        .await
        .unwrap();
    let mut identity = IdentityClient::new(with(vic, &format!("Bearer {}", ann.reveal())));
    let shown = identity.show(pb::ShowIdentityRequest {}).await.unwrap();
    assert_eq!(shown.into_inner().name, "vic");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_cannot_be_are_not_made() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    let good = pb::CreateTokenRequest {
        role: "viewer".into(),
        name: "vic".into(),
        valid_s: 60,
        uses: 0,
    };
    type Change = fn(&mut pb::CreateTokenRequest);
    let cases: [(Change, Code, &str); 8] = [
        (|r| r.role = "root".into(), Code::InvalidArgument, "role:"),
        (
            |r| r.role = "coordinator".into(),
            Code::InvalidArgument,
            "fovea certs issue",
        ),
        (|r| r.name = String::new(), Code::InvalidArgument, "name:"),
        (|r| r.name = "a b".into(), Code::InvalidArgument, "name:"),
        (|r| r.valid_s = 0, Code::InvalidArgument, "valid_s: is 0"),
        (|r| r.valid_s = 1 << 40, Code::InvalidArgument, "366 days"),
        (|r| r.uses = 3, Code::InvalidArgument, "uses:"),
        (
            |r| (r.role, r.name) = ("worker".into(), String::new()),
            Code::FailedPrecondition,
            "tls_ca_key",
        ),
    ];
    for (change, code, named) in cases {
        let mut request = good.clone();
        change(&mut request);
        refused(create_with(&server, request).await, code, named);
    }
    assert!(create_with(&server, good.clone()).await.is_ok());
    server.stop().await;

    let server = pki.server(|config| config.tokens = false).await;
    let off = create_with(&server, good.clone()).await;
    refused(off, Code::FailedPrecondition, "`tokens` is false");
    // And nobody comes so far without a certificate.
    let pin = Pin::new(&pki.member(Role::Viewer, "v").ca_sha256().unwrap());
    let error = connect_pinned(&server.address, &pin, PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("demands a certificate"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_travels_in_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), |_| ()).await;
    let made = create(&server, "viewer", "vic", 0).await;
    refused(made, Code::FailedPrecondition, "has no TLS");
    let token = Token::create(TokenKind::Person, &"0".repeat(64)).unwrap();
    let channel = connect(&server.address, PATIENCE).await.unwrap();
    let mut runs = RunsClient::new(with(channel, &format!("Bearer {}", token.reveal())));
    let answer = runs.list(pb::ListRunsRequest::default()).await;
    refused(answer, Code::Unauthenticated, "in plain text");
    let address = format!("http://{}", server.address);
    let error = connect_pinned(&address, &Pin::new(token.ca_sha256()), PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("must not be sent in plain text"), "{error}");
    server.stop().await;
}
