//! How fast the journal is. What depends on the machine is measured on request only.

use std::time::Instant;

use rusqlite::params;

use super::*;

/// A journal with so many live runs of so many steps, in epochs of 1000 steps.
async fn generate(path: &Path, runs: u64, steps: u64) {
    let (journal, _) = open(path);
    for number in 1..=runs {
        let mut run = run(number);
        run.extent.steps_per_epoch = 1000;
        run.extent.total_steps = 2 * steps;
        run.epochs = (0..(steps / 1000 - 1) as u32)
            .map(|epoch| fovea_core::run::EpochResult {
                epoch,
                step: 1000 * (u64::from(epoch) + 1),
                train_loss: Some(0.5),
                validation: fovea_core::metrics::evaluate(
                    &[],
                    fovea_core::spec::Scheme::softmax(5, 1),
                ),
            })
            .collect();
        journal.put(&run, OnFull::Wait).await.unwrap();
    }
    journal
        .with(move |db| {
            for number in 1..=runs as i64 {
                db.execute(
                    "WITH RECURSIVE steps (step) AS
                         (SELECT 1 UNION ALL SELECT step + 1 FROM steps WHERE step < ?2)
                     INSERT INTO ledger SELECT ?1, step, 0.5, 32, zeroblob(64) FROM steps",
                    params![number, steps as i64],
                )
                .unwrap();
                rows::set_head(db, number as u64, steps).unwrap();
            }
        })
        .await;
    journal.close().await.unwrap();
}

/// Elapsed time and processor time that opening takes.
async fn opens(runs: u64, steps: u64) -> (Duration, Duration) {
    let (_folder, path) = place();
    generate(&path, runs, steps).await;
    let (begun, used) = (Instant::now(), thread_time());
    let (journal, found) = open(&path);
    let took = (begun.elapsed(), thread_time() - used);
    assert_eq!(found.live.len() as u64, runs);
    for run in &found.live {
        assert_eq!(run.ledger_head, steps);
        assert_eq!(run.losses.len(), 1000);
    }
    journal.close().await.unwrap();
    took
}

/// The time to open does not follow the length of the ledgers. Processor time, because the machine may be busy.
#[tokio::test]
async fn a_store_with_long_ledgers_opens_at_once() {
    let (_, short) = opens(20, 2_000).await;
    let (_, long) = opens(20, 20_000).await;
    assert!(long < 4 * short, "{short:?} and ten times as long {long:?}");
}

#[tokio::test]
#[ignore = "a measurement: writes 2 GB"]
async fn measure_opening_200_runs_of_100_000_steps() {
    if children::given().is_some() {
        return;
    }
    for steps in [10_000, 100_000] {
        let (elapsed, used) = opens(200, steps).await;
        println!("200 runs of {steps} steps: open in {elapsed:.2?}, processor {used:.2?}");
        assert!(used < Duration::from_secs(2), "{used:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: takes 20 s"]
async fn measure_100_writers() {
    if children::given().is_some() {
        return;
    }
    for (name, urgency, reading) in [
        ("now", Urgency::Now, false),
        ("soon", Urgency::Soon, false),
        ("now, with an audit", Urgency::Now, true),
    ] {
        let (_folder, path) = place();
        generate(&path, 1, 100_000).await;
        let (journal, _) = open(&path);
        let begun = Instant::now();
        let reader = tokio::spawn({
            let journal = journal.clone();
            async move {
                let mut read = 0;
                while reading && begun.elapsed() < Duration::from_secs(5) {
                    read += journal
                        .steps(1, SPLIT, 1, usize::MAX)
                        .await
                        .unwrap()
                        .0
                        .len();
                }
                read
            }
        });
        let mut writers = tokio::task::JoinSet::new();
        for number in 2..=101 {
            let journal = journal.clone();
            writers.spawn(async move {
                let mut waits = Vec::new();
                for at in 1.. {
                    let sent = Instant::now();
                    journal
                        .put_run(
                            RunChange {
                                number,
                                run: None,
                                rewind: None,
                                steps: vec![step(at, &[1; 200])],
                                scores: None,
                                train_samples: SPLIT,
                                head: 0,
                            },
                            urgency,
                            OnFull::Wait,
                        )
                        .await
                        .unwrap();
                    waits.push(sent.elapsed());
                    if begun.elapsed() > Duration::from_secs(5) {
                        break;
                    }
                }
                waits
            });
        }
        let mut waits = writers.join_all().await.concat();
        waits.sort();
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
        let stats = journal.stats();
        println!(
            "{name}: {:.0} writes/s in {:.0} commits/s; latency p50 {:.1?}, p99 {:.1?}, max {:.1?}; mean \
             commit {:.1?}; {} steps read",
            waits.len() as f64 / 5.0,
            stats.commits as f64 / 5.0,
            at(0.5),
            at(0.99),
            at(1.0),
            stats.commit_time / u32::try_from(stats.commits).unwrap(),
            reader.await.unwrap()
        );
        let sent = Instant::now();
        journal
            .put_run(
                RunChange {
                    number: 1,
                    run: None,
                    rewind: Some(1),
                    steps: vec![],
                    scores: None,
                    train_samples: SPLIT,
                    head: 0,
                },
                Urgency::Now,
                OnFull::Wait,
            )
            .await
            .unwrap();
        println!("a rewind of 100,000 steps: {:.1?}", sent.elapsed());
        journal.close().await.unwrap();
    }
}
