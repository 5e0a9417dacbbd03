//! Failure detection: which workers are stuck, which are unreachable, whose states differ.

use super::*;

fn worker(i: u8) -> WorkerId {
    WorkerId::new(format!("w{i}")).unwrap()
}

fn liveness(n: u8) -> Liveness {
    let mut liveness = Liveness::default();
    liveness.begin((0..n).map(worker), 0);
    liveness
}

fn works(ticks: u64) -> Heartbeat {
    Heartbeat {
        ticks,
        ..Heartbeat::default()
    }
}

fn waits(ticks: u64, rank: u32, polls: u64) -> Heartbeat {
    Heartbeat {
        ticks,
        waiting_for: Some(rank),
        polls,
        scored: 0,
    }
}

/// A piece of work that takes no time.
fn small() -> u64 {
    0
}

#[test]
fn a_stuck_worker_is_told_from_one_that_waits_for_it() {
    let mut v = liveness(2);
    v.step_took(800.0);
    v.progress(worker(0), waits(5, 1, 1), 1000);
    v.progress(worker(1), works(5), 1000);
    assert_eq!(
        v.stuck(Stage::Running, 9000, small),
        None,
        "ten steps have not passed"
    );
    v.progress(worker(0), waits(5, 1, 60), 9001);
    v.progress(worker(1), works(5), 9001);
    let stuck = Some(Stuck::Member(worker(1), 8001, 8000));
    assert_eq!(v.stuck(Stage::Running, 9001, small), stuck);
    // Any work resets it.
    v.progress(worker(1), works(6), 9002);
    assert_eq!(v.stuck(Stage::Running, 9003, small), None);
    // All wait for each other and none works: a deadlock, caused by the network.
    v.progress(worker(1), waits(6, 0, 1), 9002);
    v.progress(worker(0), waits(5, 1, 90), 17_000);
    v.progress(worker(1), waits(6, 0, 30), 17_000);
    let all = Some(Stuck::Deadlock(8001));
    assert_eq!(v.stuck(Stage::Running, 17_003, small), all);
}

#[test]
fn who_hangs_within_a_wait_does_not_pass_for_one_that_waits() {
    let mut v = liveness(3);
    v.step_took(10.0);
    for now in (0..=6000).step_by(250) {
        let stuck = v.stuck(Stage::Running, now, small);
        match now {
            ..=5250 => assert_eq!(stuck, None, "at {now}"),
            // Its last poll was at 250 ms.
            _ => assert_eq!(stuck, Some(Stuck::Member(worker(1), now, 5000))),
        }
        v.progress(worker(0), waits(0, 1, now), now);
        v.progress(worker(1), waits(0, 2, now.min(250)), now);
        v.progress(worker(2), waits(0, 1, now), now);
    }
}

#[test]
fn short_steps_leave_time_for_a_hiccup_and_forming_for_data() {
    let mut v = liveness(1);
    v.step_took(10.0);
    assert_eq!(v.stuck(Stage::Running, 5000, small), None);
    assert!(v.stuck(Stage::Running, 5001, small).is_some());
    for doing in [Stage::Forming, Stage::Finishing] {
        assert_eq!(v.stuck(doing, 15_000, small), None);
        assert!(v.stuck(doing, 15_001, small).is_some());
    }
    // A step in which a worker was stuck does not make the next limit longer.
    v.step_took(10.0);
    v.step_took(9_000.0);
    assert!(v.stuck(Stage::Running, 5001, small).is_some());
    let v = liveness(1);
    assert_eq!(v.stuck(Stage::Running, 60_000, small), None);
    assert!(v.stuck(Stage::Running, 60_001, small).is_some());
    assert_eq!(v.stuck(Stage::Forming, 30_000, small), None);
    assert!(v.stuck(Stage::Forming, 30_001, small).is_some());
}

/// Before the times of two steps are known. Who waits computes nothing, and neither does who has never been ready.
#[test]
fn a_piece_of_work_may_take_its_time() {
    let piece = || 200_000;
    let stuck = |v: &Liveness, stage, now| v.stuck(stage, now, piece);
    let is_first = |at| Some(Stuck::Member(worker(0), at, 200_000));
    let mut v = liveness(2);
    let others = |v: &mut Liveness, now| v.progress(worker(1), works(now), now);
    others(&mut v, 200_001);
    assert_eq!(stuck(&v, Stage::Forming, 30_000), None);
    let new = Some(Stuck::Member(worker(0), 30_001, 30_000));
    assert_eq!(stuck(&v, Stage::Forming, 30_001), new);
    assert_eq!(stuck(&v, Stage::Running, 200_000), None);
    assert_eq!(stuck(&v, Stage::Running, 200_001), is_first(200_001));
    // A worker joins while the others are in their first step.
    v.all_ready();
    v.begin((0..2).map(worker), 0);
    others(&mut v, 200_001);
    assert_eq!(stuck(&v, Stage::Forming, 200_000), None);
    assert_eq!(stuck(&v, Stage::Forming, 200_001), is_first(200_001));
    // It hangs within a wait.
    let mut hangs = v.clone();
    hangs.progress(worker(0), waits(0, 1, 1), 1000);
    assert_eq!(stuck(&hangs, Stage::Running, 61_000), None);
    let waits_on = Some(Stuck::Member(worker(0), 61_001, 60_000));
    assert_eq!(stuck(&hangs, Stage::Running, 61_001), waits_on);
    // The only known step may be the short one at the end of an epoch.
    v.step_took(1000.0);
    assert_eq!(stuck(&v, Stage::Running, 200_000), None);
    assert_eq!(stuck(&v, Stage::Running, 200_001), is_first(200_001));
    v.step_took(9000.0);
    assert_eq!(stuck(&v, Stage::Running, 90_000), None);
    let by_steps = Some(Stuck::Member(worker(0), 90_001, 90_000));
    assert_eq!(stuck(&v, Stage::Running, 90_001), by_steps);
}

