//! Kills between parts, and a new machine.

use super::*;

/// Tags of the parts of the one upload under way.
fn parts(data: &Path) -> usize {
    let state = remote_state(data);
    let uploads = state["uploads"].as_object();
    let tags =
        uploads.and_then(|uploads| uploads.values().next()?["tags"].as_array().map(Vec::len));
    tags.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_s3), ignore = "needs .s3-server: make s3-server")]
async fn a_coordinator_killed_between_parts_goes_on_with_the_upload() {
    let place = Place::new().await;
    let mut server = place.server().await;
    server.upload(&place.tiny).await.unwrap();
    let (run, at, mut worker) = begin(&server, true).await;
    place.step(&mut worker, &at, 1).await;
    let state = large_state(1);
    checkpoint(&server, &worker, &at, 1, &state).await;
    let all = state.len().div_ceil(8 << 20);
    assert!(all >= 5, "{all}");
    let mut kills = 0;
    for there in 1..all {
        // From the second on, none under way means that it has ended.
        let ended = || there > 1 && remote_state(&place.data())["uploads"] == serde_json::json!({});
        eventually("a part, or the end", || {
            parts(&place.data()) >= there || ended()
        })
        .await;
        server.kill().await;
        if parts(&place.data()) >= 1 {
            kills += 1;
        }
        server = place.server().await;
    }
    assert!(kills >= 2, "only {kills} kills hit the upload");
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    assert_eq!(place.bucket.unfinished().await, 0);
    // What is in the bucket is what was stored.
    server.kill().await;
    let file = place.data().join(format!(
        "checkpoints/{}/step-0000000001.g1.safetensors",
        run.id
    ));
    let stored = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let server = place.server().await;
    until_all(&server, &run.id, CheckpointPlace::Remote).await;
    assert!(fetched(&server, &run.id, 1).await == stored);
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    // The run resumes from it.
    let mut worker = Worker::join(&server, "w1").await;
    assert_eq!(worker.assignment().await.start_step, 1);
}

async fn backup(server: &Server) -> Vec<u8> {
    use pb::backup_part::Part;
    let request = pb::BackupRequest {};
    let mut stream = server.admin().backup(request).await.unwrap().into_inner();
    let mut archive = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        if let Part::Data(data) = part.part.unwrap() {
            archive.extend_from_slice(&data);
        }
    }
    archive
}

/// Everything but the bucket and an old backup is lost, and the bucket has newer checkpoints than the backup knows; those that
/// it knows were removed by retention.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_s3), ignore = "needs .s3-server: make s3-server")]
async fn a_new_machine_with_the_backup_and_the_bucket_goes_on() {
    let place = Place::new().await;
    let server = place.server().await;
    server.upload(&place.tiny).await.unwrap();
    let (run, at, mut worker) = begin(&server, false).await;
    for step in 1..=2 {
        place.step(&mut worker, &at, step).await;
    }
    checkpoint(&server, &worker, &at, 2, &state(2)).await;
    let archive = backup(&server).await;
    for step in 3..=10 {
        place.step(&mut worker, &at, step).await;
        if step % 2 == 0 {
            checkpoint(&server, &worker, &at, step, &state(step as u32)).await;
        }
    }
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    place
        .bucket
        .until_keys("the dataset, two checkpoints, three ledgers", |keys| {
            let count = |folder: &str| keys.iter().filter(|key| key.starts_with(folder)).count();
            count("checkpoints/") == 4
                && count("ledger/") == 3
                && keys.iter().any(|k| k.ends_with("manifest.json"))
        })
        .await;
    let undisturbed = fetched(&server, &run.id, 10).await;
    server.kill().await;
    std::fs::remove_dir_all(place.data()).unwrap();

    let file = place.dir.path().join("fovea.tar");
    std::fs::write(&file, archive).unwrap();
    let restored = fovea_coordinator::restore(&file, &place.data()).unwrap();
    let report = restored.report().join("\n");
    assert!(report.contains("fetched from the object store"), "{report}");
    let with_bucket = place.with_bucket();
    let server = Server::start(&place.data(), |config| {
        with_bucket(config);
        config.accept_store = true;
    })
    .await;
    let adopted = async {
        while !server
            .run(&run.id)
            .await
            .checkpoints
            .iter()
            .any(|c| c.step == 10)
        {
            tokio::time::sleep(POLL).await;
        }
    };
    soon("the newer checkpoints", adopted).await;
    let report = audit(&server, &run.id).await;
    assert_eq!(
        (report.steps, &*report.problems),
        (10, &[][..]),
        "{report:?}"
    );
    let mut worker = Worker::join(&server, "w1").await;
    let at = worker.assignment().await;
    assert_eq!(at.start_step, 10);
    assert!(fetched(&server, &run.id, 10).await == undisturbed);

    // The dataset's description is here by now; its packs come when a worker asks.
    use sha2::Digest;
    let request = pb::GetDatasetRequest {
        dataset: "tiny".into(),
    };
    let files = server.datasets().get(request).await.unwrap().into_inner();
    let manifest: serde_json::Value = serde_json::from_slice(&files.manifest).unwrap();
    for (number, pack) in manifest["packs"].as_array().unwrap().iter().enumerate() {
        let request = pb::FetchPackRequest {
            digest: at.dataset_digest.clone(),
            pack: number as u32,
        };
        let mut stream = server
            .datasets()
            .fetch_pack(request)
            .await
            .unwrap()
            .into_inner();
        let mut hash = sha2::Sha256::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            hash.update(&chunk.data);
        }
        assert_eq!(
            Some(&*hex::encode(hash.finalize())),
            pack["sha256"].as_str()
        );
    }
    // And it goes on, its checkpoints into the bucket.
    worker.ready(&at).await;
    place.step(&mut worker, &at, 11).await;
    checkpoint(&server, &worker, &at, 11, &state(11)).await;
    until_all(&server, &run.id, CheckpointPlace::Both).await;
    assert_eq!(place.bucket.unfinished().await, 0);
}
