//! The life of runs over a real server: fake workers speak the protocol, people watch.

use crate::common;
use common::*;
use fovea_proto::pb;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::released::Outcome;
use fovea_proto::pb::run_event::Event;
use fovea_proto::pb::worker_message::Message as Up;
use pb::Phase;
use sha2::{Digest, Sha256};
use tonic::Code;

/// A coordinator with the dataset `tiny`.
async fn server(dir: &tempfile::TempDir) -> Server {
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let tiny = dataset(dir.path(), "tiny", 1);
    server.upload(&tiny).await.unwrap();
    server
}

async fn two_workers(server: &Server) -> [Worker; 2] {
    [
        Worker::join(server, "w0").await,
        Worker::join(server, "w1").await,
    ]
}

/// Both get the assignment and are ready.
async fn form(workers: &mut [Worker; 2]) -> pb::Assignment {
    let first = workers[0].assignment().await;
    let second = workers[1].assignment().await;
    assert_eq!(first, second, "all members get the same assignment");
    for worker in workers.iter() {
        worker.ready(&first).await;
    }
    first
}

async fn checkpoint(workers: &[Worker; 2], at: &pb::Assignment, step: u64, state: &[u8]) {
    for (rank, worker) in workers.iter().enumerate() {
        worker.upload(at, rank, step, state).await.unwrap();
    }
}

async fn download(server: &Server, run: &str, step: Option<u64>) -> (pb::Checkpoint, Vec<u8>) {
    use pb::checkpoint_chunk::Part;
    let request = pb::GetCheckpointRequest {
        run_id: run.into(),
        step,
    };
    let mut stream = server
        .checkpoints()
        .get(request)
        .await
        .unwrap()
        .into_inner();
    let Some(Part::Info(info)) = stream.message().await.unwrap().and_then(|m| m.part) else {
        panic!("no info")
    };
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        match chunk.part {
            Some(Part::Data(data)) => bytes.extend_from_slice(&data),
            other => panic!("{other:?}"),
        }
    }
    (info, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_submit_to_completed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut workers = two_workers(&server).await;
    let run = server.submit(spec()).await.unwrap();
    assert_eq!(run.id, "r-1");
    assert_eq!(run.phase(), Phase::Queued);
    assert_eq!((run.steps_per_epoch, run.total_steps), (2, 4));
    let mut watch = server.watch(&run.id).await;
    let at = form(&mut workers).await;
    assert_eq!(at.run_id, run.id);
    assert_eq!(at.mesh_key.len(), 16);
    assert_eq!((at.start_step, at.checkpoint.is_none()), (0, true));
    assert_eq!(at.dataset_digest, run.dataset_digest);
    let hosted: Vec<(&str, u32, u32)> = at
        .members
        .iter()
        .map(|m| (&*m.worker_id, m.first_virtual_rank, m.virtual_ranks))
        .collect();
    assert_eq!(hosted, [("w0", 0, 1), ("w1", 1, 1)]);

    watch.until(Phase::Running).await;
    for epoch in 0..2u32 {
        for step in 1..=2 {
            workers[0].step(&at, u64::from(epoch) * 2 + step).await;
        }
        for (rank, worker) in workers.iter().enumerate() {
            worker
                .scores(&at, rank as u32, epoch, run.validation_samples)
                .await;
        }
        let step = u64::from(epoch + 1) * 2;
        checkpoint(&workers, &at, step, &state(epoch)).await;
    }
    for worker in &workers {
        worker.released(&at, Outcome::CompletedStep(4)).await;
    }

    let (mut steps, mut epochs, mut checkpoints) = (vec![], vec![], vec![]);
    let mut last = None;
    while let Some(event) = watch.next().await {
        match event {
            Event::Step(report) => steps.push(report.step),
            Event::Epoch(result) => epochs.push(result),
            Event::Checkpoint(info) => checkpoints.push(info),
            Event::Run(run) => last = Some(run),
            Event::Note(_) => {}
        }
    }
    let run = last.unwrap();
    assert_eq!(run.phase(), Phase::Completed, "{run:?}");
    assert_eq!(steps, [1, 2, 3, 4]);
    assert_eq!(run.epochs, epochs);
    assert_eq!(epochs.len(), 2);
    assert_eq!(epochs[0].step, 2);
    assert_eq!(epochs[0].train_loss, Some(0.5));
    let validation = epochs[1].validation.as_ref().unwrap();
    assert_eq!(validation.samples, run.validation_samples);
    assert_eq!(validation.auc, Some(1.0));
    assert_eq!(run.checkpoints, checkpoints);

    // The stored file holds what was uploaded, and safetensors reads it.
    let (info, bytes) = download(&server, &run.id, None).await;
    assert_eq!(info, checkpoints[1]);
    assert_eq!(info.size_bytes, bytes.len() as u64);
    assert_eq!(info.sha256, hex::encode(Sha256::digest(&bytes)));
    let (header, _) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert!(bytes[8 + header..] == state(1)[..]);
    let (info, _) = download(&server, &run.id, Some(2)).await;
    assert_eq!(info.step, 2);

    // Both are idle again.
    let next = server.submit(spec()).await.unwrap();
    let at = form(&mut workers).await;
    assert_eq!((&*at.run_id, at.generation), (&*next.id, 1));
    server.stop_with(workers, &at).await;
}

