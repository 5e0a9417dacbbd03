//! Evaluations as the coordinator makes them: the copy of the checkpoint that each begins with, and what becomes of it when
//! the evaluation is not accepted. Over a real server, with a fake worker.

use crate::common;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::*;
use fovea_core::ids::DatasetName;
use fovea_dataset::{Recipe, write_ungraded};
use fovea_proto::pb;
use pb::run_event::Event;
use pb::verify_store_event::Event as Verified;
use pb::{Part, Phase};
use tokio::task::JoinSet;
use tonic::{Code, Status};

/// The step of the only checkpoint.
const STEP: u64 = 1;

/// A run that was cancelled after a checkpoint, and a dataset without grades.
struct Trained {
    _dir: tempfile::TempDir,
    data: PathBuf,
    server: Server,
    run: pb::Run,
}

impl Trained {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let server = Server::start(&data, |_| {}).await;
        let tiny = dataset(dir.path(), "tiny", 1);
        server.upload(&tiny).await.unwrap();
        let ungraded = dir.path().join("ungraded");
        let recipe = Recipe::new("crop".parse().unwrap(), 32).unwrap();
        let name = DatasetName::new("predict-1").unwrap();
        write_ungraded(&ungraded, name, &recipe, [vec![9; 32 * 32 * 3]]).unwrap();
        server.upload(&ungraded).await.unwrap();

