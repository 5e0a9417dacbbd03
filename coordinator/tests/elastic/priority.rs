//! The priority of runs that wait and of runs that train is changed.

use fovea_proto::pb;
use fovea_proto::pb::run_event::Event;
use pb::Priority::{self, High, Low, Normal};
use pb::released::Outcome;
use tonic::{Code, Status};

use super::{Phase, Stage, spec_of};
use crate::common::*;

impl Stage {
    async fn set_priority(&self, run: &pb::Run, priority: Priority) -> Result<pb::Run, Status> {
        let request = pb::SetPriorityRequest {
            run_id: run.id.clone(),
            priority: priority.into(),
        };
        Ok(self.server.runs().set_priority(request).await?.into_inner())
    }

    /// The queue: run and priority.
    async fn queue(&self) -> Vec<(String, Priority)> {
        let request = pb::ListQueueRequest {};
        let queue = self.server.cluster().list_queue(request).await.unwrap();
        let runs = queue.into_inner().runs.into_iter();
        runs.map(|run| (run.run_id.clone(), run.priority()))
            .collect()
    }

    /// Submits a run of one worker, which waits because there is none for it.
    async fn waits(&self) -> pb::Run {
        let run = self.server.submit(spec_of(1, 1, 1)).await.unwrap();
        let waits = |run: &pb::Run| run.reason == "needs 1 worker; idle: 0";
        self.server.run_when(&run.id, "it waits", waits).await
    }

