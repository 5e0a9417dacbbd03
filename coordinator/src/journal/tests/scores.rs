//! Scores of evaluated epochs in the journal.

use fovea_core::run::{EpochMaps, EpochScores};

use super::*;

/// Scores lie beside the run: written with it, cut with the ledger, removed with it.
#[tokio::test]
async fn scores_are_kept_as_long_as_their_epoch() {
    let (_folder, path) = place();
    let journal = open(&path).0;
    let scores = |epoch: u32| EpochScores {
        epoch,
        step: u64::from(epoch + 1) * 10,
        classes: 2,
        probabilities: vec![0.25, 0.75, f32::MIN_POSITIVE, 1.0 - f32::EPSILON],
        // Those of the second epoch alone.
        maps: (epoch == 1).then(|| EpochMaps {
            height: 1,
            width: 3,
            values: vec![-2.5, f32::MIN_POSITIVE, 0.0, 7.0, 1.0, -0.0],
        }),
    };
    let put = async |journal: &Journal, rewind: Option<u64>, scores: Option<&EpochScores>| {
        let run = run(1);
        let change = RunChange {
            number: 1,
            run: Some(&run),
            rewind,
            steps: vec![],
            scores,
            train_samples: SPLIT,
            head: 0,
        };
        let written = journal.put_run(change, Urgency::Now, OnFull::Wait).await;
        written.unwrap();
    };
    for epoch in 0..3 {
        put(&journal, None, Some(&scores(epoch))).await;
    }
    journal.close().await.unwrap();
    let journal = open(&path).0;
    for epoch in 0..3 {
        let found = journal.scores(1, u64::from(epoch + 1) * 10).await.unwrap();
        assert_eq!(found, Some(scores(epoch)));
    }
    assert_eq!(journal.scores(1, 15).await.unwrap(), None);
    assert_eq!(journal.scores(2, 10).await.unwrap(), None);
    // In one transaction with what is written anew.
    put(&journal, Some(10), Some(&scores(1))).await;
    assert_eq!(journal.scores(1, 10).await.unwrap(), Some(scores(0)));
    assert_eq!(journal.scores(1, 20).await.unwrap(), Some(scores(1)));
    assert_eq!(journal.scores(1, 30).await.unwrap(), None);
    journal.remove_run(1).await.unwrap();
    assert_eq!(journal.scores(1, 10).await.unwrap(), None);
}

/// A journal of an earlier build of the same version has no table for scores.
#[tokio::test]
async fn a_journal_without_scores_is_opened() {
    let (_folder, path) = place();
    let journal = open(&path).0;
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    journal
        .with(|db| {
            db.execute_batch("DROP TABLE scores; DROP TABLE maps")
                .unwrap()
        })
        .await;
    journal.close().await.unwrap();
    let (journal, found) = open(&path);
    assert_eq!(found.live.len(), 1);
    assert_eq!(journal.scores(1, 10).await.unwrap(), None);
}
