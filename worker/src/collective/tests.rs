//! The collective over real sockets, and what happens when a peer misbehaves.

use std::io::Write;
use std::net::TcpListener;
use std::time::Instant;

use fovea_core::ids::WorkerId;

use super::super::wire::MAGIC;
use tch::Tensor;

use super::*;
use crate::testing::{PATIENCE, wait_until};

/// For tests in which only an abort may end a wait: longer than the test waits, but finite.
const FOREVER: Duration = Duration::from_secs(60);
/// More than the buffers of two sockets hold, in floats.
const LARGE: usize = 8_000_000;

pub(in crate::collective) fn roster(workers: usize, virtual_ranks: u32) -> Roster {
    let workers: Vec<_> = (0..workers)
        .map(|i| (WorkerId::new(format!("w{i}")).unwrap(), "h:1".to_owned()))
        .collect();
    Roster::deal(1, &workers, virtual_ranks, 0)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let b = listener.accept().unwrap().0;
    (a, b)
}

/// `collectives[i]` is connected with all others.
pub(in crate::collective) fn meshed(roster: &Roster, patience: Duration) -> Vec<TcpCollective> {
    meshed_by(roster, patience, &|_, _| {
        let (a, b) = pair();
        (plain(a), plain(b))
    })
}

/// The same over connections of the caller's choice, each for two ranks.
pub(in crate::collective) fn meshed_by(
    roster: &Roster,
    patience: Duration,
    pair: &dyn Fn(usize, usize) -> (Channel, Channel),
) -> Vec<TcpCollective> {
    let n = roster.members.len();
    let mut channels: Vec<Vec<Option<Channel>>> =
        (0..n).map(|_| (0..n).map(|_| None).collect()).collect();
    for higher in 1..n {
        let (below, above) = channels.split_at_mut(higher);
        for (lower, row) in below.iter_mut().enumerate() {
            let (a, b) = pair(higher, lower);
            above[0][lower] = Some(a);
            row[higher] = Some(b);
        }
    }
    channels
        .into_iter()
        .enumerate()
        .map(|(rank, row)| TcpCollective::new(roster, rank, row, patience, Waiting::default()))
        .collect()
}

fn plain(stream: TcpStream) -> Channel {
    Channel::plain(stream).unwrap()
}

/// Rank 0 of two, and the other end of its connection.
fn first_of_two(patience: Duration) -> (TcpCollective, TcpStream) {
    let (a, b) = pair();
    let channels = vec![None, Some(plain(a))];
    let waiting = Waiting::default();
    let collective = TcpCollective::new(&roster(2, 2), 0, channels, patience, waiting);
    (collective, b)
}

/// What `work(rank, collective)` returns on each rank, all at the same time on threads.
pub(in crate::collective) fn each<T: Send>(
    collectives: Vec<TcpCollective>,
    work: impl Fn(usize, &mut TcpCollective) -> T + Sync,
) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let handles: Vec<_> = collectives
            .into_iter()
            .enumerate()
            .map(|(rank, mut collective)| scope.spawn(move || work(rank, &mut collective)))
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    })
}

pub(in crate::collective) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn header(kind: u32, sequence: u64, bytes: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(MAGIC.to_le_bytes());
    header.extend(kind.to_le_bytes());
    header.extend(sequence.to_le_bytes());
    header.extend(bytes.to_le_bytes());
    header
}

/// Numbers whose sum depends on the order of addition.
fn part(virtual_rank: u32, len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| {
            let x = ((i as u32).wrapping_mul(2_654_435_761) ^ (virtual_rank * 40_503)) as f32;
            (x / 1e9).sin() * 10f32.powi((i as i32 + virtual_rank as i32 * 3) % 7 - 3)
        })
        .collect()
}

pub(in crate::collective) fn parts(roster: &Roster, rank: usize, len: usize) -> Vec<Buffer> {
    let member = &roster.members[rank];
    (0..member.virtual_ranks)
        .map(|v| part(member.first_virtual_rank + v, len).into())
        .collect()
}

/// The same numbers in a tensor, as a GPU would have them.
pub(in crate::collective) fn in_tensors(parts: &[Buffer]) -> Vec<Buffer> {
    let tensor = |part: &Buffer| Buffer::Tensor(Tensor::from_slice(part.host().unwrap()));
    parts.iter().map(tensor).collect()
}

fn nothing(len: usize) -> Buffer {
    vec![f32::NAN; len].into()
}

fn ones() -> [Buffer; 1] {
    [vec![1.0; 10].into()]
}

