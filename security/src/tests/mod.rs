//! Handshakes over real sockets: who gets in, and what the others read.

mod pinned;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration as Wait;

use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::authority::{Authority, Options, Pair};
use crate::*;

const PATIENCE: Wait = Wait::from_secs(20);
const FAREWELL: &[u8] = b"plain";

/// A CA and the folder of its files.
struct Cluster {
    name: &'static str,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Cluster {
    fn new(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, pair) = Authority::create(name, now()).unwrap();
        write_public(&folder.path().join("ca.pem"), &pair.certificate).unwrap();
        write_private(&folder.path().join("ca.key"), &pair.key).unwrap();
        Self {
            name,
            folder,
            authority,
        }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn issue(&self, role: Role, name: &str, at: OffsetDateTime, days: u32) -> Pair {
        let identity = Identity::new(self.name, role, name).unwrap();
        let options = Options {
            days: Some(days),
            hosts: vec![],
        };
        self.authority.issue(&identity, &options, at).unwrap()
    }

    /// Files of a member with this pair, in a subfolder.
    fn files(&self, name: &str, pair: &Pair) -> TlsFiles {
        files(self.folder.path(), name, pair, &self.ca())
    }

    fn member(&self, role: Role, name: &str) -> Tls {
        let pair = self.issue(role, name, now(), 10);
        load(self.files(name, &pair)).unwrap()
    }
}

fn files(folder: &Path, name: &str, pair: &Pair, ca: &Path) -> TlsFiles {
    let at = |end: &str| folder.join(format!("{name}.{end}"));
    write_public(&at("pem"), &pair.certificate).unwrap();
    write_private(&at("key"), &pair.key).unwrap();
    TlsFiles {
        certificate: at("pem"),
        key: at("key"),
        ca: ca.to_owned(),
    }
}

fn load(files: TlsFiles) -> Result<Tls, TlsError> {
    Tls::load(files, "any role", |_| true)
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A handshake of both; what each got.
async fn meet(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
) -> (
    Result<Option<Identity>, Refusal>,
    Result<Option<Identity>, Refusal>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut accepted = accept(stream, server, FAREWELL).await?;
        accepted.stream.write_all(b"hi").await.unwrap();
        accepted.stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let _ = accepted.stream.read_to_end(&mut rest).await;
        Ok(accepted.peer)
    };
    let call = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let begun = begin(stream, client, "127.0.0.1", PATIENCE).await?;
        let connection = begun.get_ref().get_ref().1;
        Ok(peer_identity(connection.peer_certificates()))
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(serve, call) })
        .await
        .unwrap()
}

const PROTOCOLS: &[&[u8]] = &[b"h2"];

#[tokio::test]
async fn members_of_a_cluster_know_each_other_by_name() {
    let cluster = Cluster::new("c");
    let coordinator = cluster.member(Role::Coordinator, "main");
    for role in Role::ALL {
        let member = cluster.member(role, "ann");
        let (client, server) = meet(
            coordinator.server_config(Expected::Member, PROTOCOLS),
            member.client_config(Expected::coordinator(), PROTOCOLS),
        )
        .await;
        assert_eq!(client.unwrap(), Some(member.identity()));
        assert_eq!(server.unwrap(), Some(coordinator.identity()));
    }
}

