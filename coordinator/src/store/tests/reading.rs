//! Only damage is damage: a store that is away, a file that cannot be read and one that differs are told apart.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::store::StoreError;
use crate::store::identity::IDENTITY_FILE;
use crate::store::names::path_for;
use crate::store::test_support::{
    ELEMENTS, Shelf, digest_of, empty_trash_after, folder, header, record, run_id, state,
};

#[test]
fn a_store_that_goes_away_makes_every_call_unavailable_and_comes_back() {
    let shelf = Shelf::new();
    let (store, run, info) = (&shelf.store, run_id(), shelf.infos[0].clone());
    let begun = store.begin(&run, 30, 1, &header(), ELEMENTS).unwrap();
    begun.write_at(&state(30, 1), 0).unwrap();
    let away = shelf.root().join("volume");
    let another = Shelf::new();
    for replacement in ["missing", "empty", "another"] {
        fs::rename(shelf.dir(), &away).unwrap();
        match replacement {
            "missing" => {}
            "empty" => fs::create_dir(shelf.dir()).unwrap(),
            _ => fs::rename(another.dir(), shelf.dir()).unwrap(),
        }
        let finished = begun.finish(&digest_of(&state(30, 1)), &record(30));
        let results: [(&str, Result<(), StoreError>); 13] = [
            ("check", store.check()),
            (
                "begin",
                store.begin(&run, 40, 1, &header(), ELEMENTS).map(drop),
            ),
            ("finish", finished.map(drop)),
            (
                "probe",
                missing_is_fine(replacement, store.probe(&run, &info)),
            ),
            (
                "verify",
                missing_is_fine(replacement, store.verify(&run, &info, |_| ())),
            ),
            (
                "open_file",
                missing_is_fine(replacement, store.open_file(&run, &info).map(drop)),
            ),
            (
                "manifest",
                missing_is_fine(replacement, store.manifest(&run, &info).map(drop)),
            ),
            ("remove", store.remove(&run, &info).map(drop)),
            ("quarantine", store.quarantine(&run, &info).map(drop)),
            ("sweep", store.sweep(&run, &[]).map(drop)),
            ("found", store.found(&run, &[]).map(drop)),
            ("remove_run", store.remove_run(&run).map(drop)),
            (
                "empty_trash",
                empty_trash_after(store, 30).problem.map_or(Ok(()), Err),
            ),
        ];
        for (call, result) in results {
            let error = result.expect_err(call);
            assert!(
                matches!(error, StoreError::Unavailable { .. }) && error.is_transient(),
                "{replacement}, {call}: {error}"
            );
        }
        match replacement {
            "missing" => assert!(!shelf.dir().exists(), "nothing is created"),
            "empty" => fs::remove_dir(shelf.dir()).unwrap(),
            _ => {
                fs::rename(shelf.dir(), another.dir()).unwrap();
                for info in &another.infos {
                    another.store.verify(&run, info, |_| ()).unwrap();
                }
            }
        }
        fs::rename(&away, shelf.dir()).unwrap();
        store.check().unwrap();
        store.verify(&run, &info, |_| ()).unwrap();
    }
    begun
        .finish(&digest_of(&state(30, 1)), &record(30))
        .unwrap();
}

/// The other store of the test holds files of the same names and bytes, which reading cannot tell apart.
fn missing_is_fine(replacement: &str, result: Result<(), StoreError>) -> Result<(), StoreError> {
    if replacement == "another" && result.is_ok() {
        return Err(StoreError::Unavailable {
            store: "another".into(),
            problem: "with the same files".into(),
        });
    }
    result
}

#[test]
fn only_a_complete_read_that_differs_is_corruption() {
    let shelf = Shelf::new();
    let (store, run) = (&shelf.store, run_id());
    let info = &shelf.infos[0];
    let path = path_for(&folder(&shelf), info.step, info.generation);
    let whole = fs::read(&path).unwrap();

    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    fs::write(&path, &flipped).unwrap();
    store.probe(&run, info).unwrap();
    let mut read = 0;
    let error = store.verify(&run, info, |bytes| read = bytes).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(read, info.bytes);
    assert!(error.to_string().contains(&info.sha256) && !error.is_transient());

    fs::write(&path, &whole[..100]).unwrap();
    for result in [store.probe(&run, info), store.verify(&run, info, |_| ())] {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
    fs::remove_file(&path).unwrap();
    let error = store.probe(&run, info).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    // Opening a FIFO must not wait for a writer.
    let fifo = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path ends with a zero byte and lives during the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let error = store.verify(&run, info, |_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    fs::write(&path, &whole).unwrap();
    store.verify(&run, info, |_| ()).unwrap();
}

/// Does `work` on a thread that has no rights to the folders of this process.
#[cfg(target_os = "linux")]
fn without_rights<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the call touches no memory. It changes the rights of this thread only; one that is not root's has
            // no others anyway.
            unsafe { libc::setfsuid(65_534) };
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
#[cfg(target_os = "linux")]
fn without_permission_nothing_is_damaged_or_missing() {
    let shelf = Shelf::new();
    let (store, run, info) = (&shelf.store, run_id(), &shelf.infos[0]);
    let forbid = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let path = path_for(&folder(&shelf), info.step, info.generation);
    // The whole store, as with `chmod 000 checkpoints`.
    forbid(&shelf.dir(), 0o000);
    let results = without_rights(|| {
        [
            store.check(),
            store.probe(&run, info),
            store.verify(&run, info, |_| ()),
            store.sweep(&run, &[]).map(drop),
            store.quarantine(&run, info).map(drop),
        ]
    });
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("ermission denied"), "{error}");
    }
    // One file of it.
    forbid(&shelf.dir(), 0o755);
    forbid(shelf.root(), 0o755);
    forbid(&folder(&shelf), 0o755);
    forbid(&shelf.dir().join(IDENTITY_FILE), 0o644);
    forbid(&path, 0o000);
    let error = without_rights(|| store.verify(&run, info, |_| ())).unwrap_err();
    assert!(
        matches!(&error, StoreError::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied),
        "{error}"
    );
    forbid(&path, 0o600);
    store.verify(&run, info, |_| ()).unwrap();
    assert!(store.sweep(&run, &shelf.infos).unwrap().is_empty());
}
