//! Groups of runs over a real server: all of them or none, after a restart, cancelled together, removed one by one.

use crate::common;
use common::*;
use fovea_proto::pb;
use pb::Phase;
use tonic::{Code, Status};

/// A coordinator with the dataset `tiny`: 12 patients with two photographs each, 6 of them positive.
async fn server(dir: &tempfile::TempDir) -> Server {
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let tiny = dataset(dir.path(), "tiny", 1);
    server.upload(&tiny).await.unwrap();
    server
}

async fn submit(server: &Server, folds: u32, seeds: &[u64]) -> Result<pb::Group, Status> {
    submit_spec(server, spec(), folds, seeds).await
}

async fn submit_spec(
    server: &Server,
    spec: pb::RunSpec,
    folds: u32,
    seeds: &[u64],
) -> Result<pb::Group, Status> {
    let request = pb::SubmitGroupRequest {
        spec: Some(spec),
        folds,
        seeds: seeds.to_vec(),
        ..Default::default()
    };
    Ok(server.groups().submit(request).await?.into_inner())
}

async fn get(server: &Server, id: &str) -> Result<pb::Group, Status> {
    let request = pb::GetGroupRequest {
        group_id: id.into(),
    };
    Ok(server.groups().get(request).await?.into_inner())
}

async fn listed(server: &Server, page_size: u32) -> Vec<pb::Group> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListGroupsRequest {
            page_size,
            page_token,
        };
        let page = server.groups().list(request).await.unwrap().into_inner();
        assert!(page_size == 0 || page.groups.len() <= page_size as usize);
        all.extend(page.groups);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn cancel(server: &Server, id: &str) -> Result<pb::Group, Status> {
    let request = pb::CancelGroupRequest {
        group_id: id.into(),
    };
    Ok(server.groups().cancel(request).await?.into_inner())
}

async fn remove(
    server: &Server,
    id: &str,
    with_checkpoints: bool,
) -> Result<pb::DeleteGroupResponse, Status> {
    let request = pb::DeleteGroupRequest {
        group_id: id.into(),
        with_checkpoints,
    };
    Ok(server.groups().delete(request).await?.into_inner())
}

fn phases(group: &pb::Group) -> Vec<Phase> {
    group.runs.iter().map(pb::GroupMember::phase).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_accepted_whole_survives_a_restart_and_ends_together() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let group = submit(&server, 3, &[]).await.unwrap();
    assert_eq!((&*group.id, &*group.name), ("r-g1", "r"));
    let runs: Vec<&str> = group.runs.iter().map(|r| &*r.run_id).collect();
    assert_eq!(runs, ["r.f1-2", "r.f2-3", "r.f3-4"]);
    assert_eq!(phases(&group), [Phase::Queued; 3]);
    for (member, index) in group.runs.iter().zip(1..) {
        let fold = Some(pb::FoldSpec { index, of: 3 });
        assert_eq!(member.fold, fold);
        let run = server.run(&member.run_id).await;
        assert_eq!(run.group_id, group.id);
        assert_eq!(run.spec.as_ref().unwrap().fold, fold);
        // Four of twelve patients are held out.
        assert_eq!((run.train_samples, run.validation_samples), (16, 8));
    }
    let seeds = submit(&server, 0, &[5, 7]).await.unwrap();
    assert_eq!(seeds.id, "r-g5");
    let of_seeds: Vec<(&str, u64)> = seeds.runs.iter().map(|r| (&*r.run_id, r.seed)).collect();
    assert_eq!(of_seeds, [("r.s5-6", 5), ("r.s7-7", 7)]);
    for page_size in [0, 1] {
        let both = [seeds.clone(), group.clone()];
        assert_eq!(listed(&server, page_size).await, both);
    }

    server.kill().await;
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    assert_eq!(get(&server, "r-g1").await.unwrap(), group);
    assert_eq!(listed(&server, 0).await, [seeds, group.clone()]);
    assert_eq!(server.submit(spec()).await.unwrap().id, "r-8");

    let ended = cancel(&server, "r-g1").await.unwrap();
    assert_eq!(phases(&ended), [Phase::Cancelled; 3]);
    assert_eq!(server.run("r.s5-6").await.phase(), Phase::Queued);
    let again = cancel(&server, "r-g1").await;
    refused(again, Code::FailedPrecondition, "nothing to cancel");

    let remove = async |run: &str| {
        let request = pb::DeleteRunRequest {
            run_id: run.into(),
            with_checkpoints: false,
        };
        server.runs().delete(request).await.unwrap();
    };
    remove("r.f2-3").await;
    let shown = get(&server, "r-g1").await.unwrap();
    let expected = [Phase::Cancelled, Phase::Unspecified, Phase::Cancelled];
    assert_eq!(phases(&shown), expected);
    assert_eq!(shown.runs[1].fold, group.runs[1].fold);
    remove("r.f1-2").await;
    remove("r.f3-4").await;
    refused(
        get(&server, "r-g1").await,
        Code::NotFound,
        "there is no group r-g1",
    );
    refused(
        cancel(&server, "r-g1").await,
        Code::NotFound,
        "fovea group list",
    );
    assert_eq!(listed(&server, 0).await.len(), 1);
    server.stop().await;
}

