//! Meeting, missing and probing peers over loopback.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use fovea_core::ids::WorkerId;
use tokio::runtime::Runtime;

use super::super::{Collective, TcpCollective, list};
use super::*;
use crate::certificates::Certificates;
use crate::testing::{PATIENCE, closed, collect_log, logged, wait_until};

const KEY: MeshKey = [7; 16];

/// A worker's port for peers. The runtime and its tasks end with it.
struct Port {
    mesh: Mesh,
    runtime: Runtime,
    _tasks: JoinSet<()>,
}

impl Port {
    fn open(unclaimed: Duration) -> Self {
        Self::open_at("127.0.0.1:0", unclaimed)
    }

    fn open_at(listen: &str, unclaimed: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind(listen)).unwrap();
        let mut tasks = JoinSet::new();
        let entered = runtime.enter();
        let mesh = Mesh::start_dropping_after(unclaimed, listener, None, &mut tasks).unwrap();
        drop(entered);
        Self {
            mesh,
            runtime,
            _tasks: tasks,
        }
    }

    fn address(&self) -> String {
        self.mesh.address().to_string()
    }

    fn connect(
        &self,
        roster: &Roster,
        key: MeshKey,
        rank: usize,
        deadline: Duration,
        waiting: &Waiting,
    ) -> Result<Vec<Option<Channel>>, CollectiveError> {
        (self.mesh).connect(roster, key, rank, deadline, &|| false, waiting)
    }

    fn probe(&self, address: &str, deadline: Duration) -> Result<(), GreetingError> {
        let member = &roster(&[address.to_owned()]).members[0];
        self.runtime.block_on(self.mesh.probe(member, deadline))
    }
}

fn roster(addresses: &[String]) -> Roster {
    let workers: Vec<_> = addresses
        .iter()
        .enumerate()
        .map(|(i, address)| (WorkerId::new(format!("w{i}")).unwrap(), address.clone()))
        .collect();
    Roster::deal(1, &workers, workers.len() as u32, 0)
}

/// Calls a worker's port, as rank `rank`.
fn call(address: &str, key: MeshKey, rank: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let rank = (rank as u32).to_le_bytes();
    (stream.write_all(&[&b"fovea-m3"[..], &key, &rank].concat())).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"fovea-m3");
    stream
}

/// The other side's generation takes the call.
fn claimed(mut stream: &TcpStream) {
    let mut claim = [0; 8];
    stream.read_exact(&mut claim).unwrap();
    assert_eq!(&claim, b"fovea-c3");
}

/// Until the other side closes; an error if it does not in time.
fn closed_by_peer(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("it sent something")),
    }
}

#[test]
fn peers_meet_in_any_order() {
    let ports: Vec<Port> = (0..3).map(|_| Port::open(UNCLAIMED)).collect();
    let addresses: Vec<String> = ports.iter().map(Port::address).collect();
    let roster = roster(&addresses);
    let waiting: Vec<Waiting> = ports.iter().map(|_| Waiting::default()).collect();
    std::thread::scope(|scope| {
        let start = |rank: usize| {
            let (port, roster, waiting) = (&ports[rank], &roster, &waiting[rank]);
            scope.spawn(move || port.connect(roster, KEY, rank, PATIENCE, waiting))
        };
        // The last and the first wait for the one between.
        let mut meeting = vec![start(0), start(2)];
        wait_until("0 waits", || waiting[0].on() == Some(1));
        meeting.push(start(1));
        // All are kept until the last has met the others: who hangs up is missing.
        let met: Vec<_> = meeting
            .into_iter()
            .map(|met| met.join().unwrap().unwrap())
            .collect();
        for (rank, streams) in [0, 2, 1].into_iter().zip(&met) {
            for (peer, stream) in streams.iter().enumerate() {
                assert_eq!(stream.is_some(), peer != rank);
            }
            assert_eq!(waiting[rank].on(), None);
        }
    });
}

#[test]
fn peers_meet_over_ipv6() {
    let ports: Vec<Port> = (0..2)
        .map(|_| Port::open_at("[::1]:0", UNCLAIMED))
        .collect();
    let addresses: Vec<String> = ports.iter().map(Port::address).collect();
    assert!(
        addresses
            .iter()
            .all(|address| address.starts_with("[::1]:"))
    );
    let roster = roster(&addresses);
    std::thread::scope(|scope| {
        let meet = |rank: usize| {
            let (port, roster) = (&ports[rank], &roster);
            scope.spawn(move || port.connect(roster, KEY, rank, PATIENCE, &Waiting::default()))
        };
        let met = [meet(0), meet(1)].map(|met| met.join().unwrap().unwrap());
        let mut sent = met[0][1].as_ref().expect("rank 1").socket();
        let mut received = met[1][0].as_ref().expect("rank 0").socket();
        sent.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        received.set_nonblocking(false).unwrap();
        received.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    });
    // As a worker asks before it joins, and while it waits.
    ports[0].probe(&addresses[1], PATIENCE).unwrap();
}

