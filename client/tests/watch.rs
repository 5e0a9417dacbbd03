//! Watching across broken connections: no epoch missed, none reported twice.

use crate::common;
use std::time::Duration;

use common::{Fake, State, event, run, run_after};
use fovea_client::watch::{Cause, Patience, Update, Watcher};
use fovea_client::{Client, Error};
use fovea_proto::pb::Phase;
use tonic::Status;

fn quick() -> Patience {
    Patience {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
        limit_waits: (Duration::from_millis(1), Duration::from_millis(5)),
        give_up: Duration::from_secs(30),
        connect: Duration::from_secs(5),
    }
}

async fn watcher(fake: &Fake, patience: Patience) -> Watcher {
    let address = fake.serve().await;
    let client = Client::connect(&address, Duration::from_secs(5))
        .await
        .unwrap();
    Watcher::new(&client, "dr-1", patience).await.unwrap()
}

/// All updates to the end, in short.
async fn all(watcher: &mut Watcher) -> Result<Vec<String>, Error> {
    let mut reported = Vec::new();
    while let Some(update) = watcher.next().await? {
        reported.push(match update {
            Update::Run(run) => format!("run {}", run.phase.as_str()),
            Update::Step(step) => format!("step {}", step.step),
            Update::Epoch(epoch) => format!("epoch {}", epoch.epoch),
            Update::Checkpoint(info) => format!("checkpoint {}", info.step),
            Update::Note(text) => format!("note {text}"),
            Update::Reconnecting {
                cause: Cause::Away, ..
            } => "reconnecting".into(),
            Update::Reconnecting {
                cause: Cause::Limit,
                reason,
                attempt,
                ..
            } => format!("limit {attempt}: {reason}"),
        });
    }
    Ok(reported)
}

#[tokio::test]
async fn what_happened_while_disconnected_is_reported() {
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watches: [
            // The stream breaks off after the first epoch ...
            vec![
                event::run(run("dr-1", Phase::Running)),
                event::step(11),
                event::epoch(0),
                event::checkpoint(12),
                Err(Status::unavailable("going down")),
            ],
            // ... and once more, without a status, after a second epoch that only the snapshot has ...
            vec![
                event::run(run_after("dr-1", Phase::Running, 2)),
                event::step(25),
            ],
            // ... and the last epoch comes with the end.
            vec![
                event::run(run_after("dr-1", Phase::Running, 2)),
                event::epoch(2),
                event::run(run_after("dr-1", Phase::Completed, 3)),
            ],
        ]
        .into(),
        ..State::default()
    });
    let mut watcher = watcher(&fake, quick()).await;
    assert_eq!(
        all(&mut watcher).await.unwrap(),
        [
            "run running",
            "step 11",
            "epoch 0",
            "checkpoint 12",
            "reconnecting",
            "epoch 1",
            "checkpoint 24",
            "run running",
            "step 25",
            "reconnecting",
            "run running",
            "epoch 2",
            "checkpoint 36",
            "run completed",
        ]
    );
    assert!(
        watcher.next().await.unwrap().is_none(),
        "asked again after the end"
    );
}

#[tokio::test]
async fn a_late_watcher_sees_the_sizes_first_then_every_epoch() {
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Completed)),
        watches: [vec![event::run(run_after("dr-1", Phase::Completed, 3))]].into(),
        ..State::default()
    });
    let reported = all(&mut watcher(&fake, quick()).await).await.unwrap();
    assert_eq!(
        reported,
        [
            "run completed",
            "epoch 0",
            "checkpoint 12",
            "epoch 1",
            "checkpoint 24",
            "epoch 2",
            "checkpoint 36",
        ]
    );
}

/// A pause while watching, after a reconnect that skipped an epoch. The watch does not wait for more.
#[tokio::test]
async fn a_pause_ends_the_watch_and_loses_no_epoch() {
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watches: [
            vec![event::run(run("dr-1", Phase::Running)), event::epoch(0)],
            vec![
                event::run(run_after("dr-1", Phase::Finishing, 2)),
                event::run(run_after("dr-1", Phase::Paused, 2)),
            ],
        ]
        .into(),
        hang: false,
        ..State::default()
    });
    let reported = all(&mut watcher(&fake, quick()).await).await.unwrap();
    assert_eq!(
        reported,
        [
            "run running",
            "epoch 0",
            "reconnecting",
            "checkpoint 12",
            "epoch 1",
            "checkpoint 24",
            "run finishing",
            "run paused",
        ]
    );
    assert_eq!(fake.0.lock().unwrap().watched, 2, "it watched on");
}

/// However long the coordinator was away, its return is noticed within a second: the random part at
/// most doubles a wait.
#[test]
fn attempts_are_never_far_apart() {
    let patience = Patience::default();
    assert!(2 * patience.longest_wait <= Duration::from_secs(1));
    assert!(patience.first_wait < patience.longest_wait);
}