/// Runs of a group that have ended by themselves are left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_group_may_have_runs_that_had_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let group = submit(&server, 0, &[1, 2]).await.unwrap();
    let request = pb::CancelRequest {
        run_id: group.runs[0].run_id.clone(),
    };
    server.runs().cancel(request).await.unwrap();
    let ended = cancel(&server, &group.id).await.unwrap();
    assert_eq!(phases(&ended), [Phase::Cancelled; 2]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_group_leaves_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    // A patient in each fold, who is positive or not.
    let kinds = submit(&server, 12, &[]).await;
    refused(
        kinds,
        Code::FailedPrecondition,
        "the validation split of fold 1 of 12 of dataset tiny has only negative samples, with model.positive_from = 2 (samples \
         of grades 0 to 4: train 4, 6, 4, 4, 4; validation 2, 0, 0, 0, 0): give another model.positive_from, or ask for \
         fewer folds",
    );
    let many = submit(&server, 13, &[]).await;
    refused(many, Code::InvalidArgument, "only 12 patients");
    for (folds, seeds, words) in [
        (1, &[][..], "folds: 1 folds are not possible"),
        (0, &[4, 4], "seeds: the seed 4 is named twice"),
        (0, &[4], "a group has 2 runs or more"),
        (60, &[1, 2], "120 runs are more than the 100"),
    ] {
        refused(
            submit(&server, folds, seeds).await,
            Code::InvalidArgument,
            words,
        );
    }
    let mut wrong = spec();
    wrong.dataset = "none".into();
    let wrong = submit_spec(&server, wrong, 2, &[]).await;
    refused(wrong, Code::NotFound, "there is no dataset none");
    let mut wrong = spec();
    wrong.fold = Some(pb::FoldSpec { index: 1, of: 2 });
    let wrong = submit_spec(&server, wrong, 2, &[]).await;
    refused(wrong, Code::InvalidArgument, "spec.fold: ");
    let mut wrong = spec();
    wrong.train.as_mut().unwrap().batch = Some(0);
    let wrong = submit_spec(&server, wrong, 2, &[]).await;
    refused(wrong, Code::InvalidArgument, "train.batch: 0");
    // Two of six patients are trained on: fewer than there are virtual ranks.
    let mut wrong = spec();
    wrong.train.as_mut().unwrap().virtual_ranks = Some(9);
    let wrong = submit_spec(&server, wrong, 3, &[]).await;
    refused(wrong, Code::InvalidArgument, "only 8 patients");
    refused(
        get(&server, "r-g1").await,
        Code::NotFound,
        "there is no group r-g1",
    );
    refused(
        get(&server, "r-1").await,
        Code::NotFound,
        "there is no group r-1",
    );
    let bad = get(&server, "a b").await;
    refused(bad, Code::InvalidArgument, "group_id");
    let runs = server.runs().list(pb::ListRunsRequest::default()).await;
    assert_eq!(runs.unwrap().into_inner().runs, []);
    assert_eq!(listed(&server, 0).await, []);
    // One fold is a run like any other.
    let mut one = spec();
    one.fold = Some(pb::FoldSpec { index: 2, of: 3 });
    let run = server.submit(one).await.unwrap();
    assert_eq!((run.train_samples, run.validation_samples), (16, 8));
    assert_eq!(run.group_id, "");
    server.stop().await;
}

/// All of it or nothing, also where a run was removed before.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_removed_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let group = submit(&server, 0, &[1, 2, 3]).await.unwrap();
    let [first, second, third] = [0, 1, 2].map(|at: usize| group.runs[at].run_id.clone());
    for run in [&first, &third] {
        let request = pb::CancelRequest {
            run_id: run.clone(),
        };
        server.runs().cancel(request).await.unwrap();
    }
    let queued = remove(&server, &group.id, true).await;
    let words = format!("{second} (queued) has not ended");
    refused(queued, Code::FailedPrecondition, &words);
    let [cancelled, waits] = [Phase::Cancelled, Phase::Queued];
    let unchanged = get(&server, &group.id).await.unwrap();
    assert_eq!(phases(&unchanged), [cancelled, waits, cancelled]);

    cancel(&server, &group.id).await.unwrap();
    let request = pb::DeleteRunRequest {
        run_id: first,
        with_checkpoints: false,
    };
    server.runs().delete(request).await.unwrap();
    let removed = remove(&server, &group.id, false).await.unwrap();
    assert_eq!((removed.runs, removed.checkpoints), (2, 0));
    let gone = "there is no group r-g1";
    refused(get(&server, &group.id).await, Code::NotFound, gone);
    refused(remove(&server, &group.id, true).await, Code::NotFound, gone);
    let runs = server.runs().list(pb::ListRunsRequest::default()).await;
    assert_eq!(runs.unwrap().into_inner().runs, []);
    server.stop().await;
}