#[test]
fn all_that_are_missing_are_listed() {
    collect_log();
    let ports: Vec<Port> = (0..3).map(|_| Port::open(UNCLAIMED)).collect();
    let [first, me, last] = [0, 1, 2].map(|i| ports[i].address());
    // By rank: not reachable, present, not reachable, me, does not call, present, does not call.
    let roster = roster(&[closed(), first, closed(), me, closed(), last, closed()]);
    let lost = [0, 2, 4, 6].map(|rank: usize| Unreached {
        worker: format!("w{rank}"),
        address: roster.members[rank].address.clone(),
    });
    let waiting = Waiting::default();
    let caller = std::thread::scope(|scope| {
        let met = scope.spawn(|| {
            let deadline = Duration::from_millis(600);
            ports[1].connect(&roster, KEY, 3, deadline, &waiting)
        });
        // Rank 5's part, as far as it concerns this one.
        let caller = call(&roster.members[3].address, KEY, 5);
        wait_until("waiting for the first", || waiting.on() == Some(0));
        let before = waiting.polls();
        wait_until("looking up", || waiting.polls() > before + 1);
        let error = met.join().unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no connection with {} within 600ms", list(&lost))
        );
        caller
    });
    assert_eq!(waiting.on(), None);
    let first = format!("peer.unreachable: cannot connect to {}: ", lost[0]);
    let last = format!("peer.unreachable: {} has not connected", lost[3]);
    assert!(logged(&first) && logged(&last));
    // Those present learn of it by their connections.
    claimed(&caller);
    closed_by_peer(&caller).unwrap();
}

/// A peer whose device is busy for longer than the deadline is reachable all the while.
#[test]
fn one_that_is_there_but_calls_late_is_waited_for() {
    use std::io::{Read, Write};
    let me = Port::open(UNCLAIMED);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let roster = roster(&[me.address(), busy.local_addr().unwrap().to_string()]);
    let waiting = Waiting::default();
    let deadline = Duration::from_millis(100);
    std::thread::scope(|scope| {
        let met = scope.spawn(|| me.connect(&roster, KEY, 0, deadline, &waiting));
        // It is asked whether it is there: the deadline has passed.
        let (mut probe, _) = busy.accept().unwrap();
        let mut question = [0; 8];
        probe.read_exact(&mut question).unwrap();
        probe.write_all(&question).unwrap();
        let _caller = call(&roster.members[0].address, KEY, 1);
        let streams = met.join().unwrap().unwrap();
        assert!(streams[1].is_some());
    });
}

/// As one that fetches its data does, for longer than its port keeps a call: its peers are no further before it comes.
#[test]
fn who_calls_one_that_is_busy_waits_until_its_generation_claims_the_call() {
    let ports = [
        Port::open(Duration::from_millis(50)),
        Port::open(UNCLAIMED),
        Port::open(UNCLAIMED),
    ];
    let addresses: Vec<String> = ports.iter().map(Port::address).collect();
    let roster = roster(&addresses);
    let waiting: Vec<Waiting> = ports.iter().map(|_| Waiting::default()).collect();
    std::thread::scope(|scope| {
        let start = |rank: usize| {
            let (port, roster, waiting) = (&ports[rank], &roster, &waiting[rank]);
            scope.spawn(move || port.connect(roster, KEY, rank, PATIENCE, waiting))
        };
        let callers = [start(1), start(2)];
        // Calls are dropped, and others come.
        for _ in 0..3 {
            wait_until("a call", || !ports[0].mesh.arrivals().is_empty());
            wait_until("its end", || ports[0].mesh.arrivals().is_empty());
        }
        for (rank, caller) in (1..).zip(&callers) {
            // To the coordinator it is one that waits.
            assert_eq!(waiting[rank].on(), Some(0));
            let before = waiting[rank].polls();
            wait_until("looking up", || waiting[rank].polls() > before + 1);
            assert!(!caller.is_finished());
        }
        let first = start(0);
        let met = callers.into_iter().chain([first]);
        let mut met: Vec<_> = met.map(|met| met.join().unwrap().unwrap()).collect();
        for (rank, channels) in [1, 2, 0].into_iter().zip(&mut met) {
            for (peer, channel) in channels.iter_mut().enumerate() {
                let is_open = channel.as_mut().is_some_and(Channel::is_open);
                assert_eq!(is_open, peer != rank, "{rank} and {peer}");
            }
        }
    });
}

