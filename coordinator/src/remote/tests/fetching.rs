//! A new machine, with the bucket.

use super::*;
use crate::remote::Wanted;

/// A bucket that holds a dataset, weights and two checkpoints.
async fn filled() -> (
    Arc<Faulty>,
    Vec<(Item, Option<CheckpointInfo>)>,
    [CheckpointInfo; 2],
) {
    let (machine, store) = (Machine::new(), Faulty::new());
    let mut wanted = machine.fill();
    let infos = [10, 20].map(|step| machine.checkpoint(step));
    wanted.extend(infos.iter().map(of));
    let running = machine.start(&store, wanted.clone()).await;
    running.settled().await;
    running.kill().await;
    (store, wanted, infos)
}

fn checkpoint(info: &CheckpointInfo) -> Wanted {
    Wanted::Checkpoint {
        run: run_id(),
        step: info.step,
        generation: info.generation,
        info: Some(info.clone()),
    }
}

#[tokio::test]
async fn everything_comes_back_verified() {
    let (store, wanted, infos) = filled().await;
    let machine = Machine::new();
    let running = machine.start(&store, wanted.clone()).await;
    let stores = &machine.stores;
    // Many who ask at once are served by one download.
    let asked: Vec<_> = (0..4)
        .map(|_| {
            let (remote, wanted) = (running.remote.clone(), checkpoint(&infos[1]));
            tokio::spawn(async move { remote.fetch(wanted).await })
        })
        .collect();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    stores
        .checkpoints
        .verify(&run_id(), &infos[1], |_| ())
        .unwrap();
    stores
        .checkpoints
        .verify_manifest(&run_id(), &infos[1])
        .unwrap();
    let found = stores.checkpoints.found(&run_id(), &[]).unwrap();
    assert_eq!(found.len(), 1, "it can be adopted");

    let digest = dataset().manifest.digest.clone();
    running
        .remote
        .fetch(Wanted::Description(digest.clone()))
        .await
        .unwrap();
    let held = stores.datasets.open_dataset(&digest).unwrap();
    for entry in held.manifest.packs.clone() {
        let digest = digest.clone();
        running
            .remote
            .fetch(Wanted::Pack { digest, entry })
            .await
            .unwrap();
    }
    assert!(stores.datasets.verify(&held, |_| ()).is_empty());

    let Item::Weights(sha256) = &wanted[1].0 else {
        panic!("the second are the weights")
    };
    running
        .remote
        .fetch(Wanted::Weights(sha256.clone()))
        .await
        .unwrap();
    let held = stores.weights.describe(sha256).unwrap();
    stores.weights.verify(&held, |_| ()).unwrap();
    // What is there is not uploaded again.
    running.settled().await;
    running.kill().await;
}

#[tokio::test]
async fn what_is_damaged_or_another_is_not_taken() {
    let (store, wanted, infos) = filled().await;
    let machine = Machine::new();
    let running = machine.start(&store, wanted).await;
    let mut other = infos[0].clone();
    other.sha256 = "0".repeat(64);
    let error = running.remote.fetch(checkpoint(&other)).await.unwrap_err();
    assert!(
        error.to_string().contains("describes another checkpoint"),
        "{error}"
    );
    store
        .overwrite("checkpoints/r-1/step-0000000010.g1.safetensors", b"short")
        .await;
    let error = running
        .remote
        .fetch(checkpoint(&infos[0]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    let folder = machine.root.path().join("checkpoints");
    assert_eq!(files(&folder.join("r-1")), [""; 0]);
    assert_eq!(files(&folder), ["r-1", "store.json"]);
    // One that is nowhere.
    other.step = 99;
    let error = running.remote.fetch(checkpoint(&other)).await.unwrap_err();
    assert!(matches!(error, RemoteError::Missing { .. }), "{error}");
    running.kill().await;
}

#[tokio::test]
async fn a_failing_store_leaves_nothing_half_fetched() {
    let (store, wanted, infos) = filled().await;
    for every in 1..6 {
        let machine = Machine::new();
        let running = machine.start(&store, wanted.clone()).await;
        store
            .every
            .store(every, std::sync::atomic::Ordering::SeqCst);
        let fetched = running.remote.fetch(checkpoint(&infos[0])).await;
        store.every.store(0, std::sync::atomic::Ordering::SeqCst);
        if fetched.is_err() {
            assert_eq!(files(&machine.root.path().join("checkpoints/r-1")), [""; 0]);
            running.remote.fetch(checkpoint(&infos[0])).await.unwrap();
        }
        let store = &machine.stores.checkpoints;
        store.verify(&run_id(), &infos[0], |_| ()).unwrap();
        running.kill().await;
    }
}

#[tokio::test]
async fn a_journal_from_a_backup_sees_newer_checkpoints_and_their_ledgers() {
    let (store, wanted, infos) = filled().await;
    let machine = Machine::new();
    let running = machine.start(&store, wanted).await;
    let unlisted = running.remote.unlisted(&run_id(), &infos[..1]);
    assert_eq!(
        unlisted,
        [Wanted::Checkpoint {
            run: run_id(),
            step: 20,
            generation: 1,
            info: None
        }]
    );
    assert_eq!(running.remote.unlisted(&run_id(), &infos), []);
    running.kill().await;
}