#[tokio::test]
async fn a_refusal_for_the_limit_of_watches_is_retried_with_longer_waits() {
    let refusal = || Status::resource_exhausted("200 watches (max_watches_per_client)");
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watch_refusals: [refusal(), refusal(), refusal()].into(),
        watches: [vec![event::run(run_after("dr-1", Phase::Paused, 0))]].into(),
        ..State::default()
    });
    let mut follower = watcher(&fake, quick()).await;
    assert_eq!(
        all(&mut follower).await.unwrap(),
        [
            "limit 1: 200 watches (max_watches_per_client)",
            "limit 2: 200 watches (max_watches_per_client)",
            "limit 3: 200 watches (max_watches_per_client)",
            "run paused",
        ]
    );
    assert_eq!(fake.0.lock().unwrap().watched, 4);

    // By default the waits grow from 2 s to 15 s, each with a random part of at most itself.
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watch_refusals: [refusal()].into(),
        ..State::default()
    });
    let mut follower = watcher(&fake, Patience::default()).await;
    match follower.next().await.unwrap().unwrap() {
        Update::Reconnecting { cause, wait, .. } => {
            assert_eq!(cause, Cause::Limit);
            assert!((2.0..=4.0).contains(&wait.as_secs_f64()), "{wait:?}");
        }
        other => panic!("{other:?}"),
    }

    // Patience ends here, too, with the limit as the reason.
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watch_refusals: vec![refusal(); 10_000].into(),
        ..State::default()
    });
    let impatient = Patience {
        give_up: Duration::from_millis(20),
        ..quick()
    };
    let error = all(&mut watcher(&fake, impatient).await).await.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let text = error.to_string();
    assert!(
        text.contains("at a limit: 200 watches (max_watches_per_client); gave up"),
        "{text}"
    );
}

#[tokio::test]
async fn an_epoch_that_was_repeated_is_reported_again() {
    let mut other = common::epoch(0);
    other.train_loss = Some(0.25);
    let mut snapshot = run("dr-1", Phase::Completed);
    snapshot.epochs = vec![other];
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watches: [vec![
            event::run(run("dr-1", Phase::Running)),
            event::epoch(0),
            event::epoch(0),
            event::run(snapshot),
        ]]
        .into(),
        ..State::default()
    });
    let reported = all(&mut watcher(&fake, quick()).await).await.unwrap();
    assert_eq!(
        reported,
        ["run running", "epoch 0", "epoch 0", "run completed"]
    );
}

/// The process is gone, connections and all, and comes back at the same address.
#[test]
fn a_restarted_coordinator_is_found_again() {
    let here = tokio::runtime::Runtime::new().unwrap();
    let first = tokio::runtime::Runtime::new().unwrap();
    let state = |script| State {
        run: Some(run("dr-1", Phase::Running)),
        watches: [script].into(),
        ..State::default()
    };
    let mut before = state(vec![
        event::run(run("dr-1", Phase::Running)),
        event::epoch(0),
    ]);
    before.hang = true;
    let listener = first
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let at = listener.local_addr().unwrap();
    first.spawn(Fake::new(before).serve_on(listener));

    let mut watcher = here.block_on(async {
        let client = Client::connect(&at.to_string(), Duration::from_secs(5))
            .await
            .unwrap();
        let mut watcher = Watcher::new(&client, "dr-1", quick()).await.unwrap();
        for _ in 0..2 {
            watcher.next().await.unwrap().unwrap();
        }
        watcher
    });
    first.shutdown_background();

    let second = here.spawn(async move {
        // The port is free once the old listener is dropped.
        let listener = loop {
            match tokio::net::TcpListener::bind(at).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let after = state(vec![event::run(run_after("dr-1", Phase::Completed, 3))]);
        Fake::new(after).serve_on(listener).await;
    });
    let reported = here.block_on(all(&mut watcher)).unwrap();
    let reported: Vec<&str> = reported
        .iter()
        .map(String::as_str)
        .filter(|t| *t != "reconnecting" && !t.starts_with("checkpoint"))
        .collect();
    assert_eq!(reported, ["epoch 1", "epoch 2", "run completed"]);
    second.abort();
}

#[tokio::test]
async fn patience_ends_with_an_error() {
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watches: [vec![event::run(run("dr-1", Phase::Running))]].into(),
        ..State::default()
    });
    let impatient = Patience {
        // Long enough for a second try on a machine that is busy.
        give_up: Duration::from_millis(500),
        ..quick()
    };
    let error = all(&mut watcher(&fake, impatient).await).await.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("fovea watch dr-1"), "{error}");
    assert!(fake.0.lock().unwrap().watched > 1, "it never tried again");
}

#[tokio::test]
async fn a_run_that_is_not_there_is_not_waited_for() {
    let address = Fake::default().serve().await;
    let client = Client::connect(&address, Duration::from_secs(5))
        .await
        .unwrap();
    let error = Watcher::new(&client, "dr-9", quick()).await.err().unwrap();
    assert_eq!(error.exit_code(), 4);
    assert_eq!(
        error.to_string(),
        "the coordinator refused: there is no run \"dr-9\""
    );
}

/// `next` is called inside `select!`: dropping it at any moment must lose nothing.
#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watches: [
            vec![event::run(run("dr-1", Phase::Running)), event::epoch(0)],
            vec![event::run(run_after("dr-1", Phase::Completed, 3))],
        ]
        .into(),
        ..State::default()
    });
    let mut watcher = watcher(&fake, quick()).await;
    let mut epochs = Vec::new();
    loop {
        tokio::select! {
            biased;
            update = watcher.next() => match update.unwrap() {
                Some(Update::Epoch(epoch)) => epochs.push(epoch.epoch),
                Some(_) => {}
                None => break,
            },
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(epochs, [0, 1, 2]);
}
