//! The collective under TLS: the same bits, nothing to read on the wire, and what ends a connection.

use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fovea_security::{Role, Tls};
use tokio::runtime::Runtime;

use super::channel::Channel;
use super::greeting::{self, Greeting};
use super::tcp::tests::{bits, each, meshed_by, parts, reduced, roster};
use super::{Collective, CollectiveError, MeshKey};
use crate::certificates::Certificates;
use crate::device::Buffer;
use crate::testing::{PATIENCE, runtime, wait_until};

const KEY: MeshKey = *b"the key of a run";

/// Makes connections over loopback, in plain text or under TLS.
struct Maker {
    runtime: Runtime,
    certificates: Certificates,
    called: Option<Tls>,
    calling: Option<Tls>,
}

impl Maker {
    fn plain() -> Self {
        Self {
            runtime: runtime(),
            certificates: Certificates::create(),
            called: None,
            calling: None,
        }
    }

    fn secured() -> Self {
        let plain = Self::plain();
        Self {
            called: Some(plain.certificates.worker("a")),
            calling: Some(plain.certificates.worker("b")),
            ..plain
        }
    }

    /// Both ends of a connection, the called one first.
    fn pair(&self) -> (Channel, Channel) {
        self.pair_over(str::to_owned)
    }

    /// The same over what listens at the address that `relay` returns for the called end's.
    fn pair_over(&self, relay: impl FnOnce(&str) -> String) -> (Channel, Channel) {
        let greeting = Greeting { key: KEY, rank: 1 };
        self.runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = relay(&listener.local_addr().unwrap().to_string());
            let called = async {
                let (stream, _) = listener.accept().await.unwrap();
                greeting::answer(self.called.as_ref(), stream).await
            };
            let calling = self.calling.as_ref();
            let calling = greeting::call(calling, &address, "a-1-x", greeting, PATIENCE);
            let (called, calling) = tokio::join!(called, calling);
            let caller = called.unwrap().expect("it is no probe");
            assert_eq!(caller.greeting, greeting);
            let called = caller.claim().unwrap();
            (called, calling.unwrap().claimed().await.unwrap())
        })
    }
}

/// What passes between two ends is recorded, cut, and changed on demand.
struct Relay {
    address: String,
    seen: Arc<Mutex<Vec<u8>>>,
    change: Arc<AtomicBool>,
}

