//! The checkpoint store is away, or one of its files, while a run is queued, forming or storing its last checkpoint.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use pb::released::Outcome;
use tonic::Status;

use super::*;

/// How a file or a folder cannot be used.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// As with a volume that is not mounted.
    Moved,
    /// As with `chmod 000`.
    Forbidden,
}

const OUTAGES: [Outage; 2] = [Outage::Moved, Outage::Forbidden];

impl Outage {
    fn begin(self, path: &Path) {
        match self {
            Self::Moved => fs::rename(path, path.with_extension("away")).unwrap(),
            Self::Forbidden => fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap(),
        }
    }

    fn end(self, path: &Path) {
        match self {
            Self::Moved => fs::rename(path.with_extension("away"), path).unwrap(),
            Self::Forbidden => fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap(),
        }
    }

    /// Part of the reason that people are shown.
    fn reason(self) -> &'static str {
        match self {
            Self::Moved => "",
            Self::Forbidden => "ermission denied",
        }
    }
}

/// A run with checkpoints at steps 1 and 2, and its only worker.
async fn two_checkpoints(place: &Place, server: &Server) -> (pb::Run, Worker) {
    let (run, at, mut worker) = begin(server).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
        checkpoint(server, &worker, &at, step).await;
    }
    (run, worker)
}

/// Reads a checkpoint, as a worker that starts from it does.
async fn fetch(server: &Server, run: &pb::Run, step: u64) -> Result<usize, Status> {
    let request = pb::GetCheckpointRequest {
        run_id: run.id.clone(),
        step: Some(step),
    };
    let mut stream = server.checkpoints().get(request).await?.into_inner();
    let mut pieces = 0;
    while stream.message().await?.is_some() {
        pieces += 1;
    }
    Ok(pieces)
}

/// Waits until people are shown that the run waits for checkpoint 2.
async fn waits(server: &Server, run: &pb::Run, outage: Outage) -> pb::Run {
    server
        .run_when(&run.id, "the reason", |run| {
            run.reason.contains("checkpoint 2 cannot be read")
                && run.reason.contains(outage.reason())
        })
        .await
}