/// Nobody computes then, so that no piece of work is waited for.
#[test]
fn a_deadlock_is_found_before_a_piece_of_work_could_be_done() {
    let mut v = liveness(2);
    for (i, other) in [(0, 1), (1, 0)] {
        v.progress(worker(i), waits(0, other, 1), 60_000);
    }
    assert_eq!(v.stuck(Stage::Running, 60_000, || 200_000), None);
    let all = Some(Stuck::Deadlock(60_001));
    assert_eq!(v.stuck(Stage::Running, 60_001, || 200_000), all);
}

#[test]
fn who_was_ready_before_needs_no_long_patience_when_a_generation_forms() {
    let mut v = liveness(2);
    v.step_took(10.0);
    v.all_ready();
    v.forget(&worker(1));
    // Worker 0 stays, worker 1 comes back, worker 2 is new.
    v.begin((0..3).map(worker), 100);
    for other in [1, 2] {
        v.progress(worker(other), works(1), 3000);
    }
    assert_eq!(v.stuck(Stage::Forming, 5100, small), None);
    let stuck = Some(Stuck::Member(worker(0), 5001, 5000));
    assert_eq!(v.stuck(Stage::Forming, 5101, small), stuck);
    // A worker that hangs while it waits to receive the state gets the short limit, because it has nothing else to do.
    let mut hangs = v.clone();
    hangs.forget(&worker(0));
    hangs.progress(worker(1), waits(1, 2, 3), 3100);
    assert_eq!(hangs.stuck(Stage::Forming, 8100, small), None);
    let stuck = Some(Stuck::Member(worker(1), 5101, 5000));
    assert_eq!(hangs.stuck(Stage::Forming, 8101, small), stuck);
    v.forget(&worker(0));
    assert_eq!(v.stuck(Stage::Forming, 18_000, small), None);
    assert!(v.stuck(Stage::Forming, 18_001, small).is_some());
}

#[test]
fn who_is_cut_off_is_who_most_cannot_reach() {
    let ranks = [worker(0), worker(1), worker(2)];
    let mut v = liveness(3);
    // The worker that is cut off is the first to report.
    v.cannot_reach(worker(1), vec![worker(0), worker(2)], 500);
    assert_eq!(v.cut_off(&ranks, 499), None);
    v.cannot_reach(worker(0), vec![worker(1)], 600);
    v.cannot_reach(worker(2), vec![worker(1)], 600);
    assert_eq!(v.wake(), Some(500));
    assert_eq!(v.cut_off(&ranks, 500), Some(worker(1)));
    // Reports about workers that are no members evict nobody.
    assert_eq!(v.cut_off(&[worker(3), worker(4)], 500), None);
    // Of two workers that cannot reach each other the first stays.
    let mut v = liveness(2);
    v.cannot_reach(worker(0), vec![worker(1)], 1);
    v.cannot_reach(worker(1), vec![worker(0)], 1);
    assert_eq!(v.cut_off(&ranks[..2], 1), Some(worker(1)));
}

#[test]
fn digests_are_compared_when_all_are_there() {
    let members = [worker(0), worker(1), worker(2)];
    let mut v = liveness(3);
    let mut say = |i, step, digest: u128| v.compare(&members, worker(i), step, digest);
    assert_eq!(say(0, 5, 1), Verdict::Incomplete);
    assert_eq!(say(1, 5, 1), Verdict::Incomplete);
    assert_eq!(say(2, 5, 1), Verdict::Agreed);
    say(0, 6, 1);
    say(1, 6, 2);
    assert_eq!(say(2, 6, 1), Verdict::Differ([worker(1)].into()));
    say(0, 7, 1);
    say(1, 7, 2);
    assert_eq!(say(2, 7, 3), Verdict::Disputed);
}

#[test]
fn strikes_grow_and_a_second_difference_is_for_good() {
    let mut v = liveness(1);
    v.penalize(&worker(0), 100);
    assert_eq!(v.barred_until(&worker(0)), 0);
    v.penalize(&worker(0), 100);
    assert_eq!(v.barred_until(&worker(0)), 4100);
    assert!(!v.differed(&worker(0)));
    assert!(v.differed(&worker(0)));
    assert_eq!(v.barred_until(&worker(0)), u64::MAX);
    v.reset_penalties();
    assert_eq!(v.barred_until(&worker(0)), 0);
    // A stuck worker gets a longer penalty, because all others had to wait for it.
    v.penalize_stuck(&worker(0), 100);
    assert_eq!(v.barred_until(&worker(0)), 8100);
    v.penalize_stuck(&worker(0), 10_000);
    assert_eq!(v.barred_until(&worker(0)), 74_000);
    v.penalize_stuck(&worker(0), 100_000);
    assert_eq!(v.barred_until(&worker(0)), 164_000);
}