impl Relay {
    /// Passes at most `most` bytes on at a time.
    fn to(target: &str, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap().to_string(),
            seen: Arc::default(),
            change: Arc::default(),
        };
        let (target, seen, change) = (target.to_owned(), relay.seen.clone(), relay.change.clone());
        std::thread::spawn(move || {
            let caller = listener.accept().unwrap().0;
            let called = TcpStream::connect(target).unwrap();
            for (mut from, mut to) in [
                (caller.try_clone().unwrap(), called.try_clone().unwrap()),
                (called, caller),
            ] {
                let (seen, change) = (seen.clone(), change.clone());
                from.set_nodelay(true).unwrap();
                to.set_nodelay(true).unwrap();
                std::thread::spawn(move || {
                    let mut buffer = vec![0; most];
                    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                        let passed = &mut buffer[..bytes];
                        if change.swap(false, Ordering::SeqCst) {
                            passed[bytes / 2] ^= 1;
                        }
                        seen.lock().unwrap().extend_from_slice(passed);
                        if to.write_all(passed).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        });
        relay
    }
}

fn message(rank: usize, round: usize) -> Vec<u8> {
    let len = [0, 1, 3_000_001, 16_384, 70][(rank + round) % 5];
    (0..len)
        .map(|i| (i * 31 + rank * 7 + round) as u8)
        .collect()
}

/// All kinds of calls, of which some are larger than all buffers, and some begin before the one before has been read.
#[test]
fn all_calls_return_what_they_return_in_plain_text() {
    let (maker, len) = (Maker::secured(), 1_000_003);
    let alone = bits(&reduced(1, 7, len)[0]);
    for workers in [2, 3] {
        let roster = roster(workers, 7);
        let collectives = meshed_by(&roster, PATIENCE, &|_, _| maker.pair());
        each(collectives, |rank, collective| {
            let parts = parts(&roster, rank, len);
            for round in 0..6 {
                let mut sum: Buffer = vec![f32::NAN; len].into();
                collective.reduce(&parts, &mut sum, None).unwrap();
                assert!(bits(&sum.read(0..len)) == alone, "{workers} workers");
                let all = collective.gather(&message(rank, round)).unwrap();
                let expected: Vec<_> = (0..workers).map(|r| message(r, round)).collect();
                assert!(all == expected, "rank {rank} of {workers}, round {round}");
                let mut state = vec![rank as f32; len];
                let source = round % workers;
                let receivers: Vec<usize> = (0..workers).filter(|&r| r != source).collect();
                collective
                    .broadcast(source, &receivers, &mut state)
                    .unwrap();
                assert!(state.iter().all(|&x| x == source as f32));
            }
        });
    }
}

fn gathers(channels: (Channel, Channel), len: usize) -> Vec<Result<(), CollectiveError>> {
    let channels = Mutex::new(Some(channels));
    let roster = roster(2, 2);
    let collectives = meshed_by(&roster, PATIENCE, &|_, _| {
        channels.lock().unwrap().take().expect("there is one pair")
    });
    each(collectives, |rank, collective| {
        for round in 0..3 {
            let all = collective.gather(&vec![rank as u8; len + round])?;
            assert_eq!(all[1 - rank], vec![1 - rank as u8; len + round]);
        }
        Ok(())
    })
}

/// Records and their headers come in any pieces.
#[test]
fn records_may_be_cut_anywhere() {
    let maker = Maker::secured();
    for (most, len) in [(1, 300), (7, 5_000), (4097, 200_000)] {
        let pair = maker.pair_over(|target| Relay::to(target, most).address);
        for gathered in gathers(pair, len) {
            gathered.unwrap();
        }
    }
}

#[test]
fn a_changed_byte_ends_the_connection_and_both_say_why() {
    let maker = Maker::secured();
    for len in [100, 3_000_000] {
        let mut change = None;
        let pair = maker.pair_over(|target| {
            let relay = Relay::to(target, 64 << 10);
            change = Some(relay.change);
            relay.address
        });
        change.unwrap().store(true, Ordering::SeqCst);
        let errors: Vec<String> = gathers(pair, len)
            .into_iter()
            .map(|gathered| gathered.unwrap_err().to_string())
            .collect();
        // The one that finds it, and the other, whose alert may be lost with the connection.
        let says = |error: &String| error.contains("because bytes were changed on the way");
        assert!(errors.iter().any(says), "{errors:?}");
    }
}

/// Whether greeting, key, headers and numbers are found in what has passed.
fn found(maker: &Maker) -> [bool; 4] {
    let mut seen = None;
    let pair = maker.pair_over(|target| {
        let relay = Relay::to(target, 64 << 10);
        seen = Some(relay.seen);
        relay.address
    });
    let numbers: Vec<f32> = (0..5_000).map(|i| (i as f32).sin()).collect();
    let channels = Mutex::new(Some(pair));
    let roster = roster(2, 2);
    let collectives = meshed_by(&roster, PATIENCE, &|_, _| {
        channels.lock().unwrap().take().expect("there is one pair")
    });
    each(collectives, |rank, collective| {
        let mut state = match rank {
            0 => numbers.clone(),
            _ => vec![0.0; numbers.len()],
        };
        collective.broadcast(0, &[1], &mut state).unwrap();
        assert_eq!(bits(&state), bits(&numbers));
    });
    let seen = seen.unwrap();
    let seen = seen.lock().unwrap();
    let has = |what: &[u8]| seen.windows(what.len()).any(|window| window == what);
    let frame = super::wire::MAGIC.to_le_bytes();
    let number: &[u8] = bytemuck::cast_slice(&numbers[100..104]);
    [has(b"fovea-m3"), has(&KEY), has(&frame), has(number)]
}

#[test]
fn nothing_can_be_read_on_the_wire() {
    // What a reader of the network looks for is there in plain text.
    assert_eq!(found(&Maker::plain()), [true; 4]);
    assert_eq!(found(&Maker::secured()), [false; 4]);
}

#[test]
fn keys_are_exchanged_during_a_generation() {
    let maker = Maker::secured();
    let (mut a, mut b) = maker.pair();
    for channel in [&mut a, &mut b] {
        channel.connection().refresh_traffic_keys().unwrap();
    }
    for gathered in gathers((a, b), 100_000) {
        gathered.unwrap();
    }
}

#[test]
fn a_peer_that_leaves_has_closed_the_connection() {
    let maker = Maker::secured();
    let (mut a, b) = maker.pair();
    assert!(a.is_open());
    drop(b);
    let end = std::cell::RefCell::new(&mut a);
    wait_until("the end", || !end.borrow_mut().is_open());
    let mut place = [0];
    // It has said goodbye: this is not the end that anybody in the network can make.
    assert_eq!(a.read(&mut place).unwrap(), 0);
}

#[test]
fn a_peer_that_does_not_read_takes_bounded_memory() {
    let maker = Maker::secured();
    let (mut a, _b) = maker.pair();
    let megabyte = vec![7; 1 << 20];
    let mut taken = 0;
    loop {
        let sent = a.send(&[IoSlice::new(&megabyte)]).unwrap();
        taken += sent.taken;
        assert!(taken < 64 << 20, "it takes all");
        if sent.taken == 0 {
            assert!(sent.pending);
            break;
        }
        // Never more at a time than is kept.
        assert!(sent.taken <= 128 << 10, "{sent:?}");
    }
}

/// Connections live on, and new ones use the new certificate.
#[test]
fn a_renewed_certificate_is_used_by_new_connections() {
    let maker = Maker::secured();
    let shown = |channel: &mut Channel| {
        let certificates = channel.connection().peer_certificates();
        certificates.expect("it has shown one")[0].to_vec()
    };
    let (before, mut calling) = maker.pair();
    let old = shown(&mut calling);
    let tls = maker.called.clone().unwrap();
    // Its clock jumps from look to look.
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    clock.block_on(async {
        let look_on = tokio::spawn(tls.reload());
        tokio::time::sleep(Duration::from_secs(5)).await;
        maker.certificates.issue(Role::Worker, "a");
        tokio::time::sleep(Duration::from_secs(35)).await;
        assert!(!look_on.is_finished());
    });
    let (_after, mut new) = maker.pair();
    assert_ne!(shown(&mut new), old);
    for gathered in gathers((before, calling), 100_000) {
        gathered.unwrap();
    }
}
