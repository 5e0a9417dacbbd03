//! Stored files that are damaged, missing or away.

use pb::create_weights_response::Outcome;
use pb::verify_store_event::Event;
use pb::{FileState, Phase};
use tonic::Code;

use super::*;

/// Problems and totals of a verification of the weights.
async fn verified(server: &Server) -> (Vec<pb::VerifyProblem>, pb::VerifySummary) {
    let request = pb::VerifyStoreRequest {
        skip_checkpoints: true,
        skip_datasets: true,
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

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_makes_runs_wait_and_is_repaired_by_adding_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let digest = sha256(googlenet());
    add(&server, "bvlc", "w.x", googlenet()).await.unwrap();
    let (problems, summary) = verified(&server).await;
    assert_eq!(problems, []);
    assert_eq!((summary.weights, summary.problems), (1, 0));
    assert_eq!(summary.read_bytes, googlenet().len() as u64);

    let file = stored_file(&dir.path().join("data"), &digest);
    flip(&file);
    let status = fetch(&server, &digest).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status:?}");
    assert!(status.message().contains("weights bvlc"), "{status:?}");
    let problem = &list(&server).await[0].problem;
    assert!(
        problem.contains("corrupt") && problem.contains("fovea weights add"),
        "{problem}"
    );
    // Nothing new starts from them.
    let submitted = server.submit(spec_from("bvlc", "")).await;
    refused(submitted, Code::Unavailable, "corrupt");
    let (problems, summary) = verified(&server).await;
    assert_eq!(
        (&*problems[0].what, problems[0].state()),
        ("weights bvlc", FileState::Corrupt)
    );
    assert!(problems[0].action.contains("fovea weights add"));
    assert_eq!((summary.weights, summary.problems), (1, 1));

    let (stored, outcome) = add(&server, "", "w.x", googlenet()).await.unwrap();
    assert_eq!((&*stored.name, outcome), ("bvlc", Outcome::Repaired));
    assert_eq!(verified(&server).await.0, []);
    assert_eq!(fetch(&server, &digest).await.unwrap(), googlenet());

    // A run that has been accepted waits, and goes on by itself.
    let run = server.submit(spec_from("bvlc", "")).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    refused(
        fetch(&server, &digest).await,
        Code::FailedPrecondition,
        "is missing",
    );
    let mut worker = Worker::join(&server, "w0").await;
    let waiting = waits_for(&server, &run.id, "is missing").await;
    assert_eq!((waiting.phase(), waiting.generation), (Phase::Queued, 0));
    let (problems, _) = verified(&server).await;
    assert_eq!(problems[0].state(), FileState::Missing);
    add(&server, "", "w.x", googlenet()).await.unwrap();
    worker.assignment().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_repaired_too_and_what_is_unfinished_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let digest = sha256(googlenet());
    add(&server, "bvlc", "w.x", googlenet()).await.unwrap();
    server.stop().await;
    let data = dir.path().join("data");
    let place = data.join("weights").join(&digest);
    std::fs::write(place.join("manifest.json"), "{").unwrap();
    std::fs::create_dir(data.join("weights/tmp-upload-1-0")).unwrap();
    std::fs::write(data.join("weights/tmp-upload-1-0/file"), "x").unwrap();

    let server = Server::start(&data, |_| {}).await;
    // The answer comes when it has opened its stores.
    let listed = list(&server).await;
    assert!(!data.join("weights/tmp-upload-1-0").exists());
    assert_eq!((&*listed[0].name, &*listed[0].sha256), ("", &*digest));
    assert!(listed[0].problem.contains("manifest.json"), "{listed:?}");
    let (problems, _) = verified(&server).await;
    assert_eq!(problems[0].state(), FileState::Corrupt);
    let repaired = add(&server, "again", "w.x", googlenet()).await.unwrap();
    assert_eq!(
        (&*repaired.0.name, repaired.1),
        ("again", Outcome::Repaired)
    );
    assert_eq!(list(&server).await[0].problem, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let digest = sha256(googlenet());
    add(&server, "bvlc", "w.x", googlenet()).await.unwrap();
    let (weights, away) = (dir.path().join("data/weights"), dir.path().join("away"));
    std::fs::rename(&weights, &away).unwrap();
    refused(
        fetch(&server, &digest).await,
        Code::FailedPrecondition,
        "unavailable",
    );
    let (problems, summary) = verified(&server).await;
    assert_eq!((&*problems[0].what, summary.weights), ("weights store", 0));
    let again = add(&server, "", "w.x", googlenet()).await;
    refused(again, Code::Unavailable, "unavailable");
    refused(
        remove(&server, "bvlc").await,
        Code::Unavailable,
        "unavailable",
    );
    assert!(list(&server).await[0].problem.contains("unavailable"));
    std::fs::rename(&away, &weights).unwrap();
    let back = async {
        while !list(&server).await[0].problem.is_empty() {
            tokio::time::sleep(POLL).await;
        }
    };
    soon("the store", back).await;
    assert_eq!(fetch(&server, &digest).await.unwrap(), googlenet());

    // A start on an empty folder in its place is refused.
    server.stop().await;
    std::fs::rename(&weights, &away).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fovea-coordinator"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("the weights store is not in"),
        "{error}"
    );
}