/// A busy machine may answer no probe in time, but the call that it has answered stands.
#[test]
fn one_that_has_answered_a_call_is_not_asked_whether_it_is_there() {
    let me = Port::open(UNCLAIMED);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let roster = roster(&[busy.local_addr().unwrap().to_string(), me.address()]);
    let waiting = Waiting::default();
    let deadline = Duration::from_millis(500);
    std::thread::scope(|scope| {
        let met = scope.spawn(|| me.connect(&roster, KEY, 1, deadline, &waiting));
        let (mut called, _) = busy.accept().unwrap();
        called.read_exact(&mut [0; 28]).unwrap();
        called.write_all(b"fovea-m3").unwrap();
        // Longer than the deadline, and than a probe may take after it.
        std::thread::sleep(deadline + 2 * CALL);
        called.write_all(b"fovea-c3").unwrap();
        let channels = met.join().unwrap().unwrap();
        assert!(channels[0].is_some());
    });
}

#[test]
fn an_abort_ends_the_wait_for_a_claim() {
    let ports = [Port::open(UNCLAIMED), Port::open(UNCLAIMED)];
    let roster = roster(&[ports[0].address(), ports[1].address()]);
    let called = || !ports[0].mesh.arrivals().is_empty();
    let waiting = Waiting::default();
    let met = (ports[1].mesh).connect(&roster, KEY, 1, PATIENCE, &called, &waiting);
    assert!(matches!(met, Err(CollectiveError::Aborted)));
    assert_eq!(waiting.on(), None);
    // Its call is over, too.
    wait_until("the end of the call", || {
        !ports[0].mesh.arrivals()[0].caller.channel.is_open()
    });
}

#[test]
fn a_peer_that_left_again_is_missing() {
    let port = Port::open(UNCLAIMED);
    let roster = roster(&[port.address(), closed(), closed()]);
    drop(call(&port.address(), KEY, 1));
    let deadline = Duration::from_millis(300);
    let met = port.connect(&roster, KEY, 0, deadline, &Waiting::default());
    let error = met.unwrap_err().to_string();
    assert!(
        error.contains("w1 at ") && error.contains("w2 at "),
        "{error}"
    );
}

/// A worker whose certificate has expired while it ran says so itself. Otherwise two workers would complain of each other, and
/// the one of rank 1 would be evicted, whoever of them is to blame.
#[test]
fn who_has_an_expired_certificate_complains_of_nobody() {
    let certificates = Certificates::create();
    let tls = certificates.ending_in(2, "a");
    let runtime = crate::testing::runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let mut tasks = JoinSet::new();
    let entered = runtime.enter();
    let mesh = Mesh::start(listener, Some(tls.clone()), &mut tasks).unwrap();
    drop(entered);
    // The end itself is waited for.
    wait_until("the end of the certificate", || {
        tls.certificate().until <= OffsetDateTime::now_utc()
    });
    for rank in [0, 1] {
        let roster = roster(&[mesh.address().to_string(), mesh.address().to_string()]);
        let waiting = Waiting::default();
        let met = mesh.connect(&roster, KEY, rank, PATIENCE, &|| false, &waiting);
        let error = met.map(drop).unwrap_err();
        assert!(matches!(error, CollectiveError::Expired { .. }), "{error}");
        assert!(error.to_string().contains("fovea certs renew"), "{error}");
    }
    // Alone it needs no peer to accept it.
    let alone = roster(&[mesh.address().to_string()]);
    let waiting = Waiting::default();
    assert!(
        mesh.connect(&alone, KEY, 0, PATIENCE, &|| false, &waiting)
            .is_ok()
    );
}

#[test]
fn an_abort_ends_the_wait() {
    let port = Port::open(UNCLAIMED);
    let roster = roster(&[port.address(), closed()]);
    let waiting = Waiting::default();
    let begun = Instant::now();
    // Given up only once the wait has begun.
    let aborted = || waiting.on() == Some(1);
    let far = 3 * PATIENCE;
    let met = (port.mesh).connect(&roster, KEY, 0, far, &aborted, &waiting);
    assert!(matches!(met, Err(CollectiveError::Aborted)));
    // The time is tested: the abort ends the wait, long before the deadline does.
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(waiting.on(), None);
}

#[test]
fn a_single_worker_waits_for_no_peer() {
    let port = Port::open(UNCLAIMED);
    let roster = roster(&[port.address()]);
    let met = port.connect(&roster, KEY, 0, Duration::ZERO, &Waiting::default());
    assert_eq!(met.unwrap().len(), 1);
}