fn zeros(len: usize) -> Buffer {
    vec![0.0; len].into()
}

pub(in crate::collective) fn reduced(
    workers: usize,
    virtual_ranks: u32,
    len: usize,
) -> Vec<Vec<f32>> {
    let roster = roster(workers, virtual_ranks);
    each(meshed(&roster, PATIENCE), |rank, collective| {
        let parts = parts(&roster, rank, len);
        let mut sum = nothing(len);
        // Again and again: the second must not see anything of the first.
        collective.reduce(&parts, &mut sum, None).unwrap();
        let mut tensor = Buffer::Tensor(Tensor::from_slice(&vec![f32::NAN; len]));
        (collective.reduce(&in_tensors(&parts), &mut tensor, None)).unwrap();
        let mut again = nothing(len);
        collective.reduce(&parts, &mut again, None).unwrap();
        let [sum, tensor, again] = [sum, tensor, again].map(|sum| sum.read(0..len));
        assert!(bits(&sum) == bits(&tensor) && bits(&sum) == bits(&again));
        sum
    })
}

#[test]
fn the_sum_is_the_same_to_the_bit_for_any_number_of_workers() {
    // Larger than socket buffers, and not divisible.
    let len = 1_000_003;
    let alone = bits(&reduced(1, 7, len)[0]);
    for workers in [2, 3, 7] {
        for sum in reduced(workers, 7, len) {
            assert!(bits(&sum) == alone, "{workers} workers differ");
        }
    }
    let mut reverse = part(6, len);
    for v in (0..6).rev() {
        accumulate(&mut reverse, &part(v, len), false);
    }
    assert!(bits(&reverse) != alone, "the order does not matter here");
}

#[test]
fn buffers_shorter_than_the_number_of_workers_work() {
    for len in [1, 2, 3] {
        let alone = reduced(1, 4, len);
        assert!(reduced(4, 4, len).iter().all(|s| *s == alone[0]));
    }
}

/// Of another length in every round and on every rank; some are empty, some larger than a socket's buffer.
fn message(rank: usize, round: usize) -> Vec<u8> {
    let len = [0, 1, 3_000_001, 70][(rank + round) % 4];
    (0..len)
        .map(|i| (i * 31 + rank * 7 + round) as u8)
        .collect()
}

#[test]
fn every_rank_gets_the_messages_of_all() {
    for workers in 1..=4 {
        let collectives = meshed(&roster(workers, 4), PATIENCE);
        each(collectives, |rank, collective| {
            for round in 0..4 {
                let all = collective.gather(&message(rank, round)).unwrap();
                let expected: Vec<_> = (0..workers).map(|r| message(r, round)).collect();
                assert!(all == expected, "rank {rank} of {workers}, round {round}");
            }
        });
    }
}

/// All kinds of bit patterns, infinities and NaNs included.
fn state(rank: usize, len: usize) -> Vec<f32> {
    (0..len as u32)
        .map(|i| f32::from_bits((i + rank as u32).wrapping_mul(2_654_435_761)))
        .collect()
}

#[test]
fn receivers_get_the_sources_state_to_the_bit_and_the_others_keep_theirs() {
    let len = 1_000_003;
    for (workers, source, receivers) in [
        (1, 0, vec![]),
        (2, 1, vec![0]),
        (3, 1, vec![2, 0]),
        (4, 3, vec![1]),
        // Named twice, and the source itself: as if named once, and not at all.
        (4, 0, vec![2, 0, 2]),
    ] {
        let collectives = meshed(&roster(workers, 4), PATIENCE);
        let states = each(collectives, |rank, collective| {
            let mut mine = state(rank, len);
            (collective.broadcast(source, &receivers, &mut mine)).unwrap();
            mine
        });
        for (rank, found) in states.iter().enumerate() {
            let received = receivers.contains(&rank);
            let whose = if received { source } else { rank };
            let same = bits(found) == bits(&state(whose, len));
            assert!(same, "rank {rank} of {workers} has not that of {whose}");
        }
    }
}