impl Server {
    /// Stops it while `workers` serve `at`, which they have not begun.
    async fn stop_with(self, mut workers: [Worker; 2], at: &pb::Assignment) {
        self.ask_to_stop();
        for worker in &mut workers {
            let outcome = match worker.next().await {
                Down::Stop(_) => Outcome::StoppedStep(0),
                Down::Abort(_) => Outcome::Aborted(pb::Aborted {}),
                other => panic!("{other:?}"),
            };
            // After an abort nothing is waited for: the coordinator may be gone.
            worker.try_send(released(at, outcome)).await;
        }
        self.stopped().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_leads_to_a_new_generation_from_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut workers = two_workers(&server).await;
    let run = server.submit(spec()).await.unwrap();
    let at = form(&mut workers).await;
    let mut watch = server.watch(&run.id).await;
    watch.until(Phase::Running).await;
    workers[0].step(&at, 1).await;
    workers[0].step(&at, 2).await;
    checkpoint(&workers, &at, 2, &state(7)).await;
    while !matches!(watch.next().await, Some(Event::Checkpoint(_))) {}
    // Half a checkpoint, which will never be whole.
    workers[0].upload(&at, 0, 3, &state(8)).await.unwrap();

    let [mut survivor, lost] = workers;
    drop(lost);
    // The next generation begins at once: the survivor leaves the first and keeps its state.
    let again = survivor.assignment().await;
    assert_eq!((again.generation, again.start_step), (2, 2));
    assert!(!again.at_boundary && !again.discard_state);
    assert_eq!(again.lineage, at.lineage);
    assert_eq!(again.checkpoint.as_ref().unwrap().step, 2);
    assert_ne!(again.mesh_key, at.mesh_key);
    assert_eq!(again.members.len(), 1);
    assert_eq!(again.members[0].virtual_ranks, 2);
    let folder = dir.path().join("data/checkpoints").join(&run.id);
    let left: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        left.iter().all(|name| !name.starts_with("tmp-")),
        "{left:?}"
    );
    refused(
        survivor.upload(&at, 0, 3, &state(8)).await,
        Code::FailedPrecondition,
        "generation 1",
    );

