//! Who gets in at a worker's port for peers, and what the others read.

use std::io::Write;
use std::sync::mpsc;
use std::time::Instant;

use fovea_core::ids::WorkerId;
use fovea_core::roster::Roster;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::super::{Mesh, MeshKey, Waiting};
use super::*;
use crate::certificates::Certificates;
use crate::testing::{PATIENCE, collect_log, logged, runtime, wait_until};

const KEY: MeshKey = [9; 16];
const GREETING: Greeting = Greeting { key: KEY, rank: 1 };

/// A worker's port for peers. The runtime and its tasks end with it.
struct Port {
    mesh: Mesh,
    runtime: Runtime,
    _tasks: JoinSet<()>,
}

impl Port {
    fn open(tls: Option<Tls>) -> Self {
        let runtime = runtime();
        let mut tasks = JoinSet::new();
        let mesh = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Mesh::start(listener, tls, &mut tasks).unwrap()
        });
        Self {
            mesh,
            runtime,
            _tasks: tasks,
        }
    }

    fn address(&self) -> String {
        self.mesh.address().to_string()
    }

    /// A call with this certificate for the worker `worker`.
    fn called(&self, tls: Option<&Tls>, worker: &str) -> Result<Called, GreetingError> {
        let address = self.address();
        let called = call(tls, &address, worker, GREETING, PATIENCE);
        self.runtime.block_on(called)
    }

    fn probed(&self, tls: Option<&Tls>, worker: &str) -> Result<(), GreetingError> {
        let address = self.address();
        let probed = probe(tls, &address, worker, PATIENCE);
        self.runtime.block_on(probed)
    }

    /// Asserts that neither a call nor a probe gets in, with the same reason.
    fn refuses(&self, tls: Option<&Tls>, worker: &str, named: &str) {
        let call = self.called(tls, worker).map(drop).unwrap_err();
        let probe = self.probed(tls, worker).unwrap_err();
        for error in [call, probe] {
            let text = error.to_string();
            assert!(text.contains(named), "{named}: {text}");
        }
    }
}

fn roster(members: &[(&str, String)]) -> Roster {
    let members: Vec<_> = members
        .iter()
        .map(|(id, address)| (WorkerId::new(*id).unwrap(), address.clone()))
        .collect();
    Roster::deal(1, &members, members.len() as u32, 0)
}

/// Two members of a generation meet by their certificates, with the key inside.
#[test]
fn members_meet_under_tls() {
    let certificates = Certificates::create();
    let ports: Vec<Port> = (0..3)
        .map(|i| Port::open(Some(certificates.worker(&format!("w{i}")))))
        .collect();
    let address = |i: usize| ports[i].address();
    let roster = roster(&[
        ("w0-1-a", address(0)),
        ("w1-1-b", address(1)),
        ("w2-1-c", address(2)),
    ]);
    std::thread::scope(|scope| {
        let roster = &roster;
        let meet = |rank: usize| {
            let port = &ports[rank];
            scope.spawn(move || {
                let waiting = Waiting::default();
                let mesh = &port.mesh;
                mesh.connect(roster, KEY, rank, PATIENCE, &|| false, &waiting)
                    .unwrap()
            })
        };
        let meeting: Vec<_> = (0..3).map(meet).collect();
        // One that hangs up before all have met would be called again.
        let met: Vec<_> = meeting.into_iter().map(|m| m.join().unwrap()).collect();
        for (rank, met) in met.into_iter().enumerate() {
            for (peer, channel) in met.into_iter().enumerate() {
                assert_eq!(channel.is_some(), peer != rank);
                let Some(mut channel) = channel else { continue };
                let shown = channel.connection().peer_certificates();
                let identity = fovea_security::peer_identity(shown).unwrap();
                assert_eq!(identity.name(), format!("w{peer}"));
            }
        }
    });
    let tls = certificates.worker("w1");
    ports[0].probed(Some(&tls), "w0-1-a").unwrap();
}

/// The run's key alone opens nothing, and neither does a certificate alone.
#[test]
fn nobody_takes_a_members_place() {
    collect_log();
    let (certificates, other) = (Certificates::create(), Certificates::create());
    let port = Port::open(Some(certificates.worker("w0")));
    let roster = roster(&[("w0-1-a", port.address()), ("w1-1-b", "127.0.0.1:1".into())]);
    let waiting = Waiting::default();
    let (end, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        let (port, roster, waiting) = (&port, &roster, &waiting);
        scope.spawn(move || {
            let met = (port.mesh).connect(roster, KEY, 0, PATIENCE, &|| false, waiting);
            end.send(met).unwrap();
        });
        wait_until("waiting", || waiting.on() == Some(1));
        // In plain text with the right greeting.
        port.refuses(None, "w0-1-a", "speaks TLS only, and this one plain text");
        // With the certificate of another cluster's CA that has the right name.
        port.refuses(
            Some(&other.worker("w1")),
            "w0-1-a",
            "certificate is signed by another CA",
        );
        // Of a person.
        let person = certificates.tls(Role::Submitter, "w1");
        port.refuses(
            Some(&person),
            "w0-1-a",
            "the worker there does not accept this certificate",
        );
        // Of another worker: that it is let in shows only when a generation claims it.
        let stranger = certificates.worker("w2");
        let _channel = port.called(Some(&stranger), "w0-1-a").unwrap();
        wait_until("the refusal", || {
            logged("peer.refused: fovea://c/worker/w2 called as rank 1, which is w1-1-b")
        });
        // One whose name begins with the member's.
        let longer = certificates.worker("w1-1");
        let _channel = port.called(Some(&longer), "w0-1-a").unwrap();
        wait_until("the refusal", || {
            logged("peer.refused: fovea://c/worker/w1-1 called as rank 1")
        });
        assert!(ended.try_recv().is_err(), "somebody got in");
        let member = certificates.worker("w1");
        let _channel = port.called(Some(&member), "w0-1-a").unwrap();
        let mut channels = ended.recv_timeout(PATIENCE).unwrap().unwrap();
        let channel = channels[1].as_mut().expect("rank 1");
        let shown = channel.connection().peer_certificates();
        let identity = fovea_security::peer_identity(shown).unwrap();
        assert_eq!(identity.name(), "w1");
    });
}

