//! Certificates that are refused, and certificates that are exchanged.

use std::time::{Duration, Instant};

use fovea_proto::{ChannelError, connect, connect_with};
use fovea_security::{RELOAD_EVERY, Role, TlsFiles, write_public};

use super::pki::*;
use crate::common::*;

/// The text of a connection that is refused for good.
fn reason(refused: Result<tonic::transport::Channel, ChannelError>) -> String {
    let error = refused.expect_err("it is refused");
    assert!(error.is_final(), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_certificate_has_its_own_sentence() {
    let (ours, other) = (Pki::new("eyes"), Pki::new("eyes"));
    let server = ours.server(|_| ()).await;
    let address = server.address.clone();

    // Another CA, seen by the client; and by the coordinator, when the client trusts both.
    let stranger = other.member(Role::Worker, "w");
    let text = reason(channel(&server, &stranger).await);
    assert!(
        text.contains("the coordinator's certificate is signed by another CA"),
        "{text}"
    );
    let bundle = [ours.ca(), other.ca()].map(|ca| std::fs::read_to_string(ca).unwrap());
    let both = other.path().join("both.pem");
    write_public(&both, &bundle.concat()).unwrap();
    let files = TlsFiles {
        ca: both,
        ..other.issue(Role::Worker, "w", 9)
    };
    let text = reason(channel(&server, &load(files)).await);
    assert!(
        text.contains("the coordinator does not know the CA of this certificate"),
        "{text}"
    );

    // Another cluster of the same CA.
    let pair = ours.pair_in("ears", Role::Worker, "w", 9);
    let text = reason(channel(&server, &load(ours.write("ears", &pair))).await);
    let named =
        "the coordinator is fovea://eyes/coordinator/main, of another cluster than this one (ears)";
    assert!(text.contains(named), "{text}");

    // Another program's port: a worker's certificate there.
    let files = ours.issue(Role::Worker, "false", 9);
    let mut imposter = fovea_coordinator::Config::default();
    with(&mut imposter, files);
    imposter.data_dir = ours.path().join("other");
    let error = fovea_coordinator::Coordinator::open(imposter)
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(
        text.contains("needs a certificate of a coordinator"),
        "{text}"
    );

    // Keys and address disagree.
    let worker = ours.member(Role::Worker, "w");
    let text = reason(connect_with(&format!("http://{address}"), Some(&worker), PATIENCE).await);
    assert!(text.contains("is an address without TLS"), "{text}");
    let text = reason(connect(&format!("https://{address}"), PATIENCE).await);
    assert!(text.contains("needs a certificate or a token"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_and_tls_tell_each_other_apart() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    // Plain text to TLS: the reason comes each time, however early the connection ends.
    for _ in 0..10 {
        let address = format!("http://{}", server.address);
        let text = connect(&address, PATIENCE).await.unwrap_err().to_string();
        assert!(
            text.contains("it speaks TLS; write https:// in the address"),
            "{text}"
        );
    }
    server.stop().await;

    // TLS to plain text.
    let dir = tempfile::tempdir().unwrap();
    let plain = Server::start(&dir.path().join("data"), |_| ()).await;
    let text = reason(channel(&plain, &pki.member(Role::Worker, "w")).await);
    assert!(
        text.contains(
            "is an address with TLS, and who answers there speaks plain text: write http://"
        ),
        "{text}"
    );
    plain.stop().await;

    // TLS to a coordinator whose connections are used up: the limit, not a misunderstanding.
    let full = pki
        .server(|config| config.max_connections_per_client = 1)
        .await;
    let error = channel(&full, &pki.member(Role::Worker, "w"))
        .await
        .unwrap_err();
    assert!(matches!(error, ChannelError::Limit { .. }), "{error}");
    full.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_exchanged_without_losing_a_session() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    let worker = pki.member(Role::Worker, "w");
    let mut session =
        Worker::begin_on(channel(&server, &worker).await.unwrap(), hello("w-1-a")).await;
    let served = || async {
        let stream = tokio::net::TcpStream::connect(&server.address)
            .await
            .unwrap();
        let config = worker.client_config(fovea_security::Expected::coordinator(), &[b"h2"]);
        let begun = fovea_security::begin(stream, config, "h", PATIENCE)
            .await
            .unwrap();
        let certificates = begun.get_ref().get_ref().1.peer_certificates().unwrap();
        fovea_security::CertificateInfo::read(&certificates[0])
            .unwrap()
            .until
    };
    let before = served().await;

    // A file that cannot be used changes nothing.
    let path = pki.path().join("main.pem");
    let good = std::fs::read_to_string(&path).unwrap();
    write_public(&path, "nonsense").unwrap();
    tokio::time::sleep(RELOAD_EVERY + Duration::from_secs(3)).await;
    assert_eq!(served().await, before);
    write_public(&path, &good).unwrap();

    pki.issue(Role::Coordinator, "main", 60);
    let exchanged = Instant::now();
    while served().await == before {
        assert!(
            exchanged.elapsed() < Duration::from_secs(15),
            "the old one is served still"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The session that began with the old certificate goes on.
    server
        .upload(&dataset(pki.path(), "tiny", 1))
        .await
        .unwrap();
    server.submit(spec()).await.unwrap();
    let assignment = session.assignment().await;
    assert_eq!(assignment.members[0].worker_id, "w-1-a");
    server.stop().await;
}