/// A worker takes the steps of the run's first epoch, and pauses as it is asked to.
async fn to_the_rung(server: &Server, name: &str, run: &str) {
    use pb::released::Outcome;
    let mut worker = Worker::join(server, name).await;
    let at = worker.assignment().await;
    assert_eq!(at.run_id, run);
    worker.ready(&at).await;
    worker.step(&at, 1).await;
    worker.step(&at, 2).await;
    let samples = server.run(run).await.validation_samples as u32;
    worker.send(scores(&at, 0, 0..samples)).await;
    worker.stop().await;
    worker.upload(&at, 0, 2, &state(1)).await.unwrap();
    worker.released(&at, Outcome::StoppedStep(2)).await;
    let paused = |run: &pb::Run| run.phase() == Phase::Paused;
    server.run_when(run, "it waits at the rung", paused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_waits_for_every_run_and_decides_in_the_life_of_another_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let variant = |rate: f64| {
        let mut spec = spec();
        spec.train.as_mut().unwrap().learning_rate = Some(rate);
        pb::Variant {
            label: format!("train.learning_rate={rate}"),
            spec: Some(spec),
        }
    };
    let request = pb::SubmitGroupRequest {
        spec: Some(spec()),
        variants: [0.1, 0.2, 0.3].map(variant).into(),
        selection: Some(pb::Selection {
            by: pb::BestBy::Auc.into(),
            after_epochs: vec![1],
            keep_one_of: 2,
            patience: 0,
        }),
        ..Default::default()
    };
    // Two epochs have one rung at most.
    let mut late = request.clone();
    late.selection.as_mut().unwrap().after_epochs = vec![2];
    let late = server.groups().submit(late).await;
    refused(late, Code::InvalidArgument, "selection.halving");
    let mut other = request.clone();
    other.variants[1] = other.variants[0].clone();
    let twice = server.groups().submit(other).await;
    refused(twice, Code::InvalidArgument, "is there twice");
    let group = server.groups().submit(request).await.unwrap().into_inner();
    let names: Vec<&str> = group.runs.iter().map(|run| &*run.run_id).collect();
    assert_eq!(names, ["r.v1-2", "r.v2-3", "r.v3-4"]);
    assert_eq!(
        group.runs.iter().map(|r| r.variant).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let spec = server.run("r.v3-4").await.spec.unwrap();
    assert_eq!(spec.train.unwrap().learning_rate, Some(0.3));

    to_the_rung(&server, "w0", "r.v1-2").await;
    let waiting = server.run("r.v1-2").await;
    assert_eq!(
        waiting.reason,
        "waits after epoch 1 for the other runs of its group"
    );
    assert!(!get(&server, "r-g1").await.unwrap().deciding);
    server.kill().await;
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    to_the_rung(&server, "w1", "r.v2-3").await;
    assert_eq!(server.run("r.v1-2").await.phase(), Phase::Paused);

    // The last one does not come: its variant is out, and of three one goes on, of equals the first.
    let cancel = pb::CancelRequest {
        run_id: "r.v3-4".into(),
    };
    server.runs().cancel(cancel).await.unwrap();
    let queued = |run: &pb::Run| run.phase() == Phase::Queued;
    server.run_when("r.v1-2", "it goes on", queued).await;
    let dropped = |run: &pb::Run| {
        run.reason
            .starts_with("dropped after epoch 1: place 2 of 3 by AUC (1.000)")
    };
    let dropped = server.run_when("r.v2-3", "it is dropped", dropped).await;
    assert_eq!(dropped.phase(), Phase::Paused);
    let mut worker = Worker::join(&server, "w2").await;
    assert_eq!(worker.assignment().await.run_id, "r.v1-2");
    // The one that was dropped goes on when somebody wants it to.
    let resume = pb::ResumeRequest {
        run_id: "r.v2-3".into(),
        checkpoint_step: None,
    };
    let resumed = server.runs().resume(resume).await.unwrap().into_inner();
    assert_eq!((resumed.phase(), &*resumed.reason), (Phase::Queued, ""));
    server.stop().await;
}