/// Another worker listens at a member's address: it does not learn the run's key.
#[test]
fn the_caller_refuses_a_worker_of_another_name() {
    let certificates = Certificates::create();
    let port = Port::open(Some(certificates.worker("w5")));
    port.refuses(
        Some(&certificates.worker("w1")),
        "w0-1-a",
        "the worker there is fovea://c/worker/w5, and the worker of process w0-1-a was expected",
    );
}

#[test]
fn the_protocol_is_part_of_the_handshake() {
    let certificates = Certificates::create();
    let port = Port::open(Some(certificates.worker("w0")));
    let tls = certificates.worker("w1");
    for protocols in [&[&b"h2"[..]][..], &[]] {
        let config = tls.client_config(Expected::Member, protocols);
        let begun = port.runtime.block_on(async {
            let stream = TcpStream::connect(port.address()).await.unwrap();
            let mut begun = begin(stream, config, NAME, PATIENCE).await?;
            let greeted = begun.write_all(&GREETING.bytes()).await;
            greeted.map_err(GreetingError::Io)?;
            begun.flush().await?;
            answered(&mut begun, MAGIC).await?;
            // It is not kept: the next byte is the end.
            let rest = begun.read(&mut [0]).await;
            assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
            Err::<(), _>(GreetingError::NotAPeer)
        });
        assert!(begun.is_err());
    }
}

#[test]
fn each_end_says_that_tls_and_plain_text_do_not_mix() {
    collect_log();
    let certificates = Certificates::create();
    let (tls, caller) = (certificates.worker("w0"), certificates.worker("w1"));
    let both = "tls_certificate, tls_key and tls_ca, or neither";
    let refused = "peer.refused: refused 1 connection on the port for workers, the last from ";

    let port = Port::open(None);
    port.refuses(
        Some(&caller),
        "w0-1-a",
        "there speaks plain text, and TLS was",
    );
    port.refuses(Some(&caller), "w0-1-a", both);
    wait_until("the log", || {
        logged(refused) && logged("there speaks TLS only")
    });
    // The address is named where the whole generation fails.
    let roster = roster(&[("w0-1-a", port.address()), ("w1-1-b", "127.0.0.1:1".into())]);
    let me = Port::open(Some(caller));
    let deadline = Duration::from_millis(300);
    let met = (me.mesh).connect(&roster, KEY, 1, deadline, &|| false, &Waiting::default());
    let address = port.address();
    assert!(met.unwrap_err().to_string().contains(&address));
    assert!(logged(&format!(
        "peer.unreachable: cannot connect to w0-1-a at {address}: the worker there speaks plain text, and TLS was expected"
    )));

    let port = Port::open(Some(tls));
    port.refuses(None, "w0-1-a", "speaks TLS only, and this one plain text");
    port.refuses(None, "w0-1-a", both);
    wait_until("the log", || {
        logged("the worker there speaks plain text, and TLS was expected; give both ends")
    });
    let met = (Port::open(None).mesh).connect(
        &self::roster(&[("w0-1-a", port.address()), ("w1-1-b", "127.0.0.1:1".into())]),
        KEY,
        1,
        deadline,
        &|| false,
        &Waiting::default(),
    );
    let address = port.address();
    assert!(met.unwrap_err().to_string().contains(&address));
    assert!(logged(&format!(
        "peer.unreachable: cannot connect to w0-1-a at {address}: the worker there speaks TLS only"
    )));
}

/// Whoever connects and says nothing, or not all, does not keep a member waiting.
#[test]
fn silent_connections_keep_nobody_out() {
    let certificates = Certificates::create();
    let port = Port::open(Some(certificates.worker("w0")));
    let mut silent = Vec::new();
    for i in 0..400 {
        let mut stream = std::net::TcpStream::connect(port.address()).unwrap();
        if i % 2 == 0 {
            // The begin of a handshake.
            stream.write_all(&[HANDSHAKE, 3, 1, 2, 0, 1]).unwrap();
        }
        silent.push(stream);
    }
    let begun = Instant::now();
    port.probed(Some(&certificates.worker("w1")), "w0-1-a")
        .unwrap();
    // The time is tested: less than the deadline of those that say nothing.
    assert!(begun.elapsed() < Duration::from_secs(4));
}
