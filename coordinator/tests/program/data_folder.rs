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