fn listed(run: &pb::Run) -> Vec<u64> {
    run.checkpoints.iter().map(|c| c.step).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_run_waits_until_the_store_is_back() {
    for outage in OUTAGES {
        let place = Place::new();
        let server = place.fresh_unprivileged_server(|_| {}).await;
        let (run, worker) = two_checkpoints(&place, &server).await;
        let before = place.stored(&run);
        outage.begin(&place.checkpoints());
        drop(worker);
        waits(&server, &run, outage).await;
        let mut worker = Worker::join(&server, "w1").await;
        // It has looked at the older one, too, with a worker at hand.
        let waits = server
            .run_when(&run.id, "that it waits", |run| {
                run.reason.contains("the run waits for the store")
            })
            .await;
        assert_eq!(
            (waits.phase(), waits.generation),
            (Phase::Queued, 1),
            "{outage:?}"
        );
        assert_eq!(listed(&waits), [1, 2]);

        outage.end(&place.checkpoints());
        let at = worker.assignment().await;
        assert_eq!((at.generation, at.start_step), (2, 2), "{outage:?}");
        worker.ready(&at).await;
        place.step(&mut worker, &at, 3).await;
        assert_eq!(place.stored(&run), before);
        assert_eq!(server.run(&run.id).await.reason, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forming_run_waits_until_the_store_is_back() {
    for outage in OUTAGES {
        let place = Place::new();
        let server = place.fresh_unprivileged_server(|_| {}).await;
        let (run, worker) = two_checkpoints(&place, &server).await;
        let before = place.stored(&run);
        drop(worker);
        let mut worker = Worker::join(&server, "w1").await;
        let at = worker.assignment().await;
        assert_eq!((at.generation, at.start_step), (2, 2));

        outage.begin(&place.checkpoints());
        let failed = fetch(&server, &run, 2).await;
        refused(failed, Code::Unavailable, outage.reason());
        let waits = waits(&server, &run, outage).await;
        assert_eq!(
            (waits.phase(), waits.generation),
            (Phase::Forming, 2),
            "{outage:?}"
        );
        assert_eq!(listed(&waits), [1, 2]);

        outage.end(&place.checkpoints());
        assert!(fetch(&server, &run, 2).await.unwrap() > 0);
        worker.ready(&at).await;
        place.step(&mut worker, &at, 3).await;
        assert_eq!(place.stored(&run), before);
        assert_eq!(server.run(&run.id).await.reason, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_patience_a_run_goes_on_from_the_checkpoint_before_and_deletes_nothing() {
    for outage in OUTAGES {
        for forming in [false, true] {
            let place = Place::new();
            let impatient = |config: &mut Config| config.unreadable_patience_s = 1;
            let server = place.fresh_unprivileged_server(impatient).await;
            let (run, worker) = two_checkpoints(&place, &server).await;
            let folder = place.checkpoints().join(&run.id);
            let newest = folder.join("step-0000000002.g1.safetensors");
            let before = place.stored(&run);
            assert_eq!(before.len(), 2);
            let mut worker = if forming {
                drop(worker);
                let mut next = Worker::join(&server, "w1").await;
                let at = next.assignment().await;
                assert_eq!((at.generation, at.start_step), (2, 2));
                outage.begin(&newest);
                let failed = fetch(&server, &run, 2).await;
                refused(failed, Code::Unavailable, outage.reason());
                next
            } else {
                outage.begin(&newest);
                drop(worker);
                let waits = waits(&server, &run, outage).await;
                assert!(
                    waits.reason.contains("going on from checkpoint 1"),
                    "{}",
                    waits.reason
                );
                Worker::join(&server, "w1").await
            };
            let at = worker.assignment().await;
            let generation = if forming { 3 } else { 2 };
            assert_eq!(
                (at.generation, at.start_step),
                (generation, 1),
                "{outage:?}"
            );
            worker.ready(&at).await;
            place.step(&mut worker, &at, 2).await;

            outage.end(&newest);
            assert_eq!(place.stored(&run), before, "{outage:?}");
            let goes_on = server.run(&run.id).await;
            assert_eq!(goes_on.phase(), Phase::Running);
            assert_eq!(listed(&goes_on), [1, 2]);
            assert_eq!(server.run(&run.id).await.reason, "");
        }
    }
}

/// All that a run does until the store goes away, when one worker has released it and the other's slice completes its last
/// checkpoint.
async fn finishing(place: &Place, server: &Server, outage: Outage) -> (pb::Run, [Worker; 2]) {
    let mut workers = [
        Worker::join(server, "w0").await,
        Worker::join(server, "w1").await,
    ];
    let run = server.submit(spec()).await.unwrap();
    let mut watch = server.watch(&run.id).await;
    let at = workers[0].assignment().await;
    assert_eq!(workers[1].assignment().await, at);
    for worker in &workers {
        worker.ready(&at).await;
    }
    watch.until(Phase::Running).await;
    for epoch in 0..2 {
        for step in 1..=2 {
            let step = u64::from(epoch) * 2 + step;
            let samples = samples(&place.tiny, &at, step);
            let message = committed_with(&at, report(step), samples);
            workers[0].send(message).await;
        }
        for (rank, worker) in (0..).zip(&workers) {
            worker
                .scores(&at, rank, epoch, run.validation_samples)
                .await;
        }
        let step = u64::from(epoch + 1) * 2;
        workers[0]
            .upload(&at, 0, step, &state(epoch))
            .await
            .unwrap();
        if epoch == 1 {
            let message = released(&at, Outcome::CompletedStep(4));
            workers[0].send(message).await;
            watch.until(Phase::Finishing).await;
            outage.begin(&place.checkpoints());
        }
        workers[1]
            .upload(&at, 1, step, &state(epoch))
            .await
            .unwrap();
        if epoch == 0 {
            server
                .run_when(&run.id, "checkpoint 2", |run| listed(run) == [2])
                .await;
        }
    }
    let waits = server
        .run_when(&run.id, "the reason", |run| {
            let reason = &run.reason;
            reason.contains("checkpoint 4 cannot be stored") && reason.contains(outage.reason())
        })
        .await;
    assert_eq!(waits.phase(), Phase::Finishing, "{outage:?}");
    assert_eq!(listed(&waits), [2]);
    (waits, workers)
}

/// The assignment as far as a worker's last messages name it.
fn assignment_of(run: &pb::Run) -> pb::Assignment {
    pb::Assignment {
        run_id: run.id.clone(),
        generation: run.generation,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_run_completes_when_its_last_checkpoint_can_be_stored() {
    for outage in OUTAGES {
        let place = Place::new();
        let server = place.fresh_unprivileged_server(|_| {}).await;
        let (run, workers) = finishing(&place, &server, outage).await;
        let at = assignment_of(&run);
        workers[1].released(&at, Outcome::CompletedStep(4)).await;
        // Nobody works on it any more; only the store is waited for.
        let waits = server.run(&run.id).await;
        assert_eq!(waits.phase(), Phase::Finishing, "{}", waits.reason);

        let mut watch = server.watch(&run.id).await;
        outage.end(&place.checkpoints());
        let done = watch.until(Phase::Completed).await;
        assert_eq!((listed(&done), &*done.reason), (vec![2, 4], ""));
        assert_eq!(place.stored(&run).len(), 2);
        assert!(fetch(&server, &run, 4).await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_run_that_waits_for_the_store_is_cancelled_at_once() {
    for outage in OUTAGES {
        for released in [false, true] {
            let place = Place::new();
            let server = place.fresh_unprivileged_server(|_| {}).await;
            let (run, mut workers) = finishing(&place, &server, outage).await;
            let at = assignment_of(&run);
            if released {
                workers[1].released(&at, Outcome::CompletedStep(4)).await;
                let waits = server.run(&run.id).await;
                assert_eq!(waits.phase(), Phase::Finishing, "{}", waits.reason);
            }
            let mut watch = server.watch(&run.id).await;
            cancel(&server, &run.id).await;
            if !released {
                let abort = workers[1].abort().await;
                assert_eq!((&*abort.run_id, abort.generation), (&*run.id, 1));
                workers[1].aborted(&at).await;
            }
            // The store is still away.
            let done = watch.until(Phase::Cancelled).await;
            assert_eq!(listed(&done), [2], "{outage:?}");
            outage.end(&place.checkpoints());
            assert!(fetch(&server, &run, 2).await.unwrap() > 0);
        }
    }
}