/// Ranks with nothing to do in a broadcast stay in step with the others.
#[test]
fn all_calls_mix() {
    let len = 1000;
    let sum = &reduced(1, 4, len)[0];
    for workers in 1..=4 {
        let roster = roster(workers, 4);
        each(meshed(&roster, PATIENCE), |rank, collective| {
            let parts = parts(&roster, rank, len);
            for round in 0..20 {
                let source = round % workers;
                let receivers: Vec<usize> = (0..round % 3)
                    .map(|i| (source + 1 + i) % workers)
                    .filter(|&r| r != source)
                    .collect();
                let mut state = vec![rank as f32; len];
                (collective.broadcast(source, &receivers, &mut state)).unwrap();
                let received = receivers.contains(&rank);
                let has = if received { source } else { rank };
                assert!(state.iter().all(|&x| x == has as f32));
                if round % 2 == 0 {
                    let all = collective.gather(&[rank as u8; 3]).unwrap();
                    let expected: Vec<_> = (0..workers).map(|r| vec![r as u8; 3]).collect();
                    assert_eq!(all, expected);
                }
                let mut found = nothing(len);
                collective.reduce(&parts, &mut found, None).unwrap();
                assert!(bits(&found.read(0..len)) == bits(sum));
            }
        });
    }
}

/// Also a header, which a network may cut anywhere.
#[test]
fn a_message_may_come_byte_by_byte() {
    let (mut collective, mut b) = first_of_two(PATIENCE);
    let waiting = collective.waiting.clone();
    std::thread::scope(|scope| {
        let gathered = scope.spawn(move || collective.gather(&[]).unwrap());
        let message = [header(GATHER_BYTES, 1, 3), vec![7, 8, 9]].concat();
        for byte in message {
            let before = waiting.polls();
            b.write_all(&[byte]).unwrap();
            // It has been woken, and waits again.
            wait_until("the byte", || {
                gathered.is_finished() || waiting.polls() > before
            });
        }
        assert_eq!(gathered.join().unwrap(), [vec![], vec![7, 8, 9]]);
    });
}

/// What it sends is taken while a peer of a lower rank is late, however much it is.
#[test]
fn a_late_peer_does_not_keep_the_others() {
    let (late, _late) = pair();
    let (early, mut sends) = pair();
    let channels = vec![None, Some(plain(late)), Some(plain(early))];
    let waiting = Waiting::default();
    let mut collective = TcpCollective::new(&roster(3, 9), 0, channels, FOREVER, waiting.clone());
    let aborter = collective.aborter().unwrap();
    std::thread::scope(|scope| {
        let reduced = scope.spawn(move || {
            let parts = [vec![1.0; LARGE].into()];
            collective.reduce(&parts, &mut zeros(LARGE), None)
        });
        // That of three virtual ranks.
        let part = vec![0; slice_of(LARGE as u64, 3, 0).end as usize * 4 * 3];
        sends.set_write_timeout(Some(PATIENCE)).unwrap();
        sends
            .write_all(&header(SCATTER, 1, part.len() as u64))
            .unwrap();
        sends.write_all(&part).unwrap();
        assert_eq!(waiting.on(), Some(1));
        aborter.abort();
        assert!(reduced.join().unwrap().is_err());
    });
}

#[test]
fn a_dead_peer_is_named() {
    let (mut collective, b) = first_of_two(PATIENCE);
    drop(b);
    let error = (collective.reduce(&ones(), &mut zeros(10), None)).unwrap_err();
    assert!(error.to_string().contains("w1"), "{error}");
}

#[test]
fn a_silent_peer_runs_into_the_deadline() {
    let (mut collective, _b) = first_of_two(Duration::from_millis(50));
    let error = (collective.reduce(&ones(), &mut zeros(10), None)).unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
    assert_eq!(collective.waiting.on(), None);
}

fn assert_out_of_step(error: &CollectiveError, whose: &str) {
    match error {
        CollectiveError::OutOfStep { peer, .. } => assert_eq!(peer, whose),
        other => panic!("{other}"),
    }
}

#[test]
fn a_peer_out_of_step_is_refused() {
    let (mut collective, mut b) = first_of_two(PATIENCE);
    b.write_all(&header(SCATTER, 9, 20)).unwrap();
    let error = (collective.reduce(&ones(), &mut zeros(10), None)).unwrap_err();
    assert_out_of_step(&error, "w1");
    assert_eq!(collective.waiting.on(), None);

    let collectives = meshed(&roster(2, 2), PATIENCE);
    let errors = each(collectives, |rank, collective| match rank {
        0 => collective.gather(&[1; 40]).map(|_| ()).unwrap_err(),
        _ => (collective.broadcast(0, &[1], &mut [0.0; 10])).unwrap_err(),
    });
    assert_out_of_step(&errors[1], "w0");
}

#[test]
fn a_state_of_another_length_is_refused() {
    let collectives = meshed(&roster(2, 2), PATIENCE);
    each(collectives, |rank, collective| {
        let result = collective.broadcast(0, &[1], &mut vec![0.0; 10 + rank]);
        match rank {
            0 => assert!(result.is_ok(), "{result:?}"),
            _ => assert_out_of_step(&result.unwrap_err(), "w0"),
        }
    });
}