    /// The only worker gives its run up after `step`, with a checkpoint.
    async fn gives(&self, worker: &mut Worker, at: &pb::Assignment, step: u64) {
        assert_eq!(worker.stop().await.run_id, at.run_id);
        worker.upload(at, 0, step, &state(1)).await.unwrap();
        worker.released(at, Outcome::StoppedStep(step)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_run_that_is_raised_displaces_another_and_a_restart_keeps_its_priority() {
    let stage = Stage::new().await;
    let (low, at, _, [mut w0]) = stage.begin(spec_of(1, 1, 1), ["w0"]).await;
    stage.step(&w0, &at, 1).await;
    let [first, second] = [stage.waits().await, stage.waits().await];
    assert_eq!(second.priority(), Normal);
    let mut watch = stage.server.watch(&second.id).await;

    let raised = stage.set_priority(&second, High).await.unwrap();
    assert_eq!(raised.priority(), High);
    assert_eq!(raised.spec, second.spec, "what it computes is the same");
    let queue = [(second.id.clone(), High), (first.id.clone(), Normal)];
    assert_eq!(stage.queue().await, queue);
    let mut seen = (None, None);
    while seen.0.is_none() || seen.1.is_none() {
        match watch.next().await.expect("the run goes on") {
            Event::Note(note) => seen.0 = Some(note),
            Event::Run(run) if run.priority() == High => seen.1 = Some(run),
            _ => {}
        }
    }
    let note = "run.priority_changed: priority changed from normal to high";
    assert_eq!(seen.0.as_deref(), Some(note));
    // The same again is no change.
    stage.set_priority(&second, High).await.unwrap();

    stage.gives(&mut w0, &at, 1).await;
    let next = w0.assignment().await;
    assert_eq!(next.run_id, second.id);
    assert_eq!(next.spec, second.spec);
    w0.ready(&next).await;
    // It has let go of its worker before its checkpoint is stored.
    let queued = |run: &pb::Run| run.phase() == Phase::Queued;
    stage.server.run_when(&low.id, "it is queued", queued).await;
    let queue = [(low.id.clone(), Normal), (first.id.clone(), Normal)];
    assert_eq!(stage.queue().await, queue);

    // Also after a restart, of one with workers and of one that waits.
    stage.set_priority(&first, High).await.unwrap();
    let stage = stage.restart().await;
    for (run, priority) in [(&low, Normal), (&first, High), (&second, High)] {
        assert_eq!(stage.server.run(&run.id).await.priority(), priority);
    }
    let queue = [(first.id.clone(), High), (low.id.clone(), Normal)];
    assert_eq!(stage.queue().await, queue);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_trains_and_is_lowered_is_displaced_but_not_while_it_may_hold_its_workers() {
    let stage = Stage::new().await;
    let (lowered, at, mut watch, [mut w0]) = stage.begin(spec_of(1, 1, 1), ["w0"]).await;
    stage.step(&w0, &at, 1).await;
    let other = stage.waits().await;
    stage.set_priority(&lowered, Low).await.unwrap();
    stage.gives(&mut w0, &at, 1).await;
    let next = w0.assignment().await;
    assert_eq!(next.run_id, other.id);
    let given = watch.until(Phase::Queued).await;
    let expected = format!("its workers went to {}, of higher priority", other.id);
    assert!(given.reason.contains(&expected), "{}", given.reason);

    // It gets its worker back, and keeps it for a while.
    stage.cancel(&other).await.unwrap();
    w0.abort().await;
    w0.aborted(&next).await;
    let again = w0.assignment().await;
    assert_eq!((&again.run_id, again.generation), (&lowered.id, 2));
    w0.ready_at(&again, 1, 'a').await;
    watch.until_in(Phase::Running, 2).await;
    let third = stage.server.submit(spec_of(1, 1, 1)).await.unwrap();
    let held = format!("{} gave workers away before and keeps", lowered.id);
    let holds = |run: &pb::Run| run.reason.contains(&held);
    stage.server.run_when(&third.id, &held, holds).await;
    for priority in [Normal, Low] {
        stage.set_priority(&lowered, priority).await.unwrap();
    }
    assert_eq!(stage.queue().await, [(third.id.clone(), Normal)]);
    stage.server.run_when(&third.id, &held, holds).await;
    let run = stage.server.run(&lowered.id).await;
    assert_eq!((run.phase(), run.reason.as_str()), (Phase::Running, ""));
    assert_eq!(w0.remaining_messages().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_run_has_no_priority_to_change_and_a_paused_one_has() {
    let stage = Stage::new().await;
    let run = stage.server.submit(spec_of(1, 1, 1)).await.unwrap();
    stage.pause(&run).await.unwrap();
    stage.set_priority(&run, High).await.unwrap();
    stage.cancel(&run).await.unwrap();
    let ended = "r-1 is cancelled; the priority of a run that has ended cannot be changed";
    let low = stage.set_priority(&run, Low).await;
    refused(low, Code::FailedPrecondition, ended);
    let resumed = stage.resume(&run, None).await.unwrap();
    assert_eq!(resumed.priority(), High);
}

/// The worker of the first run of a group stays with it: no other run of the group was above it for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_a_group_change_together_and_displace_each_other_at_no_time() {
    let stage = Stage::new().await;
    let mut w0 = stage.join("w0").await;
    let request = pb::SubmitGroupRequest {
        spec: Some(spec_of(1, 1, 1)),
        seeds: vec![0, 1, 2],
        ..Default::default()
    };
    let group = stage.server.groups().submit(request).await.unwrap();
    let group = group.into_inner();
    let at = w0.assignment().await;
    w0.ready(&at).await;
    let set = async |priority: Priority| {
        let request = pb::SetGroupPriorityRequest {
            group_id: group.id.clone(),
            priority: priority.into(),
        };
        stage.server.groups().set_priority(request).await
    };
    for priority in [Low, High, Normal] {
        set(priority).await.unwrap();
        for member in &group.runs {
            let run = stage.server.run(&member.run_id).await;
            assert_eq!(run.priority(), priority);
        }
        assert_eq!(stage.queue().await.len(), 2);
    }
    stage.step(&w0, &at, 1).await;
    // Nothing else came before.
    w0.acked_step(1).await;
    let request = pb::CancelGroupRequest {
        group_id: group.id.clone(),
    };
    stage.server.groups().cancel(request).await.unwrap();
    w0.stop().await;
    w0.upload(&at, 0, 1, &state(1)).await.unwrap();
    w0.released(&at, Outcome::StoppedStep(1)).await;
    let mut watch = stage.server.watch(&at.run_id).await;
    watch.until(Phase::Cancelled).await;
    let nothing = "all runs of group r-g1 have ended; there is no priority to change";
    refused(set(High).await, Code::FailedPrecondition, nothing);
}
