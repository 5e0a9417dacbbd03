//! What cannot be removed: it stays listed, or the answer says what is left.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fovea_proto::pb;
use tonic::{Code, Status};

use super::*;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

async fn remove_checkpoint(server: &Server, run: &pb::Run, step: u64) -> Result<u64, Status> {
    let request = pb::DeleteCheckpointRequest {
        run_id: run.id.clone(),
        step,
    };
    let removed = server.checkpoints().delete(request).await?;
    Ok(removed.into_inner().freed_bytes)
}

/// Ends the run with its checkpoint of step 3.
async fn end(server: &Server, run: &pb::Run, at: &pb::Assignment, worker: &mut Worker) {
    cancel(server, &run.id).await;
    worker.stop().await;
    worker.upload(at, 0, 3, &state(3)).await.unwrap();
    let stopped = pb::released::Outcome::StoppedStep(3);
    worker.released(at, stopped).await;
    server
        .run_when(&run.id, "its end", |run| run.phase() == Phase::Cancelled)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_removed_stays_listed_with_the_reason() {
    let place = Place::new();
    let server = place.fresh_unprivileged_server(|_| {}).await;
    let (run, at, mut worker) = begin(&server).await;
    for step in 1..=3 {
        place.step(&mut worker, &at, step).await;
        if step < 3 {
            checkpoint(&server, &worker, &at, step).await;
        }
    }
    let files = place.stored(&run);
    let folder = place.checkpoints().join(&run.id);
    for rights in [0o000, 0o500] {
        mode(&folder, rights);
        // Twice: a second call finds what the first did.
        for _ in 0..2 {
            let error = remove_checkpoint(&server, &run, 1).await.unwrap_err();
            assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
            let text = error.message();
            for part in [
                "stays listed",
                "Permission denied",
                "Correct the cause",
                &*run.id,
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.contains("is unchanged"), "{text}");
            assert_eq!(server.run(&run.id).await.checkpoints.len(), 2);
        }
    }
    mode(&folder, 0o700);
    assert_eq!(place.stored(&run), files);
    assert!(remove_checkpoint(&server, &run, 1).await.unwrap() > 0);

    end(&server, &run, &at, &mut worker).await;
    mode(&folder, 0o500);
    let request = pb::DeleteRunRequest {
        run_id: run.id.clone(),
        with_checkpoints: true,
    };
    refused(
        server.runs().delete(request.clone()).await,
        Code::FailedPrecondition,
        "stays listed",
    );
    mode(&folder, 0o700);
    assert!(!place.stored(&run).is_empty());
    server.runs().delete(request).await.unwrap();

    let packs = std::fs::read_dir(place.data().join("datasets")).unwrap();
    let dataset = packs
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    let packs = dataset.join("packs");
    let remove = || pb::DeleteDatasetRequest {
        dataset: "tiny".into(),
    };
    mode(&packs, 0o500);
    refused(
        server.datasets().delete(remove()).await,
        Code::FailedPrecondition,
        "stays listed",
    );
    mode(&packs, 0o700);
    server.datasets().delete(remove()).await.unwrap();
    assert!(!dataset.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_whose_files_stay_is_said_to_be_off_the_list() {
    let place = Place::new();
    let server = place.fresh_server().await;
    let (run, _, _worker) = begin_with_checkpoints(&place, &server, 2).await;
    // What shows only when it is tried: a folder in the place of the file.
    let file = place
        .checkpoints()
        .join(&run.id)
        .join(&place.stored(&run)[0]);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let error = remove_checkpoint(&server, &run, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    for part in [
        "is not listed any more",
        "could not be removed",
        "next start",
    ] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    let listed = server.run(&run.id).await.checkpoints;
    assert_eq!(listed.iter().map(|c| c.step).collect::<Vec<_>>(), [2]);
    refused(
        remove_checkpoint(&server, &run, 1).await,
        Code::NotFound,
        "step 1",
    );
}