        let mut spec = spec();
        spec.train.as_mut().unwrap().batch = Some(1);
        spec.workers = Some(pb::WorkersSpec {
            min: Some(1),
            max: Some(1),
            ..Default::default()
        });
        let mut worker = Worker::join(&server, "w0").await;
        let run = server.submit(spec).await.unwrap();
        let mut watch = server.watch(&run.id).await;
        let at = worker.assignment().await;
        worker.ready(&at).await;
        let of_step = samples(&tiny, &at, STEP);
        worker
            .send(committed_with(&at, report(STEP), of_step))
            .await;
        worker.acked_step(STEP).await;
        worker.upload(&at, 0, STEP, &state(7)).await.unwrap();
        loop {
            match watch.next().await.expect("the run goes on") {
                Event::Checkpoint(_) => break,
                Event::Run(run) if !run.checkpoints.is_empty() => break,
                _ => {}
            }
        }
        drop(worker);
        let request = pb::CancelRequest {
            run_id: run.id.clone(),
        };
        server.runs().cancel(request).await.unwrap();
        let ended = |run: &pb::Run| run.phase() == Phase::Cancelled;
        let run = server.run_when(&run.id, "its end", ended).await;
        Self {
            _dir: dir,
            data,
            server,
            run,
        }
    }

    fn request(&self, part: Part) -> pb::EvaluateRequest {
        pb::EvaluateRequest {
            run_id: self.run.id.clone(),
            step: STEP,
            part: part.into(),
            ..Default::default()
        }
    }

    fn prediction(&self) -> pb::EvaluateRequest {
        pb::EvaluateRequest {
            dataset: "predict-1".into(),
            prediction: true,
            ..self.request(Part::Validation)
        }
    }

    async fn evaluate(&self, request: pb::EvaluateRequest) -> Result<pb::Run, Status> {
        let reply = self.server.runs().evaluate(request).await?;
        Ok(reply.into_inner().run.expect("an evaluation"))
    }

    fn folder(&self, run: &str) -> PathBuf {
        self.data.join("checkpoints").join(run)
    }

    /// The folders of runs in the checkpoint store.
    fn folders(&self) -> BTreeSet<String> {
        let mut folders = names(&self.data.join("checkpoints"));
        folders.retain(|name| !name.starts_with('.') && name != "store.json");
        folders
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_at_the_same_time_have_a_whole_copy_each() {
    let trained = Trained::new().await;
    let mut asking = JoinSet::new();
    for part in [Part::Train, Part::Validation, Part::All] {
        for rotations in [false, true] {
            let (mut runs, mut request) = (trained.server.runs(), trained.request(part));
            request.rotations = rotations;
            asking.spawn(async move { runs.evaluate(request).await });
        }
    }
    let (mut runs, request) = (trained.server.runs(), trained.prediction());
    asking.spawn(async move { runs.evaluate(request).await });
    let made = soon("the evaluations", asking.join_all()).await;
    let mut ids = BTreeSet::new();
    for made in made {
        let id = made.unwrap().into_inner().run.unwrap().id;
        let folder = trained.folder(&id);
        let file = "step-0000000001.g1.safetensors";
        let kept = set(&["step-0000000001.g1.json", file]);
        assert_eq!(names(&folder), kept, "{id}");
        let (bytes, state) = (std::fs::read(folder.join(file)).unwrap(), state(7));
        let (header, copied) = bytes.split_at(bytes.len() - state.len());
        assert!(copied == state, "{id}: another state");
        assert!(String::from_utf8_lossy(header).contains(&id), "{id}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 7);
    // Their digests are those that the journal has.
    let verify = pb::VerifyStoreRequest::default();
    let reply = trained.server.admin().verify(verify).await;
    let mut events = reply.unwrap().into_inner();
    let summary = loop {
        let event = soon("an event", events.message()).await.unwrap();
        if let Some(Verified::Summary(summary)) = event.expect("a summary").event {
            break summary;
        }
    };
    assert_eq!((summary.checkpoints, summary.problems), (8, 0));
}

/// The journal refuses what is recorded in the run, or the new run itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_that_is_refused_leaves_no_copy() {
    let trained = Trained::new().await;
    let before = trained.folders();
    assert_eq!(before, set(&[&trained.run.id]));
    let (journal, aside) = (trained.data.join("journal.db"), trained.data.join("aside"));
    std::fs::rename(&journal, &aside).unwrap();
    for request in [trained.request(Part::Train), trained.prediction()] {
        let refusal = trained.evaluate(request).await;
        refused(refusal, Code::Unavailable, "not at its place");
        assert_eq!(trained.folders(), before);
    }
    assert!(!trained.data.join("checkpoints/.trash").exists());
    std::fs::rename(&aside, &journal).unwrap();
    for request in [trained.request(Part::Train), trained.prediction()] {
        let made = trained.evaluate(request).await.unwrap();
        assert_eq!(names(&trained.folder(&made.id)).len(), 2, "{}", made.id);
    }
}

/// A coordinator was killed after a copy was complete, before or after the journal had its run.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_puts_away_the_copies_of_evaluations_that_were_not_accepted() {
    let mut trained = Trained::new().await;
    let accepted = trained
        .evaluate(trained.request(Part::Train))
        .await
        .unwrap();
    let (accepted, other) = (trained.folder(&accepted.id), trained.folder("r-1.all-7"));
    let mark = "step-0000000001.g1.unjournalled";
    let (server, data) = (trained.server, trained.data.clone());
    server.kill().await;
    let files = names(&accepted);
    std::fs::create_dir(&other).unwrap();
    for file in &files {
        std::fs::copy(accepted.join(file), other.join(file)).unwrap();
    }
    for folder in [&accepted, &other] {
        std::fs::write(folder.join(mark), "").unwrap();
    }
    // One that it does not know, and that nobody has marked, stays: the journal may be older.
    let unknown = data.join("checkpoints/r-1.all-5");
    std::fs::create_dir(&unknown).unwrap();
    std::fs::write(unknown.join("step-0000000001.g1.safetensors"), "precious").unwrap();

    trained.server = Server::start(&data, |_| {}).await;
    assert!(!other.exists());
    assert_eq!(names(&accepted), files);
    assert!(unknown.join("step-0000000001.g1.safetensors").exists());
    let trash = data.join("checkpoints/.trash");
    let put_away = names(&trash);
    assert_eq!(put_away.len(), 1, "{put_away:?}");
    for entry in put_away {
        assert!(entry.ends_with("-r-1.all-7"), "{entry}");
        assert_eq!(names(&trash.join(entry)), files);
    }
    // Its number is given again.
    let next = trained.evaluate(trained.request(Part::All)).await.unwrap();
    assert_eq!(next.id, "r-1.all-6");
}
