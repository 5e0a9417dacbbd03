//! The reduction over real sockets, and what happens when a peer misbehaves.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use fovea_core::ids::WorkerId;
use fovea_core::roster::Roster;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn roster(workers: usize, virtual_ranks: u32) -> Roster {
    let workers: Vec<_> = (0..workers)
        .map(|i| (WorkerId::new(format!("w{i}")).unwrap(), "h:1".to_owned()))
        .collect();
    Roster::deal(1, &workers, virtual_ranks, 0)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a, listener.accept().unwrap().0)
}

/// `collectives[i]` is connected with all others.
fn meshed(roster: &Roster) -> Vec<TcpCollective> {
    let n = roster.members.len();
    let mut streams: Vec<Vec<Option<TcpStream>>> =
        (0..n).map(|_| (0..n).map(|_| None).collect()).collect();
    for higher in 1..n {
        let (below, above) = streams.split_at_mut(higher);
        for (lower, row) in below.iter_mut().enumerate() {
            let (a, b) = pair();
            above[0][lower] = Some(a);
            row[higher] = Some(b);
        }
    }
    streams
        .into_iter()
        .enumerate()
        .map(|(rank, s)| TcpCollective::new(roster, rank, s, PATIENCE).unwrap())
        .collect()
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

fn reduced(workers: usize, virtual_ranks: u32, len: usize) -> Vec<Vec<f32>> {
    let roster = roster(workers, virtual_ranks);
    std::thread::scope(|scope| {
        let handles: Vec<_> = meshed(&roster)
            .into_iter()
            .zip(&roster.members)
            .map(|(mut collective, member)| {
                scope.spawn(move || {
                    let parts: Vec<Vec<f32>> = (0..member.virtual_ranks)
                        .map(|v| part(member.first_virtual_rank + v, len))
                        .collect();
                    let mut sum = vec![f32::NAN; len];
                    // Twice: the second must not see anything of the first.
                    collective.reduce(&parts, &mut sum).unwrap();
                    sum.fill(f32::NAN);
                    collective.reduce(&parts, &mut sum).unwrap();
                    sum
                })
            })
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    })
}

#[test]
fn the_sum_is_the_same_to_the_bit_for_any_number_of_workers() {
    // Larger than socket buffers, and not divisible.
    let len = 1_000_003;
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
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

#[test]
fn a_dead_peer_is_named() {
    let roster = roster(2, 2);
    let (a, b) = pair();
    let mut collective = TcpCollective::new(&roster, 0, vec![None, Some(a)], PATIENCE).unwrap();
    drop(b);
    let error = collective
        .reduce(&[vec![1.0; 10]], &mut [0.0; 10])
        .unwrap_err();
    assert!(error.to_string().contains("w1"), "{error}");
}

#[test]
fn a_silent_peer_runs_into_the_deadline() {
    let roster = roster(2, 2);
    let (a, _b) = pair();
    let patience = Duration::from_millis(50);
    let mut collective = TcpCollective::new(&roster, 0, vec![None, Some(a)], patience).unwrap();
    let error = collective
        .reduce(&[vec![1.0; 10]], &mut [0.0; 10])
        .unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
}

#[test]
fn a_peer_out_of_step_is_refused() {
    let roster = roster(2, 2);
    let (a, mut b) = pair();
    let mut collective = TcpCollective::new(&roster, 0, vec![None, Some(a)], PATIENCE).unwrap();
    let mut header = Vec::new();
    header.extend(MAGIC.to_le_bytes());
    header.extend(SCATTER.to_le_bytes());
    header.extend(9u64.to_le_bytes());
    header.extend(20u64.to_le_bytes());
    b.write_all(&header).unwrap();
    let error = collective
        .reduce(&[vec![1.0; 10]], &mut [0.0; 10])
        .unwrap_err();
    assert!(
        matches!(error, CollectiveError::OutOfStep { .. }),
        "{error}"
    );
}

#[test]
fn abort_frees_a_blocked_reduction() {
    let roster = roster(2, 2);
    let (a, _b) = pair();
    let mut collective =
        TcpCollective::new(&roster, 0, vec![None, Some(a)], Duration::from_secs(600)).unwrap();
    let aborter = collective.aborter().unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(move || collective.reduce(&[vec![1.0; 10]], &mut [0.0; 10]));
        aborter.abort();
        assert!(blocked.join().unwrap().is_err());
    });
}
