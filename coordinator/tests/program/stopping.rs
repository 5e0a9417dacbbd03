//! Requests to stop, with a worker that does not answer, and with a successor.

use super::*;

/// A session that holds a run and never lets go.
async fn stuck_worker(process: &Process, dir: &Path) -> tonic::Streaming<pb::CoordinatorMessage> {
    let channel = process.channel().await;
    let tiny = dataset(dir, "tiny", 1);
    pb::datasets_client::DatasetsClient::new(channel.clone())
        .create(tokio_stream::iter(parts(&tiny)))
        .await
        .unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let message = Some(hello("stuck"));
    sender.send(pb::WorkerMessage { message }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut down = pb::workers_client::WorkersClient::new(channel.clone())
        .session(stream)
        .await
        .unwrap()
        .into_inner();
    down.message().await.unwrap().unwrap();
    let request = pb::SubmitRequest { spec: Some(spec()) };
    let mut runs = RunsClient::new(channel);
    let accepted = runs.submit(request).await.unwrap().into_inner();
    let message = down.message().await.unwrap().unwrap().message;
    let Some(pb::coordinator_message::Message::Assignment(at)) = message else {
        panic!("no assignment: {message:?}")
    };
    // A run that only forms would be released at once.
    let message = Some(ready(&at));
    sender.send(pb::WorkerMessage { message }).await.unwrap();
    let request = pb::WatchRequest {
        run_id: accepted.run.unwrap().id,
    };
    let watch = runs.watch(request).await.unwrap().into_inner();
    Watch(watch).until(pb::Phase::Running).await;
    // It stays connected as long as the test reads `down`, and sends nothing more.
    tokio::spawn(async move { sender.closed().await });
    down
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_quits_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut process = Process::start_patient(&data, "3600");
    let _down = stuck_worker(&process, dir.path()).await;
    process.signal("-TERM");
    process.until("draining");
    process.signal("-TERM");
    assert_eq!(process.end().0, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_ends_with_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let process = Process::start_patient(&data, "0");
    let _down = stuck_worker(&process, dir.path()).await;
    process.signal("-TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(5), "{log}");
    assert!(log.contains("drain_timeout_s"), "{log}");
}

/// One after the other, until the first lets go of the folder. A supervisor that starts it again and again does this.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_hand_over_the_next_coordinator_gets_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Process::start_with(
        &data,
        "on_stop = 'hand-over'\ntimeout_ms = 600000\nforming_grace_ms = 0",
    );
    let mut down = stuck_worker(&first, dir.path()).await;
    let refused = next_coordinator(&data).unwrap_err();
    let asked = Instant::now();
    first.signal("-TERM");
    let first = std::thread::spawn(move || (first.end(), asked.elapsed()));
    let mut refusals = vec![refused];
    let mut next = loop {
        match next_coordinator(&data) {
            Ok(child) => break child,
            Err(refused) => refusals.push(refused),
        }
    };
    let _ = next.kill();
    let _ = next.wait();
    for (code, log) in refusals {
        assert_eq!(code, Some(4), "{log}");
        assert!(log.contains("is used by another coordinator"), "{log}");
    }
    let ((code, log), took) = first.join().unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(2), "it took {took:?}: {log}");
    assert!(log.contains("shutdown.handing_over: "), "{log}");
    assert!(!log.contains("worker.lost: "), "{log}");
    // The worker was sent nothing but the end of its session.
    let end = down.message().await.unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
}

/// Starts another coordinator on the folder. Returns it once it serves, or its exit code and its log.
fn next_coordinator(data: &Path) -> Result<Child, (Option<i32>, String)> {
    let mut child = program()
        .args(["--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(data)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut log, mut text) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    while log.read_line(&mut text).unwrap() > 0 {
        if text.contains("coordinator.listening: ") {
            return Ok(child);
        }
    }
    Err((child.wait().unwrap().code(), text))
}