/// Asserts that an end was refused with a text in which all of `named` are.
fn refused(end: Result<Option<Identity>, Refusal>, named: &[&str]) {
    let text = end.unwrap_err().by("PEER");
    for part in named {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn both_ends_of_a_refusal_read_the_reason() {
    let (ours, other) = (Cluster::new("c"), Cluster::new("c"));
    let coordinator = ours.member(Role::Coordinator, "main");
    let serve = || coordinator.server_config(Expected::Member, PROTOCOLS);
    let stranger = other.member(Role::Worker, "w");
    let member = ours.member(Role::Worker, "w");
    let expect = Expected::coordinator;

    // The client looks first.
    let (server, client) = meet(serve(), stranger.client_config(expect(), PROTOCOLS)).await;
    refused(
        client,
        &["PEER's certificate is signed by another CA", "tls_ca"],
    );
    refused(server, &["PEER does not know the CA of this certificate"]);

    // A client that trusts both, and is not known itself.
    let pair = other.issue(Role::Worker, "x", now(), 10);
    let both = ours.folder.path().join("both.pem");
    let bundle = [ours.ca(), other.ca()].map(|ca| std::fs::read_to_string(ca).unwrap());
    write_public(&both, &bundle.concat()).unwrap();
    let foreign = load(files(ours.folder.path(), "x", &pair, &both)).unwrap();
    let (server, client) = meet(serve(), foreign.client_config(expect(), PROTOCOLS)).await;
    refused(server, &["PEER's certificate is signed by another CA"]);
    refused(client, &["PEER does not know the CA of this certificate"]);

    // A server in another role, and one of another name.
    let worker = member.server_config(Expected::Member, PROTOCOLS);
    let (server, client) = meet(worker.clone(), member.client_config(expect(), PROTOCOLS)).await;
    refused(
        client,
        &["PEER is fovea://c/worker/w, and a coordinator was expected"],
    );
    refused(server, &["PEER does not accept this certificate"]);
    let named = Expected::WorkerProcess("v-1-2".into());
    let (_, client) = meet(worker, member.client_config(named, PROTOCOLS)).await;
    refused(client, &["and the worker of process v-1-2 was expected"]);

    // A client in another role than the server expects.
    let only = coordinator.server_config(Expected::Role(Role::Admin), PROTOCOLS);
    let (server, client) = meet(only, member.client_config(expect(), PROTOCOLS)).await;
    refused(
        server,
        &["PEER is fovea://c/worker/w, and an admin was expected"],
    );
    refused(client, &["PEER does not accept this certificate"]);

    // Of another cluster, though of the same CA.
    let identity = Identity::new("d", Role::Coordinator, "main").unwrap();
    let pair = (ours.authority)
        .issue(&identity, &Options::default(), now())
        .unwrap();
    let neighbour = load(ours.files("d", &pair)).unwrap();
    let theirs = neighbour.server_config(Expected::Member, PROTOCOLS);
    let (server, client) = meet(theirs, member.client_config(expect(), PROTOCOLS)).await;
    refused(
        client,
        &["PEER is fovea://d/coordinator/main, of another cluster than this one (c)"],
    );
    refused(server, &["PEER does not accept this certificate"]);

    // Another protocol.
    let (_, client) = meet(serve(), member.client_config(expect(), &[b"other"])).await;
    refused(client, &["PEER speaks another protocol"]);
}

/// The rustls configuration of a client whose files `Tls` would refuse.
fn unchecked(cluster: &Cluster, pair: Option<&Pair>) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let member = cluster.member(Role::Worker, "helper");
    let config = member.client_config(Expected::coordinator(), PROTOCOLS);
    let mut config = Arc::unwrap_or_clone(config);
    config.client_auth_cert_resolver = match pair {
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
            let certified = rustls::sign::CertifiedKey::new(chain, key);
            Arc::new(rustls::sign::SingleCertAndKey::from(certified))
        }
        None => Arc::new(Nobody),
    };
    config
}

#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn certificates_that_are_out_of_date_or_missing_are_refused_by_the_other_end() {
    let cluster = Cluster::new("c");
    let coordinator = cluster.member(Role::Coordinator, "main");
    let expired = cluster.issue(Role::Worker, "w", now() - Duration::days(9), 2);
    let early = cluster.issue(Role::Worker, "w", now() + Duration::days(9), 2);
    for (pair, at_server, at_client) in [
        (
            Some(&expired),
            "PEER's certificate has expired on ",
            "is out of date",
        ),
        (
            Some(&early),
            "PEER's certificate is not valid yet, but from ",
            "is out of date",
        ),
        (
            None,
            "PEER showed no certificate",
            "PEER demands a certificate",
        ),
    ] {
        let client = Arc::new(unchecked(&cluster, pair));
        let server = coordinator.server_config(Expected::Member, PROTOCOLS);
        let (server, client) = meet(server, client).await;
        refused(server, &[at_server]);
        refused(client, &[at_client]);
    }
}

#[test]
fn files_that_peers_would_refuse_are_refused_at_once() {
    let (ours, other) = (Cluster::new("c"), Cluster::new("c"));
    let pair = |at, days| ours.issue(Role::Worker, "w", at, days);
    let good = pair(now(), 5);
    let strange = other.issue(Role::Worker, "w", now(), 5);
    let mixed = Pair {
        key: strange.key.clone(),
        ..good.clone()
    };
    let authority = Pair {
        certificate: std::fs::read_to_string(ours.ca()).unwrap(),
        key: std::fs::read_to_string(ours.folder.path().join("ca.key")).unwrap(),
    };
    for (pair, named) in [
        (&pair(now() - Duration::days(9), 2), "it has expired on "),
        (
            &pair(now() + Duration::days(9), 2),
            "it is not valid before ",
        ),
        (&strange, "it is signed by none of the CAs in tls_ca"),
        (&mixed, "it is not the key of tls_certificate"),
        (&authority, "it has no URI fovea://CLUSTER/ROLE/NAME"),
    ] {
        let error = load(ours.files("w", pair)).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
        assert!(error.contains("w."), "{error}");
    }
    let files = ours.files("w", &good);
    let error = Tls::load(files.clone(), "a coordinator", |role| {
        role == Role::Coordinator
    });
    let error = error.unwrap_err().to_string();
    let named = "it is fovea://c/worker/w, and this program needs a certificate of a coordinator";
    assert!(error.contains(named), "{error}");
    assert!(load(files).is_ok());
}