#[test]
fn what_is_too_long_to_gather_is_refused() {
    let (mut collective, mut b) = first_of_two(PATIENCE);
    let too_long = header(GATHER_BYTES, 1, MOST_GATHERED + 1);
    b.write_all(&too_long).unwrap();
    assert_out_of_step(&collective.gather(&[]).unwrap_err(), "w1");

    let (mut collective, _b) = first_of_two(PATIENCE);
    let mine = vec![0; MOST_GATHERED as usize + 1];
    assert_out_of_step(&collective.gather(&mine).unwrap_err(), "w0");
}

/// Rank 3 never calls: all others come to wait for it, and only their aborts end that.
fn aborted_while(work: impl Fn(usize, &mut TcpCollective) -> Result<(), CollectiveError> + Sync) {
    let mut collectives = meshed(&roster(4, 4), FOREVER);
    let absent = collectives.pop().unwrap();
    let shown: Vec<_> = collectives.iter().map(|c| c.waiting.clone()).collect();
    let aborters: Vec<_> = collectives.iter().map(|c| c.aborter().unwrap()).collect();
    let aborted_at = std::thread::scope(|scope| {
        // In here, so that a failure closes its connections and the test ends.
        let _absent = absent;
        let ended = scope.spawn(|| each(collectives, |rank, c| work(rank, c).unwrap_err()));
        for waiting in &shown {
            wait_until("waiting for rank 3", || waiting.on() == Some(3));
        }
        let now = Instant::now();
        for aborter in &aborters {
            aborter.abort();
        }
        for error in ended.join().unwrap() {
            assert!(error.to_string().contains("w3"), "{error}");
        }
        now
    });
    // The time is tested: the aborts end the waits, long before FOREVER is over.
    assert!(aborted_at.elapsed() < PATIENCE);
    assert!(shown.iter().all(|waiting| waiting.on().is_none()));
}

#[test]
fn abort_frees_a_blocked_reduction() {
    aborted_while(|_, c| c.reduce(&ones(), &mut zeros(10), None));
}

#[test]
fn abort_frees_a_blocked_gather() {
    aborted_while(|_, c| c.gather(&[1; 10]).map(|_| ()));
}

#[test]
fn abort_frees_the_receivers_of_a_broadcast() {
    aborted_while(|_, c| c.broadcast(3, &[0, 1, 2], &mut [0.0; 10]));
}

/// A source whose receiver does not read is waiting for it, too.
#[test]
fn abort_frees_the_source_of_a_broadcast() {
    let (mut collective, b) = first_of_two(FOREVER);
    let waiting = collective.waiting.clone();
    let aborter = collective.aborter().unwrap();
    std::thread::scope(|scope| {
        // In here, so that a failure closes it and the test ends.
        let _unread = b;
        let source = scope.spawn(move || collective.broadcast(0, &[1], &mut vec![1.0; LARGE]));
        wait_until("waiting for the receiver", || waiting.on() == Some(1));
        looks_up(&waiting);
        aborter.abort();
        wait_until("the end", || source.is_finished());
        assert!(source.join().unwrap().is_err());
    });
    assert_eq!(waiting.on(), None);
}

/// Who waits is not taken for one that hangs.
fn looks_up(waiting: &Waiting) {
    let before = waiting.polls();
    wait_until("looking up", || waiting.polls() > before + 1);
}

#[test]
fn waiting_shows_a_late_peer_until_it_comes() {
    let mut collectives = meshed(&roster(2, 2), FOREVER);
    let mut late = collectives.pop().unwrap();
    let mut early = collectives.pop().unwrap();
    let waiting = early.waiting.clone();
    let (send, done) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            early.gather(&[1]).unwrap();
            send.send(early.waiting.on()).unwrap();
            early.reduce(&ones(), &mut zeros(10), None).unwrap();
            send.send(early.waiting.on()).unwrap();
        });
        wait_until("waiting in gather", || waiting.on() == Some(1));
        looks_up(&waiting);
        late.gather(&[2]).unwrap();
        assert_eq!(done.recv_timeout(PATIENCE).unwrap(), None);
        wait_until("waiting in reduce", || waiting.on() == Some(1));
        looks_up(&waiting);
        late.reduce(&ones(), &mut zeros(10), None).unwrap();
        assert_eq!(done.recv_timeout(PATIENCE).unwrap(), None);
    });
    assert_eq!(late.waiting.on(), None);
}
