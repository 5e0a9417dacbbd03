//! One reader, readers that fail, that die and that are asked to stop, over loopback.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::collective::TcpCollective;
use crate::testing::{PATIENCE, Peers, peers, wait_until};

const MEMBERS: usize = 4;
const LEN: usize = 100_003;

fn state() -> Vec<f32> {
    (0..LEN)
        .map(|i| f32::from_bits(i as u32 * 40_503))
        .collect()
}

fn bits(state: &[f32]) -> Vec<u32> {
    state.iter().map(|x| x.to_bits()).collect()
}

/// What each of `members` of a generation gets, whose reads are `read(place)`.
fn generation(
    peers: &Peers,
    number: u64,
    members: &[usize],
    timeout: Duration,
    controls: &[Control],
    read: impl Fn(usize, &Control) -> Result<Vec<f32>, JobError> + Sync,
) -> Vec<Result<Vec<f32>, JobError>> {
    let roster = peers.roster(number, members, 7);
    let connected = AtomicUsize::new(0);
    let (roster, read, connected) = (&roster, &read, &connected);
    std::thread::scope(|scope| {
        let start = |(rank, &place): (usize, &usize)| {
            let (mesh, control) = (&peers.meshes[place], &controls[place]);
            scope.spawn(move || {
                let progress = Progress::default();
                let (key, waiting) = ([number as u8; 16], progress.waiting());
                let channels = mesh.connect(roster, key, rank, PATIENCE, &|| false, waiting)?;
                let waiting = waiting.clone();
                let mut collective = TcpCollective::new(roster, rank, channels, timeout, waiting);
                control.connected(collective.aborter()?);
                // A peer that leaves before is waited for, as its port answers.
                connected.fetch_add(1, Ordering::SeqCst);
                wait_until("all connections", || {
                    connected.load(Ordering::SeqCst) == members.len()
                });
                let readers = Readers {
                    roster,
                    rank,
                    collective: &mut collective,
                    progress: &progress,
                    control,
                    state_len: LEN,
                };
                readers.read_once(&mut || read(place, control))
            })
        };
        let threads: Vec<_> = members.iter().enumerate().map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn controls() -> Vec<Control> {
    (0..MEMBERS).map(|_| Control::default()).collect()
}

const ALL: [usize; MEMBERS] = [0, 1, 2, 3];

/// Also if reading takes longer than a peer may keep the others waiting.
#[test]
fn one_member_reads_and_all_have_the_state() {
    let timeout = Duration::from_secs(1);
    let reads = AtomicUsize::new(0);
    let got = generation(&peers(MEMBERS), 1, &ALL, timeout, &controls(), |_, _| {
        reads.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(timeout + NOTICE);
        Ok(state())
    });
    assert_eq!(reads.into_inner(), 1);
    for (rank, got) in got.into_iter().enumerate() {
        assert!(bits(&got.unwrap()) == bits(&state()), "rank {rank}");
    }
}

#[test]
fn one_that_cannot_fetch_it_leaves_it_to_the_next() {
    let failing = |place| FetchError::Failed(format!("no route from {place}")).into();
    let reads = AtomicUsize::new(0);
    let got = generation(
        &peers(MEMBERS),
        1,
        &ALL,
        PATIENCE,
        &controls(),
        |place, _| {
            reads.fetch_add(1, Ordering::SeqCst);
            match place {
                0 | 1 => Err(failing(place)),
                _ => Ok(state()),
            }
        },
    );
    assert_eq!(reads.into_inner(), 3);
    assert!(
        got.into_iter()
            .all(|got| bits(&got.unwrap()) == bits(&state()))
    );

    let nobody = generation(
        &peers(MEMBERS),
        2,
        &ALL,
        PATIENCE,
        &controls(),
        |place, _| Err(failing(place)),
    );
    for (place, got) in nobody.into_iter().enumerate() {
        let problem = got.unwrap_err().to_string();
        assert!(
            problem.contains(&format!("no route from {place}")),
            "{problem}"
        );
    }
}

/// What another member would meet, too, is not tried by all.
#[test]
fn a_corrupt_checkpoint_is_read_once() {
    let reads = AtomicUsize::new(0);
    let got = generation(&peers(MEMBERS), 1, &ALL, PATIENCE, &controls(), |_, _| {
        reads.fetch_add(1, Ordering::SeqCst);
        Err(FetchError::Blocked("it is corrupt".into()).into())
    });
    assert_eq!(reads.into_inner(), 1);
    for (rank, got) in got.into_iter().enumerate() {
        match (rank, got.unwrap_err()) {
            (0, JobError::Fetch(FetchError::Blocked(_))) => {}
            (1.., JobError::NotRead { reader }) => assert_eq!(reader, "w0"),
            (_, error) => panic!("rank {rank}: {error}"),
        }
    }
}

/// The reader's connections break half-way through; the members that are left read again, once.
#[test]
fn when_the_reader_dies_the_next_one_reads() {
    let peers = peers(MEMBERS);
    let reads = AtomicUsize::new(0);
    let got = generation(&peers, 1, &ALL, PATIENCE, &controls(), |place, control| {
        reads.fetch_add(1, Ordering::SeqCst);
        assert_eq!(place, 0);
        control.abort();
        Ok(state())
    });
    assert_eq!(reads.swap(0, Ordering::SeqCst), 1);
    for got in &got[1..] {
        let lost = matches!(got, Err(JobError::Collective(_)));
        assert!(lost, "{got:?}");
    }
    let got = generation(&peers, 2, &ALL[1..], PATIENCE, &controls(), |place, _| {
        reads.fetch_add(1, Ordering::SeqCst);
        assert_eq!(place, 1);
        Ok(state())
    });
    assert_eq!(reads.into_inner(), 1);
    assert!(
        got.into_iter()
            .all(|got| bits(&got.unwrap()) == bits(&state()))
    );
}

/// A stop reaches the members one after the other; none takes the others' ends for a fault.
#[test]
fn a_stop_ends_the_wait_of_all() {
    let controls = controls();
    let reading = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("reading", || reading.load(Ordering::SeqCst) == 1);
            controls.iter().for_each(Control::stop);
        });
        let got = generation(
            &peers(MEMBERS),
            1,
            &ALL,
            PATIENCE,
            &controls,
            |_, control| {
                reading.fetch_add(1, Ordering::SeqCst);
                wait_until("the stop", || control.withdrawn());
                Err(FetchError::Cancelled.into())
            },
        );
        for got in got {
            let cancelled = matches!(got, Err(JobError::Fetch(FetchError::Cancelled)));
            assert!(cancelled, "{got:?}");
        }
    });
}
