//! The data folder: whose it is, and what is in it.

use super::*;

#[test]
fn a_store_is_refused_as_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let process = Process::start(&data, &[]);
    process.signal("-TERM");
    assert_eq!(process.end().0, Some(0));
    let store = data.join("checkpoints");
    let before = std::fs::read_dir(&store).unwrap().count();
    let (code, _, err) = output(
        program()
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&store),
    );
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("is a store of checkpoints"), "{err}");
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), before);
}

#[test]
fn a_journal_that_was_moved_away_is_no_success_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let process = Process::start(&data, &[]);
    std::fs::rename(data.join("journal.db"), data.join("moved.db")).unwrap();
    process.signal("-TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("is not at its place any more"), "{log}");
    assert!(!log.contains("coordinator.stopped"), "{log}");
    std::fs::rename(data.join("moved.db"), data.join("journal.db")).unwrap();
    let process = Process::start(&data, &[]);
    process.signal("-TERM");
    assert_eq!(process.end().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_run_survives_sigkill_and_the_folder_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut first = Process::start(&data, &[]);
    let channel = first.channel().await;
    let tiny = dataset(dir.path(), "tiny", 1);
    pb::datasets_client::DatasetsClient::new(channel.clone())
        .create(tokio_stream::iter(parts(&tiny)))
        .await
        .unwrap();
    let request = pb::SubmitRequest { spec: Some(spec()) };
    RunsClient::new(channel).submit(request).await.unwrap();
    first.signal("-KILL");
    first.child.wait().unwrap();

    let second = Process::start(&data, &[]);
    let channel = second.channel().await;
    let request = pb::GetRunRequest {
        run_id: "r-1".into(),
    };
    let run = RunsClient::new(channel)
        .get(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(run.phase(), pb::Phase::Queued);

    let (code, _, err) = output(
        program()
            .args(["--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&data),
    );
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("another coordinator"), "{err}");

    second.signal("-TERM");
    let (code, log) = second.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("draining"), "{log}");
}

/// Nobody writes: a read is what meets the damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_found_damaged_ends_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Process::start(&data, &[]);
    let channel = first.channel().await;
    let tiny = dataset(dir.path(), "tiny", 1);
    pb::datasets_client::DatasetsClient::new(channel.clone())
        .create(tokio_stream::iter(parts(&tiny)))
        .await
        .unwrap();
    let mut runs = RunsClient::new(channel);
    let request = pb::SubmitRequest { spec: Some(spec()) };
    runs.submit(request).await.unwrap();
    let run_id = "r-1".to_owned();
    let request = pb::CancelRequest {
        run_id: run_id.clone(),
    };
    runs.cancel(request).await.unwrap();
    first.signal("-TERM");
    assert_eq!(first.end().0, Some(0));
    damage_the_ledger(&data.join("journal.db"));

    let second = Process::start(&data, &[]);
    let mut runs = RunsClient::new(second.channel().await);
    let losses = async {
        let request = pb::LossesRequest { run_id };
        let mut losses = runs.losses(request).await?.into_inner();
        while losses.message().await?.is_some() {}
        Ok::<(), tonic::Status>(())
    };
    losses.await.unwrap_err();
    let (code, log) = second.end();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("journal.corrupt"), "{log}");
    assert!(log.contains("coordinator.failed"), "{log}");
}

/// Gives run 1 a long ledger and damages its end, which a start does not read.
fn damage_the_ledger(journal: &Path) {
    let db = rusqlite::Connection::open(journal).unwrap();
    let insert = "WITH RECURSIVE steps(step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM steps LIMIT 20000)
                  INSERT INTO ledger (run, step, loss, count, samples) SELECT 1, step, 0.5, 2, x'0102' FROM steps";
    assert_eq!(db.execute(insert, []).unwrap(), 20_000);
    db.close().unwrap();
    let mut bytes = std::fs::read(journal).unwrap();
    // The first page of each table and index stays.
    let kept = 32 * 4096;
    assert!(bytes.len() > 2 * kept);
    bytes[kept..].fill(0xA5);
    std::fs::write(journal, bytes).unwrap();
}
