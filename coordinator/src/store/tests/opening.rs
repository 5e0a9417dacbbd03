//! A store is opened only where no listed file can be hidden.

use std::fs;

use crate::store::identity::IDENTITY_FILE;
use crate::store::test_support::{Shelf, files, options, run_id};
use crate::store::{CheckpointStore, DatasetStore, OpenError, StoreOptions};

fn refused(result: Result<(CheckpointStore, String), OpenError>) -> OpenError {
    result.map(|(_, id)| id).unwrap_err()
}

fn accepting() -> StoreOptions {
    StoreOptions {
        accept: true,
        ..options()
    }
}

#[test]
fn an_unmounted_store_is_refused_at_start_and_nothing_is_lost() {
    let shelf = Shelf::new();
    let away = shelf.root().join("volume");
    let dir = shelf.dir();
    fs::rename(&dir, &away).unwrap();

    // The mount point may be missing or empty.
    let error = refused(CheckpointStore::open(&dir, Some(&shelf.id), 2, options()));
    assert!(matches!(error, OpenError::Absent { .. }), "{error}");
    assert!(!dir.exists(), "nothing is created");
    fs::create_dir(&dir).unwrap();
    let error = refused(CheckpointStore::open(&dir, Some(&shelf.id), 2, options()));
    assert!(matches!(error, OpenError::Absent { .. }), "{error}");
    let text = error.to_string();
    for part in [
        &*dir.to_string_lossy(),
        &shelf.id,
        "mounted?",
        "--accept-store",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(files(&dir).is_empty(), "nothing is created");

    fs::remove_dir(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    let (store, id) = CheckpointStore::open(&dir, Some(&shelf.id), 2, options()).unwrap();
    assert_eq!(id, shelf.id);
    assert!(store.sweep(&run_id(), &shelf.infos).unwrap().is_empty());
    for info in &shelf.infos {
        store.verify(&run_id(), info, |_| ()).unwrap();
    }
}

#[test]
fn a_store_is_opened_only_where_no_listed_file_can_be_hidden() {
    let shelf = Shelf::new();
    let dir = shelf.dir();
    let other = "0".repeat(32);
    // Foreign, or with a journal that was lost.
    let error = refused(CheckpointStore::open(&dir, Some(&other), 2, options()));
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    let error = refused(CheckpointStore::open(&dir, None, 0, options()));
    assert!(matches!(error, OpenError::Unlisted { .. }), "{error}");
    for known in [Some(&*other), None] {
        let (_, id) = CheckpointStore::open(&dir, known, 0, accepting()).unwrap();
        assert_eq!(id, shelf.id, "the store keeps its identity");
    }
    // A journal that was migrated, and whose identity was not written before a kill.
    let (_, id) = CheckpointStore::open(&dir, None, 3, options()).unwrap();
    assert_eq!(id, shelf.id);
    // An older version's store has no identity.
    fs::remove_file(dir.join(IDENTITY_FILE)).unwrap();
    let (_, id) = CheckpointStore::open(&dir, None, 3, options()).unwrap();
    assert_ne!(id, shelf.id);

    // An older version's journal, but an empty folder.
    let empty = shelf.root().join("empty");
    fs::create_dir(&empty).unwrap();
    let error = refused(CheckpointStore::open(&empty, None, 3, options()));
    assert!(
        matches!(error, OpenError::Emptied { expected: 3, .. }),
        "{error}"
    );
    assert!(files(&empty).is_empty(), "nothing is created");
    let (_, first) = CheckpointStore::open(&empty, None, 3, accepting()).unwrap();
    let (_, second) = CheckpointStore::open(&empty, Some(&first), 0, options()).unwrap();
    assert_eq!(first, second);

    // Other kinds, newer formats and garbage.
    let error = DatasetStore::open(&dir, None, 0, accepting()).unwrap_err();
    assert!(matches!(error, OpenError::Identity { .. }), "{error}");
    let identity = empty.join(IDENTITY_FILE);
    fs::write(&identity, r#"{"format": 99, "of": "the future"}"#).unwrap();
    for options in [options(), accepting()] {
        let error = refused(CheckpointStore::open(&empty, Some(&first), 0, options));
        assert!(
            matches!(error, OpenError::TooNew { found: 99, .. }),
            "{error}"
        );
    }
    fs::write(&identity, "garbage").unwrap();
    let error = refused(CheckpointStore::open(&empty, Some(&first), 0, options()));
    assert!(matches!(error, OpenError::Identity { .. }), "{error}");
    let (_, third) = CheckpointStore::open(&empty, Some(&first), 0, accepting()).unwrap();
    assert_ne!(first, third);
}
