//! Manifests, and folders that belong to no run.

use std::collections::BTreeSet;
use std::fs;

use fovea_core::ids::RunId;

use crate::store::StoreError;
use crate::store::names::path_for;
use crate::store::test_support::{Shelf, folder, run_id, store_one};

#[test]
fn a_manifest_is_verified_beside_the_weights() {
    let shelf = Shelf::new();
    let (store, run, info) = (&shelf.store, run_id(), shelf.infos[0].clone());
    let of = |step| path_for(&folder(&shelf), step, 1).with_extension("json");
    let path = of(10);
    store.verify_manifest(&run, &info).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let other = fs::read_to_string(of(20)).unwrap();
    // Of version 1, without a record.
    fs::write(&path, serde_json::to_vec(&info).unwrap()).unwrap();
    store.verify_manifest(&run, &info).unwrap();
    let cases = [
        ("{".to_owned(), "not a checkpoint's manifest"),
        (other, "step 20"),
        (good.replace("\"r-1\"", "\"x-1\""), "of run x-1"),
        (good.replace(&info.sha256, &"0".repeat(64)), "other weights"),
    ];
    for (text, part) in cases {
        assert_ne!(text, good);
        fs::write(&path, text).unwrap();
        let error = store.verify_manifest(&run, &info).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        // The weights are as good as before.
        store.verify(&run, &info, |_| ()).unwrap();
    }
    fs::remove_file(&path).unwrap();
    let error = store.verify_manifest(&run, &info).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    fs::create_dir(&path).unwrap();
    let error = store.verify_manifest(&run, &info).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
}

#[test]
fn a_folder_of_a_run_that_no_journal_knows_is_found() {
    let shelf = Shelf::new();
    let store = &shelf.store;
    let known: BTreeSet<RunId> = [run_id(), shelf.other.clone()].into();
    // None of these is a run's checkpoint.
    fs::create_dir(shelf.dir().join("empty-3")).unwrap();
    fs::create_dir(shelf.dir().join("notes-4")).unwrap();
    fs::write(shelf.dir().join("notes-4/notes.txt"), "people's").unwrap();
    fs::write(shelf.dir().join("file-5"), "people's").unwrap();
    fs::create_dir(shelf.dir().join(".hidden")).unwrap();
    store.quarantine(&run_id(), &shelf.infos[1]).unwrap();
    assert_eq!(store.unlisted_runs(&known).unwrap(), []);
    let foreign = RunId::new("t-9").unwrap();
    store_one(store, &foreign, 5, 1);
    assert_eq!(
        store.unlisted_runs(&known).unwrap(),
        std::slice::from_ref(&foreign)
    );
    // A manifest alone is one, too.
    fs::remove_file(path_for(&shelf.dir().join("t-9"), 5, 1)).unwrap();
    assert_eq!(
        store.unlisted_runs(&known).unwrap(),
        std::slice::from_ref(&foreign)
    );
    let all = store.unlisted_runs(&BTreeSet::new()).unwrap();
    assert_eq!(all, [shelf.other.clone(), run_id(), foreign]);

    fs::rename(shelf.dir(), shelf.root().join("away")).unwrap();
    let error = store.unlisted_runs(&known).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}