#[tokio::test]
async fn plain_text_is_told_apart_in_both_directions() {
    let cluster = Cluster::new("c");
    let member = cluster.member(Role::Worker, "w");
    // A client that speaks HTTP/2 in clear reads the farewell.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let config = member.server_config(Expected::Member, PROTOCOLS);
        accept(stream, config, FAREWELL).await.map(|a| a.peer)
    };
    let call = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        got
    };
    let (served, got) = tokio::join!(serve, call);
    refused(served, &["PEER speaks plain text, and TLS was expected"]);
    assert_eq!(got, FAREWELL);

    // A server that speaks HTTP/2 in clear, and one that says why it hangs up.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0].to_vec();
    let mut goodbye = settings.clone();
    goodbye.extend([0, 0, 11, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]);
    goodbye.extend(b"why");
    for (answer, named) in [
        (settings, "PEER speaks plain text"),
        (goodbye, "PEER answered in plain text: why"),
    ] {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&answer).await.unwrap();
            let mut rest = [0; 4096];
            while matches!(stream.read(&mut rest).await, Ok(1..)) {}
        };
        let call = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let config = member.client_config(Expected::Member, PROTOCOLS);
            let refusal = begin(stream, config, "h", PATIENCE).await.unwrap_err();
            assert!(refusal.is_final());
            refusal.by("PEER")
        };
        let ((), text) = tokio::join!(serve, call);
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn a_request_gets_the_identity_that_the_authority_chooses_and_nothing_else() {
    let cluster = Cluster::new("c");
    let identity = Identity::new("c", Role::Worker, "w").unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut greedy = rcgen::CertificateParams::default();
    let admin = "fovea://c/admin/root".try_into().unwrap();
    greedy.subject_alt_names.push(rcgen::SanType::URI(admin));
    let wanted = greedy.serialize_request(&key).unwrap();
    let signed = (cluster.authority)
        .sign_request(wanted.der(), &identity, &Options::default(), now())
        .unwrap();
    let pair = Pair {
        certificate: signed,
        key: key.serialize_pem(),
    };
    let member = load(cluster.files("w", &pair)).unwrap();
    assert_eq!(member.identity(), identity);
    assert!(!member.certificate().is_ca);

    let path = cluster.folder.path().join("new.key");
    write_private(&path, &authority::key().unwrap()).unwrap();
    let mut request = authority::request_for(&path).unwrap();
    let sign = |request: &[u8]| {
        let options = Options::default();
        cluster
            .authority
            .sign_request(request, &identity, &options, now())
    };
    assert!(sign(&request).is_ok());
    let last = request.len() - 1;
    request[last] ^= 1;
    let error = sign(&request).unwrap_err().to_string();
    assert!(error.contains("signing request cannot be used"), "{error}");
}

#[test]
fn an_authority_is_read_from_its_own_files_only_and_signs_for_no_longer_than_it_lives() {
    let (ours, other) = (Cluster::new("c"), Cluster::new("c"));
    let key = |cluster: &Cluster| cluster.folder.path().join("ca.key");
    let read = |ca: &Path, key: &Path, at| Authority::read(ca, key, at).map(|_| ());
    assert!(read(&ours.ca(), &key(&ours), now()).is_ok());
    let text = read(&ours.ca(), &key(&other), now())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("it is not the key of the CA's certificate"),
        "{text}"
    );
    let late = now() + Duration::days(4000);
    let text = read(&ours.ca(), &key(&ours), late).unwrap_err().to_string();
    assert!(text.contains("this CA has expired on"), "{text}");
    let pair = ours.issue(Role::Admin, "a", now(), 5);
    let leaf = ours.files("a", &pair);
    let text = read(&leaf.certificate, &leaf.key, now())
        .unwrap_err()
        .to_string();
    assert!(text.contains("it is not the certificate of a CA"), "{text}");
    let long = ours.issue(Role::Admin, "b", now(), 9000);
    let leaf = ours.files("b", &long);
    let left = load(leaf).unwrap().certificate().left(now());
    assert!(left <= Duration::days(3650), "{left}");
}

#[tokio::test(start_paused = true)]
async fn new_files_are_used_and_unusable_ones_are_not() {
    let cluster = Cluster::new("c");
    let first = cluster.issue(Role::Worker, "w", now(), 10);
    let files = cluster.files("w", &first);
    let tls = load(files.clone()).unwrap();
    let task = tokio::spawn(tls.clone().reload());
    let serial = |tls: &Tls| tls.certificate().until;
    let begun = serial(&tls);
    let look = || tokio::time::sleep(RELOAD_EVERY * 2);
    look().await;

    // A key without its certificate, another identity, and a file that is gone.
    let second = cluster.issue(Role::Worker, "w", now(), 20);
    write_private(&files.key, &second.key).unwrap();
    look().await;
    assert_eq!(serial(&tls), begun);
    let renamed = cluster.issue(Role::Worker, "v", now(), 30);
    cluster.files("w", &renamed);
    look().await;
    assert_eq!(serial(&tls), begun);
    std::fs::remove_file(&files.certificate).unwrap();
    look().await;
    assert_eq!(serial(&tls), begun);

    cluster.files("w", &second);
    for _ in 0..100 {
        look().await;
        if serial(&tls) > begun {
            break;
        }
    }
    assert!(serial(&tls) > begun);
    assert!(!task.is_finished());
    task.abort();
}
