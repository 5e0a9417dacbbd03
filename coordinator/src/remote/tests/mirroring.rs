//! Uploads, removals, sweeps, and whose the bucket is.

use std::sync::atomic::Ordering;

use super::*;

/// However often requests fail, and whether before or after they had an effect: what is listed is whole at every moment, and in
/// the end everything is there, nothing is there that was removed, and no upload is left.
#[tokio::test]
async fn whatever_requests_fail_nothing_listed_is_unreadable_and_no_upload_is_left() {
    for every in [0, 3, 4, 5, 7, 11] {
        let (machine, store) = (Machine::new(), Faulty::new());
        let mut wanted = machine.fill();
        let infos = [10, 20, 30].map(|step| machine.checkpoint(step));
        wanted.extend(infos.iter().map(of));
        store.every.store(every, Ordering::SeqCst);
        let running = machine.start(&store, wanted.clone()).await;
        running.settled().await;
        let stored = running.remote.view().unwrap().stored.clone();
        assert_eq!(stored.len(), 5, "every {every}: {stored:?}");
        store.assert_whole("all").await;

        let ledger = Item::ledger(&run_id(), &infos[0]);
        running
            .remote
            .remove(vec![of(&infos[0]).0, wanted[0].0.clone()])
            .await;
        machine
            .stores
            .checkpoints
            .remove(&run_id(), &infos[0])
            .unwrap();
        running.remote.stored(ledger.clone());
        running
            .until("the ledger", |view| view.stored.contains(&ledger))
            .await;
        running.settled().await;
        let left = running.remote.view().unwrap().stored.clone();
        assert!(
            left.contains(&ledger) && left.len() == 4,
            "every {every}: {left:?}"
        );
        let keys = store.objects().await;
        assert!(
            keys.keys().all(|key| !key.starts_with("datasets/")),
            "{keys:?}"
        );
        assert!(
            keys.keys().all(|key| !key.contains("0000000010.g1.s")),
            "{keys:?}"
        );

        running.remote.remove(vec![Item::Run(run_id())]).await;
        running.settled().await;
        running.kill().await;
        // The next start sweeps.
        let running = machine.start(&store, vec![wanted[1].clone()]).await;
        running.settled().await;
        running
            .until("the sweep", |_| store.open.lock().unwrap().is_empty())
            .await;
        let keys: Vec<String> = store.objects().await.into_keys().collect();
        assert_eq!(keys.len(), 3, "every {every}: {keys:?}");
        running.kill().await;
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_a_kill_ended_it() {
    let (machine, store) = (Machine::new(), Faulty::new());
    let info = machine.checkpoint(10);
    let parts = info.bytes.div_ceil(PART) as usize;
    assert_eq!(parts, 3);
    // Killed while each of the parts is on its way.
    for there in 1..=parts {
        store.parts.store(0, Ordering::SeqCst);
        store.hangs_at.store(there, Ordering::SeqCst);
        let running = machine.start(&store, vec![of(&info)]).await;
        while store.parts.load(Ordering::SeqCst) < there {
            tokio::task::yield_now().await;
        }
        running.kill().await;
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(machine.state()).unwrap()).unwrap();
        let key = "checkpoints/r-1/step-0000000010.g1.safetensors";
        // The last part was sent and not noted.
        let noted = state["uploads"][key]["tags"].as_array().map(Vec::len);
        assert_eq!(noted, Some(there - 1));

        store.parts.store(0, Ordering::SeqCst);
        store.hangs_at.store(0, Ordering::SeqCst);
        let running = machine.start(&store, vec![of(&info)]).await;
        running.settled().await;
        assert_eq!(store.parts.load(Ordering::SeqCst), parts - (there - 1));
        store.assert_whole("the resumed upload").await;
        assert!(store.open.lock().unwrap().is_empty());
        running.remote.remove(vec![of(&info).0]).await;
        running.settled().await;
        running.kill().await;
    }
}

#[tokio::test]
async fn an_upload_that_the_store_has_forgotten_begins_anew() {
    let (machine, store) = (Machine::new(), Faulty::new());
    let info = machine.checkpoint(10);
    store.hangs_at.store(2, Ordering::SeqCst);
    let running = machine.start(&store, vec![of(&info)]).await;
    while store.parts.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    running.kill().await;
    store.open.lock().unwrap().clear();
    let running = machine.start(&store, vec![of(&info)]).await;
    running.settled().await;
    store.assert_whole("the second upload").await;
    running.kill().await;
}

#[tokio::test]
async fn a_full_store_takes_no_uploads_and_goes_on_when_there_is_room() {
    let (machine, store) = (Machine::new(), Faulty::new());
    let infos = [10, 20].map(|step| machine.checkpoint(step));
    let running = machine.start(&store, vec![of(&infos[0])]).await;
    running.settled().await;
    let full = RemoteError::Full {
        store: "memory".into(),
        problem: "QuotaExceeded".into(),
    };
    *store.next.lock().unwrap() = Some(("begin", full.clone()));
    running.remote.checkpoint_stored(&run_id(), &infos[1]);
    let shown = full.to_string();
    running
        .until("the problem", |view| view.problem.as_ref() == Some(&shown))
        .await;
    running
        .until("the upload", |view| {
            view.waiting == 0 && view.problem.is_none()
        })
        .await;
    running.kill().await;
}

#[tokio::test]
async fn a_damaged_file_does_not_become_a_copy() {
    let (machine, store) = (Machine::new(), Faulty::new());
    let info = machine.checkpoint(10);
    let path = machine
        .root
        .path()
        .join("checkpoints/r-1/step-0000000010.g1.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let running = machine.start(&store, vec![of(&info)]).await;
    running
        // Each attempt opens an upload, and gives it up.
        .until("the problem", |view| {
            let problem = view.problem.as_ref();
            problem.is_some_and(|text| text.contains("it is not uploaded"))
                && store.open.lock().unwrap().is_empty()
        })
        .await;
    let keys: Vec<String> = store.objects().await.into_keys().collect();
    assert_eq!(keys, ["store.json"]);
    running.kill().await;
}

#[tokio::test]
async fn another_checkpoint_of_the_same_name_is_replaced_manifest_first() {
    let (machine, store) = (Machine::new(), Faulty::new());
    let info = machine.checkpoint(10);
    let running = machine.start(&store, vec![of(&info)]).await;
    running.settled().await;
    running.kill().await;
    // A journal from a backup takes the step again.
    let machine = Machine::new();
    let again = store_one(&machine.stores.checkpoints, &run_id(), 10, 1);
    let key = "checkpoints/r-1/step-0000000010.g1.json";
    let before = store.objects().await[key];
    let path = machine.root.path().join(key);
    let mut manifest = std::fs::read(&path).unwrap();
    manifest.push(b'\n');
    std::fs::write(&path, &manifest).unwrap();
    let running = machine.start(&store, vec![]).await;
    running.settled().await;
    running.remote.checkpoint_stored(&run_id(), &again);
    let replaced = async {
        while store.objects().await.get(key) != Some(&(before + 1)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replaced)
        .await
        .expect("the manifest is replaced");
    running.settled().await;
    running.kill().await;
}

#[tokio::test]
async fn a_prefix_belongs_to_one_cluster() {
    let store = Faulty::new();
    let (ours, theirs) = (Machine::new(), Machine::new());
    // At the same time: one of them has it.
    let (a, b) = tokio::join!(ours.open(&store, "us"), theirs.open(&store, "them"));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let (first, second) = match a.is_ok() {
        true => (("us", &ours), ("them", &theirs)),
        false => (("them", &theirs), ("us", &ours)),
    };
    first.1.open(&store, first.0).await.unwrap();
    let error = second.1.open(&store, second.0).await.unwrap_err();
    assert!(matches!(error, RemoteError::Foreign { .. }), "{error}");
    assert!(error.forbids_start());
    assert!(
        error.to_string().contains("belongs to another cluster"),
        "{error}"
    );

    // Objects without an identity are nobody's.
    let store = Faulty::new();
    store.overwrite("checkpoints/r-1/a", b"x").await;
    let error = ours.open(&store, "us").await.unwrap_err();
    assert!(error.to_string().contains("no store.json"), "{error}");
    let accepted = open_at(store.clone(), location(), "us".into(), true, &ours.state()).await;
    accepted.unwrap();
    // A newer version's, or no identity at all.
    for (bytes, part) in [
        (&b"{\"format\": 2}"[..], "start the newer version"),
        (b"{}", "is not a store's identity"),
        (
            b"{\"format\":1,\"kind\":\"weights\",\"id\":\"us\",\"created_at_ms\":1}",
            "store of weights",
        ),
    ] {
        store.overwrite("store.json", bytes).await;
        let error = ours.open(&store, "us").await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_is_away_keeps_only_a_new_cluster_from_starting() {
    let (machine, store) = (Machine::new(), Faulty::new());
    store.every.store(1, Ordering::SeqCst);
    let error = machine.open(&store, "us").await.unwrap_err();
    assert_eq!(error, Faulty::needed());
    store.every.store(0, Ordering::SeqCst);
    let info = machine.checkpoint(10);
    machine.start(&store, vec![of(&info)]).await.kill().await;
    store.every.store(1, Ordering::SeqCst);
    let running = machine.start(&store, vec![of(&info)]).await;
    running
        .until("the trouble", |view| {
            !view.connected && view.problem.is_some()
        })
        .await;
    store.every.store(0, Ordering::SeqCst);
    running.settled().await;
    running
        .until("the end of the trouble", |view| view.problem.is_none())
        .await;
    running.kill().await;
}