#[test]
fn probes_tell_open_ports_from_others() {
    let port = Port::open(UNCLAIMED);
    let probe = |address: &str, deadline| port.probe(address, deadline);
    for _ in 0..3 {
        probe(&port.address(), PATIENCE).unwrap();
    }
    assert!(port.mesh.arrivals().is_empty());

    let refused = probe(&closed(), PATIENCE).unwrap_err();
    assert!(
        matches!(&refused, GreetingError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused),
        "{refused}"
    );
    // Connects, as its queue takes it, but is never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let late = probe(&address, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(late, GreetingError::Slow(_)), "{late}");
    // Some other server.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The first is that of the late probe.
            for stream in silent.incoming().take(2) {
                let mut stream = stream.unwrap();
                let _ = stream.read_exact(&mut [0; 8]);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        let other = probe(&address, PATIENCE).unwrap_err();
        assert!(matches!(other, GreetingError::NotAPeer), "{other}");
    });
}

/// Even when no other connection arrives that would give a reason to look.
#[test]
fn unclaimed_connections_are_dropped() {
    let port = Port::open(Duration::from_millis(100));
    let stream = call(&port.address(), KEY, 1);
    closed_by_peer(&stream).unwrap();
    assert!(port.mesh.arrivals().is_empty());
}

#[test]
fn the_oldest_make_way_when_there_are_too_many() {
    let port = Port::open(Duration::from_secs(3600));
    let (arrivals, target) = (|| port.mesh.arrivals().len(), port.address());
    let first = call(&target, KEY, 1);
    wait_until("its arrival", || arrivals() == 1);
    let mut others = Vec::new();
    for i in 0..MOST_UNCLAIMED {
        let key = [i as u8; 16];
        others.push(call(&target, key, i));
    }
    // Only the last to arrive is one too many.
    closed_by_peer(&first).unwrap();
    assert_eq!(arrivals(), MOST_UNCLAIMED);
}

/// What the system knows an open socket by, for as long as any file descriptor holds it.
#[cfg(target_os = "linux")]
fn socket(channel: &Channel) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    let number = channel.socket().as_raw_fd();
    std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn many_generations_leave_nothing_behind() {
    let ports = [Port::open(UNCLAIMED), Port::open(UNCLAIMED)];
    let roster = roster(&[ports[0].address(), ports[1].address()]);
    let mut sockets = HashSet::new();
    for generation in 0..300u32 {
        let mut key = KEY;
        key[..4].copy_from_slice(&generation.to_le_bytes());
        let met: Vec<_> = std::thread::scope(|scope| {
            let start = |rank: usize| {
                let (port, roster) = (&ports[rank], &roster);
                scope.spawn(move || {
                    let waiting = Waiting::default();
                    let streams = port.connect(roster, key, rank, PATIENCE, &waiting).unwrap();
                    let known: Vec<_> = streams.iter().flatten().map(socket).collect();
                    let mut collective =
                        TcpCollective::new(roster, rank, streams, PATIENCE, waiting);
                    assert_eq!(collective.gather(&[rank as u8]).unwrap(), [[0], [1]]);
                    (collective.aborter().unwrap(), collective, known)
                })
            };
            let meeting = [start(0), start(1)];
            meeting.map(|met| met.join().unwrap()).into()
        });
        for (aborter, mut collective, known) in met {
            sockets.extend(known);
            aborter.abort();
            assert!(collective.gather(&[]).is_err());
        }
    }
    assert_eq!(sockets.len(), 600, "every generation had its own sockets");
    assert!(ports.iter().all(|port| port.mesh.arrivals().is_empty()));
    for open in std::fs::read_dir("/proc/self/fd").unwrap() {
        // Other tests open and close files meanwhile.
        let Ok(link) = std::fs::read_link(open.unwrap().path()) else {
            continue;
        };
        assert!(!sockets.contains(&link), "{} is open", link.display());
    }
}

#[test]
fn a_slow_call_does_not_pass_for_one_that_hangs() {
    let port = Port::open(UNCLAIMED);
    let waiting = Waiting::default();
    let waits = waiting.begin(0);
    let before = waiting.polls();
    let (go_on, released) = tokio::sync::watch::channel(false);
    let members = roster(&[closed()]).members;
    std::thread::scope(|scope| {
        let asked = port.mesh.ask(&members, vec![0], |_, _| {
            let mut released = released.clone();
            async move { released.wait_for(|&released| released).await.is_ok() }
        });
        let called = scope.spawn(|| polling(&waits, &|| false, asked));
        wait_until("looking up", || waiting.polls() > before + 1);
        go_on.send_replace(true);
        assert_eq!(called.join().unwrap().unwrap(), [(0, true)]);
    });
}
