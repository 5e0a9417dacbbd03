//! What verifying everything tells: manifests, folders of no run, and a store that is away.

use std::path::Path;

use fovea_proto::pb;
use fovea_proto::pb::verify_store_event::Event;
use pb::FileState;

use super::*;

/// Problems and totals of a verification of everything.
async fn verified(server: &Server) -> (Vec<pb::VerifyProblem>, pb::VerifySummary) {
    let request = pb::VerifyStoreRequest {
        skip_checkpoints: false,
        skip_datasets: false,
        skip_weights: false,
    };
    let mut stream = server.admin().verify(request).await.unwrap().into_inner();
    let mut problems = Vec::new();
    loop {
        let event = soon("an event", stream.message()).await.unwrap();
        match event.expect("a summary").event {
            Some(Event::Problem(problem)) => problems.push(problem),
            Some(Event::Summary(summary)) => return (problems, summary),
            Some(Event::Progress(_)) | None => {}
        }
    }
}

async fn of_run(server: &Server, run: &pb::Run) -> Vec<pb::VerifiedCheckpoint> {
    let request = pb::VerifyCheckpointsRequest {
        run_id: run.id.clone(),
        step: None,
    };
    let verified = server.checkpoints().verify(request).await.unwrap();
    verified.into_inner().checkpoints
}

/// The dataset's folder in the store.
fn dataset_folder(place: &Place) -> PathBuf {
    let entries = std::fs::read_dir(place.data().join("datasets")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.is_dir()).unwrap()
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn names(problems: &[pb::VerifyProblem]) -> Vec<(&str, FileState)> {
    problems
        .iter()
        .map(|problem| (&*problem.what, problem.state()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_verified_and_those_of_a_dataset_repaired() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, _, _worker) = begin_with_checkpoints(&place, &server, 2).await;
    let (problems, summary) = verified(&server).await;
    assert_eq!(problems, []);
    assert_eq!((summary.checkpoints, summary.problems), (2, 0));

    let folder = place.checkpoints().join(&run.id);
    let manifest = |step: u64| folder.join(format!("step-{step:010}.g1.json"));
    std::fs::remove_file(manifest(1)).unwrap();
    std::fs::write(manifest(2), "{").unwrap();
    let files = dataset_folder(&place);
    damage(&files.join("manifest.json"));
    std::fs::remove_file(files.join("index.csv")).unwrap();
    std::fs::create_dir(place.checkpoints().join("t-9")).unwrap();
    let foreign = place
        .checkpoints()
        .join("t-9/step-0000000005.g1.safetensors");
    std::fs::write(&foreign, "x").unwrap();

    let (problems, summary) = verified(&server).await;
    let id = &run.id;
    assert_eq!(
        names(&problems),
        [
            (
                &*format!("run {id}, checkpoint 1, manifest"),
                FileState::Missing
            ),
            (
                &format!("run {id}, checkpoint 2, manifest"),
                FileState::Corrupt
            ),
            ("checkpoints of t-9", FileState::Unlisted),
            ("dataset tiny, manifest.json", FileState::Corrupt),
            ("dataset tiny, index.csv", FileState::Missing),
        ]
    );
    assert_eq!(summary.problems, 5);
    assert!(problems[0].action.contains("cannot adopt"), "{problems:?}");
    assert!(
        problems[2].action.contains("move the folder"),
        "{problems:?}"
    );
    assert!(
        problems[3].action.contains("fovea dataset add"),
        "{problems:?}"
    );
    // Nothing was put aside.
    assert_eq!(server.run(id).await.checkpoints.len(), 2);
    assert!(foreign.exists());

    let verified_run = of_run(&server, &run).await;
    for (checkpoint, state) in verified_run
        .iter()
        .zip([FileState::Missing, FileState::Corrupt])
    {
        assert_eq!(checkpoint.state(), FileState::Ok);
        assert_eq!(checkpoint.manifest_state(), state);
        let text = &checkpoint.manifest_problem;
        assert!(text.contains("weights are good"), "{text}");
    }

    let parts = parts(&place.tiny);
    let repaired = server.datasets().create(tokio_stream::iter(parts)).await;
    let repaired = repaired.unwrap().into_inner();
    assert_eq!(
        repaired.outcome(),
        pb::create_dataset_response::Outcome::Repaired
    );
    let mut files = repaired.repaired_files;
    files.sort();
    assert_eq!(
        (files, repaired.repaired_packs),
        (vec!["index.csv".to_owned(), "manifest.json".into()], vec![])
    );
    let (problems, _) = verified(&server).await;
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_one_problem() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (_, at, mut worker) = begin(&server).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
        checkpoint(&server, &worker, &at, step).await;
    }
    let stores = [place.checkpoints(), place.data().join("datasets")];
    for store in &stores {
        std::fs::rename(store, store.with_extension("away")).unwrap();
    }
    let (problems, summary) = verified(&server).await;
    assert_eq!(
        names(&problems),
        [
            ("checkpoint store", FileState::Unreadable),
            ("dataset store", FileState::Unreadable),
        ],
        "{problems:?}"
    );
    for problem in &problems {
        assert!(problem.action.contains("mount it"), "{problem:?}");
        assert!(!problem.action.contains("dataset add"), "{problem:?}");
    }
    assert_eq!(
        (summary.checkpoints, summary.packs, summary.problems),
        (0, 0, 2)
    );
    for store in &stores {
        std::fs::rename(store.with_extension("away"), store).unwrap();
    }
    let (problems, summary) = verified(&server).await;
    assert_eq!(problems, []);
    assert_eq!(summary.checkpoints, 2);
}
