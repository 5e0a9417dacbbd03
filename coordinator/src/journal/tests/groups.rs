//! Groups of runs in the journal.

use fovea_core::group::{Group, Member, group_id};

use super::*;

/// A group with number `number`, and two runs with the next numbers.
fn group(number: u64) -> (Group, Vec<Run>) {
    let id = group_id("a", number).unwrap();
    let runs: Vec<Run> = [number + 1, number + 2]
        .map(|number| {
            let mut run = run(number);
            run.group = Some(id.clone());
            run
        })
        .into();
    let member = |run: &Run| Member {
        run: run.id.clone(),
        variant: 0,
        fold: None,
        seed: run.number,
    };
    let group = Group {
        id,
        number,
        name: "a".into(),
        submitted_at_ms: 7,
        submitted_by: Some("ann".into()),
        variants: Vec::new(),
        selection: None,
        runs: runs.iter().map(member).collect(),
    };
    (group, runs)
}

#[tokio::test]
async fn a_group_is_there_with_its_runs_and_goes_with_the_last_of_them() {
    let (_folder, path) = place();
    let journal = open(&path).0;
    let (first, runs) = group(1);
    let (second, others) = group(4);
    journal.put_group(&first, &runs).await.unwrap();
    journal.put_group(&second, &others).await.unwrap();
    journal.close().await.unwrap();
    let (journal, recovered) = open(&path);
    assert_eq!(recovered.next_run, 7);
    let live: Vec<u64> = recovered.live.iter().map(|l| l.run.number).collect();
    assert_eq!(live, [2, 3, 5, 6]);
    assert_eq!(recovered.live[0].run.group, Some(first.id.clone()));
    assert_eq!(journal.group(1).await.unwrap(), Some(first.clone()));
    assert_eq!(journal.group(2).await.unwrap(), None, "that is a run");
    let listed = journal.groups_before(u64::MAX, 10).await.unwrap();
    assert_eq!(listed, [second.clone(), first.clone()]);
    assert_eq!(
        journal.groups_before(4, 10).await.unwrap(),
        std::slice::from_ref(&first)
    );
    assert_eq!(journal.groups_before(u64::MAX, 1).await.unwrap(), [second]);

    journal.remove_run(3).await.unwrap();
    assert_eq!(journal.group(1).await.unwrap(), Some(first));
    // Twice is once.
    journal.remove_run(3).await.unwrap();
    journal.remove_run(2).await.unwrap();
    assert_eq!(journal.group(1).await.unwrap(), None);
    assert!(journal.group(4).await.unwrap().is_some());
}

#[tokio::test]
async fn all_runs_of_a_group_are_written_or_none() {
    let (_folder, path) = place();
    let journal = open(&path).0;
    let mut taken = run(9);
    taken.id = RunId::new("a-3").unwrap();
    journal.put(&taken, OnFull::Refuse).await.unwrap();
    let (refused, runs) = group(1);
    journal.put_group(&refused, &runs).await.unwrap_err();
    assert_eq!(journal.group(1).await.unwrap(), None);
    assert_eq!(journal.run(2).await.unwrap(), None);
    // The journal goes on.
    let (next, runs) = group(10);
    journal.put_group(&next, &runs).await.unwrap();
    assert!(journal.run(12).await.unwrap().is_some());
    // A run in it begins like any other.
    assert_eq!(journal.append(12, steps(1, 2)).await.unwrap(), 2);
}

/// A journal of an earlier build of the same version has no tables for groups.
#[tokio::test]
async fn a_journal_without_groups_is_opened() {
    let (_folder, path) = place();
    let journal = open(&path).0;
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let drop = "DROP TABLE run_groups; DROP TABLE group_runs";
    journal.with(|db| db.execute_batch(drop).unwrap()).await;
    journal.close().await.unwrap();
    let journal = open(&path).0;
    assert_eq!(journal.groups_before(u64::MAX, 9).await.unwrap(), []);
    let (group, runs) = group(2);
    journal.put_group(&group, &runs).await.unwrap();
    journal.remove_run(1).await.unwrap();
    assert_eq!(journal.group(2).await.unwrap(), Some(group));
}
