//! What the weights store promises when any of its file operations fails: whole or not at all, and no fault is damage.

use std::fs;
use std::path::Path;

use super::fault::with_fault;
use super::test_support::{
    WEIGHTS, add_weights as add, files, memory_folder, options, weights_digest as digest,
};
use super::{HeldWeights, StoreError, UploadError, WeightsStore};

const ERRNOS: [i32; 6] = [
    libc::ENOSPC,
    libc::EIO,
    libc::EACCES,
    libc::EMFILE,
    libc::ENOENT,
    libc::ESTALE,
];

fn open(root: &Path, known: Option<&str>) -> WeightsStore {
    let (store, _) = WeightsStore::open(&root.join("weights"), known, options()).unwrap();
    store
}

fn assert_whole(store: &WeightsStore, about: &str) -> HeldWeights {
    let held = store.describe(&digest()).expect(about);
    store.verify(&held, |_| ()).expect(about);
    held
}

/// A fault is never taken for damage, and a full disk is reported as such.
fn assert_kind(error: &UploadError, errno: i32, about: &str) {
    match error {
        UploadError::Invalid { .. }
        | UploadError::Store(StoreError::Corrupt { .. } | StoreError::TooNew { .. }) => {
            panic!("{about}")
        }
        UploadError::Store(StoreError::Full { .. }) => assert_eq!(errno, libc::ENOSPC, "{about}"),
        UploadError::Store(_) => assert_ne!(errno, libc::ENOSPC, "{about}"),
    }
}

/// Whatever fails while weights are added, repaired or removed: what is under its digest is whole, and the next try succeeds.
#[test]
fn weights_are_stored_whole_or_not_at_all() {
    // Damage that is there before; None: the weights are not there.
    let damages: [Option<fn(&Path)>; 4] = [
        None,
        Some(|_| ()),
        Some(|place| fs::write(place.join("file"), "damaged").unwrap()),
        Some(|place| fs::remove_file(place.join("manifest.json")).unwrap()),
    ];
    for (number, damage) in damages.iter().enumerate() {
        for errno in ERRNOS {
            for stays in [false, true] {
                for at in 0.. {
                    let root = memory_folder();
                    let dir = root.path().join("weights");
                    let (store, id) = WeightsStore::open(&dir, None, options()).unwrap();
                    let place = store.place(&digest());
                    if let Some(damage) = damage {
                        add(&store).unwrap();
                        damage(&place);
                    }
                    let faulted = with_fault(errno, at, stays, || add(&store));
                    let about = format!(
                        "damage {number}, errno {errno} at {at} (stays: {stays}), {:?}: {:?}",
                        faulted.failed, faulted.result
                    );
                    if let Err(error) = &faulted.result {
                        assert_kind(error, errno, &about);
                    }
                    if faulted.result.is_ok() || damage.is_none() && place.exists() {
                        assert_whole(&store, &about);
                    }
                    add(&store).expect(&about);
                    let held = assert_whole(&store, &about);
                    assert_eq!(held.name.as_str(), "w", "{about}");
                    if errno == libc::ENOENT && stays {
                        // Everything seemed to be gone, so nothing was noted. The next start looks.
                        drop(store);
                        open(root.path(), Some(&id));
                    }
                    // The upload after the fault removed what could not be removed then.
                    let left = files(&dir);
                    assert_eq!(left, [digest(), "store.json".into()].into(), "{about}");
                    if faulted.count <= at {
                        assert!(at > 10, "{about}: hardly tested");
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_removal_that_fails_says_so_and_is_finished_later() {
    for errno in [libc::EIO, libc::EACCES] {
        for at in 0.. {
            let root = memory_folder();
            let (store, id) =
                WeightsStore::open(&root.path().join("weights"), None, options()).unwrap();
            add(&store).unwrap();
            let faulted = with_fault(errno, at, true, || store.remove(&digest()));
            let about = format!("errno {errno} at {at}: {:?}", faulted.result);
            if store.place(&digest()).exists() {
                assert!(faulted.result.is_err(), "{about}");
                assert_whole(&store, &about);
            }
            drop(store);
            let store = open(root.path(), Some(&id));
            store.remove(&digest()).expect(&about);
            let left = files(&root.path().join("weights"));
            assert_eq!(left, ["store.json".to_owned()].into(), "{about}");
            if faulted.count <= at {
                assert!(faulted.result.unwrap() >= WEIGHTS.len() as u64);
                break;
            }
        }
    }
}

#[test]
fn a_manifest_of_a_newer_version_is_left_alone() {
    let root = memory_folder();
    let store = open(root.path(), None);
    add(&store).unwrap();
    let path = store.place(&digest()).join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replace("\"manifest\": 1", "\"manifest\": 2");
    assert_ne!(newer, text);
    fs::write(&path, &newer).unwrap();
    let error = store.describe(&digest()).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { .. }), "{error}");
    let error = add(&store).unwrap_err();
    assert!(
        matches!(error, UploadError::Store(StoreError::TooNew { .. })),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
