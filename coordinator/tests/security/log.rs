//! What the program's log says: who has changed what, and who was turned away.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use fovea_proto::{connect, connect_pinned, connect_with, pb};
use fovea_security::{Pin, Role, Tls, TlsFiles, Token, authority, write_private};
use pb::identity_client::IdentityClient;
use pb::runs_client::RunsClient;
use pb::tokens_client::TokensClient;

use super::pki::*;
use crate::common::*;

/// A coordinator in a process of its own.
struct Process {
    child: Child,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
    address: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(pki: &Pki, files: Option<&TlsFiles>) -> Self {
        let address = pki.path().join("address");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fovea-coordinator"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOVEA_")) {
            command.env_remove(name);
        }
        if let Some(files) = files {
            command
                .env("FOVEA_TLS_CERTIFICATE", &files.certificate)
                .env("FOVEA_TLS_KEY", &files.key)
                .env("FOVEA_TLS_CA", &files.ca)
                .env("FOVEA_TLS_CA_KEY", pki.ca_key());
        }
        let mut child = command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--data-dir",
            ])
            .arg(pki.path().join("data"))
            .arg("--address-file")
            .arg(&address)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut process = Self {
            child,
            log,
            address: String::new(),
        };
        process.until("coordinator.listening");
        process.address = std::fs::read_to_string(&address).unwrap().trim().to_owned();
        process
    }

    /// Reads the log until a line has `text`.
    fn until(&mut self, text: &str) -> String {
        loop {
            let line = self
                .log
                .next()
                .unwrap_or_else(|| panic!("ended before {text:?}"))
                .unwrap();
            if line.contains(text) {
                return line;
            }
        }
    }

    async fn runs(&self, tls: Option<&Tls>) -> RunsClient<tonic::transport::Channel> {
        RunsClient::new(connect_with(&self.address, tls, PATIENCE).await.unwrap())
    }
}

fn cancel() -> pb::CancelRequest {
    pb::CancelRequest {
        run_id: "r-1".into(),
    }
}

fn has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_refusals_are_in_the_log_with_who_and_what() {
    let pki = Pki::new("eyes");
    let files = pki.issue(Role::Coordinator, "main", 2);
    let mut process = Process::start(&pki, Some(&files));
    let ann = pki.member(Role::Submitter, "ann");
    let mut runs = process.runs(Some(&ann)).await;
    runs.cancel(cancel()).await.unwrap_err();
    let line = process.until("audit.change: ");
    has(
        &line,
        &[
            "audit.change: ann (submitter) asked for Runs/Cancel of r-1: refused, NotFound",
            r#""who":"ann (submitter)""#,
            r#""method":"Runs/Cancel""#,
            r#""subject":"r-1""#,
            r#""peer":"127.0.0.1:"#,
        ],
    );
    let viewer = pki.member(Role::Viewer, "vic");
    process
        .runs(Some(&viewer))
        .await
        .cancel(cancel())
        .await
        .unwrap_err();
    let line = process.until("audit.denied: ");
    has(
        &line,
        &[
            "audit.denied: vic (viewer) asked for Runs/Cancel",
            r#""method":"Runs/Cancel""#,
        ],
    );

    // Who does not get in, with the reason. Such lines are rare, however many come.
    let stranger = Pki::new("eyes").member(Role::Worker, "w");
    connect_with(&process.address, Some(&stranger), PATIENCE)
        .await
        .unwrap_err();
    let line = process.until("connection.tls_refused: ");
    has(
        &line,
        &[
            "the client does not know the CA of this certificate",
            "127.0.0.1",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_in_the_log_by_their_ids_and_refused_ones_with_where_they_came_from() {
    let pki = Pki::new("eyes");
    let files = pki.issue(Role::Coordinator, "main", 2);
    let mut process = Process::start(&pki, Some(&files));
    let root = pki.member(Role::Admin, "root");
    let channel = connect_with(&process.address, Some(&root), PATIENCE)
        .await
        .unwrap();
    let mut tokens = TokensClient::new(channel);
    let request = pb::CreateTokenRequest {
        role: "worker".into(),
        valid_s: 600,
        ..Default::default()
    };
    let made = tokens.create(request.clone()).await.unwrap().into_inner();
    let token: Token = made.token.parse().unwrap();
    let id = token.id();
    let line = process.until("audit.change: ");
    let text =
        format!("root (admin) asked for Tokens/Create of token {id} of workers that join: done");
    has(&line, &[&text]);
    // One that is not made has no id.
    let never = pb::CreateTokenRequest {
        name: "w".into(),
        ..request
    };
    tokens.create(never).await.unwrap_err();
    has(
        &process.until("audit.change: "),
        &["Tokens/Create of ?: refused"],
    );

    let key = pki.path().join("node.key");
    write_private(&key, &authority::key().unwrap()).unwrap();
    let pin = Pin::new(token.ca_sha256());
    let stranger = connect_pinned(&process.address, &pin, PATIENCE)
        .await
        .unwrap();
    let mut identity = IdentityClient::new(stranger);
    let mut join = pb::JoinRequest {
        token: token.reveal(),
        signing_request: authority::request_for(&key).unwrap().into(),
        host: "node".into(),
    };
    let joined = identity.join(join.clone()).await.unwrap().into_inner();
    let line = process.until("audit.change: ");
    let name = &joined.name;
    let text = format!("asked for Identity/Join of worker {name} by token {id}: done");
    has(&line, &[&text, r#""peer":"127.0.0.1:"#]);

    let revoke = pb::RevokeTokenRequest { id: id.into() };
    tokens.revoke(revoke).await.unwrap();
    join.host = "other".into();
    identity.join(join).await.unwrap_err();
    let line = process.until("token.refused: ");
    has(
        &line,
        &[
            "refused 1 token, the last from 127.0.0.1 because this coordinator knows no token",
            r#""peer":"127.0.0.1:"#,
        ],
    );
    let line = process.until("audit.change: ");
    has(&line, &[&format!("Identity/Join of token {id}: refused")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_soon_is_named_and_without_identities_addresses_are() {
    let pki = Pki::new("eyes");
    let mut process = Process::start(&pki, None);
    let channel = connect(&process.address, PATIENCE).await.unwrap();
    RunsClient::new(channel).cancel(cancel()).await.unwrap_err();
    let line = process.until("audit.change: ");
    has(
        &line,
        &["audit.change: somebody at 127.0.0.1 asked for Runs/Cancel of r-1: refused, NotFound"],
    );
    drop(process);

    let now = time::OffsetDateTime::now_utc();
    let begun = now - time::Duration::days(360);
    let identity = fovea_security::Identity::new("eyes", Role::Coordinator, "main").unwrap();
    let pair = pki.issue_at(&identity, begun);
    let files = pki.write("main", &pair);
    let address = pki.path().join("address");
    let output = Command::new(env!("CARGO_BIN_EXE_fovea-coordinator"))
        .env("FOVEA_TLS_CERTIFICATE", &files.certificate)
        .env("FOVEA_TLS_KEY", &files.key)
        .env("FOVEA_TLS_CA", &files.ca)
        // A data folder that cannot be: it ends after it has read the certificate.
        .args(["--listen", "127.0.0.1:0", "--data-dir", "/dev/null/x"])
        .arg("--address-file")
        .arg(&address)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    has(
        &text,
        &["tls.ends_soon: the certificate of fovea://eyes/coordinator/main ends on"],
    );
    assert_eq!(output.status.code(), Some(4), "{text}");
}