    survivor.ready(&again).await;
    survivor.step(&again, 3).await;
    survivor.step(&again, 4).await;
    survivor.upload(&again, 0, 4, &state(9)).await.unwrap();
    survivor.released(&again, Outcome::CompletedStep(4)).await;
    let run = watch.until(Phase::Completed).await;
    assert_eq!(run.generation, 2);
    let steps: Vec<u64> = run.checkpoints.iter().map(|c| c.step).collect();
    assert_eq!(steps, [2, 4]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_loses_a_worker_and_a_leaving_one_gets_no_work() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), |config| {
        config.heartbeat_ms = 100;
        config.timeout_ms = 1000;
    })
    .await;
    let tiny = dataset(dir.path(), "tiny", 1);
    server.upload(&tiny).await.unwrap();
    // A worker whose connection broke is back before the coordinator noticed: the old session is closed.
    let before = Worker::join(&server, "silent").await;
    let mut silent = Worker::join(&server, "silent").await;
    drop(before);
    let mut spec = spec();
    spec.workers = Some(pb::WorkersSpec {
        min: Some(1),
        max: Some(1),
        ..Default::default()
    });
    let run = server.submit(spec).await.unwrap();
    let at = silent.assignment().await;
    assert_eq!(at.members[0].worker_id, "silent");
    silent.stop_heartbeats();
    let end = silent.end().await;
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end:?}");
    let mut watch = server.watch(&run.id).await;
    let queued = watch.until(Phase::Queued).await;
    assert!(queued.reason.contains("silent"), "{}", queued.reason);
    let none_idle = |run: &pb::Run| run.reason.contains("idle: 0");
    server.run_when(&run.id, "no idle worker", none_idle).await;

    // A busy worker that will leave stops its run at a boundary first.
    let mut worker = Worker::join(&server, "third").await;
    let at = worker.assignment().await;
    assert_eq!(at.generation, 2);
    worker.ready(&at).await;
    watch.until(Phase::Running).await;
    worker.send(Up::Leaving(pb::Leaving {})).await;
    assert!(matches!(worker.next().await, Down::Stop(_)));
    worker.upload(&at, 0, 1, &state(1)).await.unwrap();
    worker.released(&at, Outcome::StoppedStep(1)).await;
    let queued = watch.until(Phase::Queued).await;
    assert_eq!(queued.checkpoints.len(), 1);
    // Though one is there.
    server.run_when(&run.id, "no idle worker", none_idle).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_checkpoints_and_resume_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let run = server.submit(spec()).await.unwrap();
    let cancel = || pb::CancelRequest {
        run_id: run.id.clone(),
    };
    let resume = |checkpoint_step| pb::ResumeRequest {
        run_id: run.id.clone(),
        checkpoint_step,
    };
    refused(
        server.runs().resume(resume(None)).await,
        Code::FailedPrecondition,
        "queued",
    );
    let mut watch = server.watch(&run.id).await;
    let mut worker = Worker::join(&server, "w0").await;
    let at = worker.assignment().await;
    worker.ready(&at).await;
    watch.until(Phase::Running).await;
    worker.step(&at, 1).await;
    let cancelling = server.runs().cancel(cancel()).await.unwrap().into_inner();
    assert_eq!(cancelling.phase(), Phase::Running);
    assert!(cancelling.reason.contains("cancelled"));
    assert!(matches!(worker.next().await, Down::Stop(_)));
    worker.upload(&at, 0, 1, &state(3)).await.unwrap();
    worker.released(&at, Outcome::StoppedStep(1)).await;
    watch.until(Phase::Cancelled).await;
    assert!(watch.next().await.is_none(), "the stream ends with the run");
    refused(
        server.runs().cancel(cancel()).await,
        Code::FailedPrecondition,
        "already cancelled",
    );
    refused(
        server.runs().resume(resume(Some(9))).await,
        Code::NotFound,
        "step 9",
    );

    let resumed = server.runs().resume(resume(Some(1))).await.unwrap();
    assert_ne!(resumed.into_inner().phase(), Phase::Cancelled);
    let again = worker.assignment().await;
    assert_eq!((again.generation, again.start_step), (2, 1));
    // The same step can be checkpointed by the new generation; the newer file replaces the older.
    worker.ready(&again).await;
    worker.upload(&again, 0, 1, &state(4)).await.unwrap();
    worker.upload(&again, 0, 1, &state(4)).await.unwrap();
    let mut watch = server.watch(&run.id).await;
    loop {
        if let Some(Event::Checkpoint(info)) = watch.next().await {
            assert_eq!((info.step, info.generation), (1, 2));
            break;
        }
        if server.run(&run.id).await.checkpoints[0].generation == 2 {
            break;
        }
    }
    let (info, bytes) = download(&server, &run.id, Some(1)).await;
    assert_eq!(info.generation, 2);
    assert!(bytes.ends_with(&state(4)));
    // Everyone lets go without the last checkpoint: it is tried again, but not for ever.
    let mut at = again;
    for generation in 3.. {
        worker.released(&at, Outcome::CompletedStep(4)).await;
        if generation == 7 {
            break;
        }
        at = worker.assignment().await;
        assert_eq!(at.generation, generation);
        worker.ready(&at).await;
    }
    let failed = watch.until(Phase::Failed).await;
    assert!(
        failed.reason.contains("final checkpoint"),
        "{}",
        failed.reason
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_checkpoints_runs_and_a_restart_takes_them_up() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(&dir).await;
    let run = first.submit(spec()).await.unwrap();
    let done = first.submit(spec()).await.unwrap();
    let cancelled = pb::CancelRequest {
        run_id: done.id.clone(),
    };
    first.runs().cancel(cancelled).await.unwrap();
    let mut watch = first.watch(&run.id).await;
    let mut worker = Worker::join(&first, "w0").await;
    let at = worker.assignment().await;
    worker.ready(&at).await;
    watch.until(Phase::Running).await;
    worker.step(&at, 1).await;
    first.ask_to_stop();
    assert!(matches!(worker.next().await, Down::Stop(_)));
    worker.upload(&at, 0, 1, &state(5)).await.unwrap();
    worker.released(&at, Outcome::StoppedStep(1)).await;
    watch.until(Phase::Queued).await;
    let end = worker.end().await;
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    first.stopped().await.unwrap();

    let second = Server::start(&dir.path().join("data"), |_| {}).await;
    let listed = second.runs().list(pb::ListRunsRequest::default()).await;
    let runs = listed.unwrap().into_inner().runs;
    let known: Vec<(&str, Phase)> = runs.iter().map(|r| (&*r.id, r.phase())).collect();
    assert_eq!(known, [("r-2", Phase::Cancelled), ("r-1", Phase::Queued)]);
    assert_eq!(runs[1].checkpoints.len(), 1);
    let (_, bytes) = download(&second, "r-1", None).await;
    assert!(bytes.ends_with(&state(5)));
    let third = second.submit(spec()).await.unwrap();
    assert_eq!(third.id, "r-3");
    let mut worker = Worker::join(&second, "w0").await;
    let at = worker.assignment().await;
    assert_eq!((&*at.run_id, at.generation, at.start_step), ("r-1", 2, 1));
    drop(worker);

    // A checkpoint whose file is damaged is not offered any more.
    second.stop().await;
    let folder = dir.path().join("data/checkpoints/r-1");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().unwrap() == "safetensors" {
            std::fs::write(path, "short").unwrap();
        }
    }
    let third = Server::start(&dir.path().join("data"), |_| {}).await;
    let gone = async { while !third.run("r-1").await.checkpoints.is_empty() {} };
    soon("the corrupt checkpoint's end", gone).await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_misses_no_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut spec = spec();
    spec.train.as_mut().unwrap().epochs = Some(5000);
    let run = server.submit(spec).await.unwrap();
    // On a connection of its own, which holds little: what it leaves unread must not hold up the
    // others.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address))
        .unwrap()
        .initial_stream_window_size(16 << 10)
        .connect()
        .await
        .unwrap();
    let request = pb::WatchRequest {
        run_id: run.id.clone(),
    };
    let slow = pb::runs_client::RunsClient::new(channel)
        .watch(request)
        .await;
    let mut slow = Watch(slow.unwrap().into_inner());
    let mut quick = server.watch(&run.id).await;
    let mut worker = Worker::join(&server, "w0").await;
    let at = worker.assignment().await;
    worker.ready(&at).await;
    let samples = run.validation_samples as u32;
    // Far more than the connection and the coordinator hold for one that does not read.
    let reader = tokio::spawn(async move {
        loop {
            match quick.next().await {
                Some(Event::Epoch(result)) if result.epoch == 3999 => return,
                Some(Event::Run(run)) if run.epochs.iter().any(|e| e.epoch == 3999) => return,
                Some(_) => {}
                None => panic!("ended"),
            }
        }
    });
    for step in 1..=8000u64 {
        worker.step(&at, step).await;
        if step == 1000 || step == 8000 {
            let epoch = (step / 2 - 1) as u32;
            worker.send(scores(&at, epoch, 0..samples)).await;
        }
    }
    soon("the quick watcher", reader).await.unwrap();
    // The slow one begins to read only now.
    let (mut epochs, mut steps) = (std::collections::BTreeSet::new(), 0);
    while !epochs.contains(&3999) {
        match slow.next().await.expect("the run goes on") {
            Event::Run(run) => epochs.extend(run.epochs.iter().map(|e| e.epoch)),
            Event::Epoch(result) => {
                epochs.insert(result.epoch);
            }
            Event::Step(_) => steps += 1,
            Event::Checkpoint(_) | Event::Note(_) => {}
        }
    }
    assert!(epochs.contains(&499), "{epochs:?}");
    assert!(steps < 8000, "it did not lag: the test shows nothing");
    let message = pb::CancelRequest {
        run_id: run.id.clone(),
    };
    server.runs().cancel(message).await.unwrap();
    drop(worker);
    server.stop().await;
}
