//! What the checkpoint store promises, on real files: identity, kinds of errors, the trash, adoption.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::googlenet::FlatLayout;
use fovea_core::ids::RunId;
use fovea_core::roster::slice_of;
use fovea_core::run::{Extent, Run};
use safetensors::SafeTensors;

use super::identity::IDENTITY_FILE;
use super::names::path_for;
use super::test_support::{
    ELEMENTS, Shelf, digest_of, files, fingerprint, folder, header, memory_folder, options, record,
    run_id, state, store_one,
};
use super::trash::TRASH;
use super::{CheckpointStore, DatasetStore, Description, OpenError, StoreError, StoreOptions};

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
                store.empty_trash(SystemTime::now()).map(drop),
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

#[test]
fn slices_in_any_order_become_a_file_that_safetensors_reads() {
    let root = memory_folder();
    let (store, _) =
        CheckpointStore::open(&root.path().join("checkpoints"), None, 0, options()).unwrap();
    let extent = Extent {
        steps_per_epoch: 5,
        total_steps: 10,
        train_samples: 40,
        validation_samples: 2,
    };
    let spec = toml::from_str("name='r'\ndataset='d'").unwrap();
    let run = Run::new(run_id(), 1, spec, "d".repeat(64), extent, 0);
    let layout = FlatLayout::new(2, &run.spec.model.frozen).unwrap();
    let about = Description {
        run: &run,
        generation: 3,
        step: 5,
        fingerprint: &fingerprint(),
    };
    let header = super::header(&layout, &about).unwrap();
    let elements = layout.state_len() as u64;
    let assembly = store.begin(&run.id, 5, 3, &header, elements).unwrap();
    // A float per element, its own position.
    let bytes: Vec<u8> = (0..elements)
        .flat_map(|i| (i as f32).to_le_bytes())
        .collect();
    for rank in [2, 0, 1] {
        let slice = slice_of(elements, 3, rank);
        let range = slice.start as usize * 4..slice.end as usize * 4;
        assembly.write_at(&bytes[range], slice.start * 4).unwrap();
    }
    assembly.sync().unwrap();
    let wrong = assembly.finish(&"0".repeat(32), &record(5)).unwrap_err();
    assert!(matches!(wrong, StoreError::Corrupt { .. }), "{wrong}");
    let info = assembly.finish(&digest_of(&bytes), &record(5)).unwrap();
    drop(assembly);

    let path = path_for(&root.path().join("checkpoints/r-1"), 5, 3);
    let file = fs::read(&path).unwrap();
    assert_eq!((info.bytes, info.lineage), (file.len() as u64, 3));
    let (start, metadata) = SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(file[8 + start..], bytes[..], "the data is the state");
    let about = metadata.metadata().clone().unwrap();
    assert_eq!(
        (&*about["format"], &*about["run_id"], &*about["epoch"]),
        ("fovea-checkpoint-1", "r-1", "1")
    );
    let tensors = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.len(), layout.state_entries().len());
    for entry in layout.state_entries() {
        let tensor = tensors.tensor(&entry.name).unwrap();
        assert_eq!(tensor.shape(), entry.shape, "{}", entry.name);
    }
    for path in [&path, &path.with_extension("json")] {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    let mode = fs::metadata(path.parent().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_begun_checkpoint_leaves_nothing_when_it_is_dropped_and_is_not_swept_before() {
    let shelf = Shelf::new();
    let (store, run) = (&shelf.store, run_id());
    let begun = store.begin(&run, 30, 1, &header(), ELEMENTS).unwrap();
    let beyond = begun.write_at(&[0; 8], ELEMENTS * 4 - 4).unwrap_err();
    assert!(matches!(beyond, StoreError::Write { .. }), "{beyond}");
    let swept = store.sweep(&run, &shelf.infos).unwrap();
    assert_eq!(swept, Vec::<std::path::PathBuf>::new());
    assert_eq!(files(&folder(&shelf)).len(), 5);
    drop(begun);
    assert_eq!(files(&folder(&shelf)).len(), 4);

    // Dropped while the volume is away, it goes when the volume is back.
    let begun = store.begin(&run, 30, 1, &header(), ELEMENTS).unwrap();
    let away = shelf.root().join("volume");
    fs::rename(shelf.dir(), &away).unwrap();
    drop(begun);
    fs::rename(&away, shelf.dir()).unwrap();
    assert_eq!(files(&folder(&shelf)).len(), 5);
    let next = store.begin(&run, 40, 1, &header(), ELEMENTS).unwrap();
    assert_eq!(files(&folder(&shelf)).len(), 5, "its own file only");
    drop(next);
    assert_eq!(files(&folder(&shelf)).len(), 4);
}

#[test]
#[cfg(target_os = "linux")]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
fn a_disk_that_is_really_full_loses_nothing_and_says_how_much_is_needed() {
    let root = memory_folder();
    let mount = root.path().join("disk");
    fs::create_dir(&mount).unwrap();
    let text = |text: &str| std::ffi::CString::new(text).unwrap();
    let (kind, target) = (text("tmpfs"), text(mount.to_str().unwrap()));
    let size = text("size=128k");
    // SAFETY: all strings end with a zero byte and live during the call.
    let mounted = unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            size.as_ptr().cast(),
        )
    };
    assert_eq!(mounted, 0, "{}", io::Error::last_os_error());
    let outcome = std::panic::catch_unwind(|| {
        let dir = mount.join("checkpoints");
        let (store, _) = CheckpointStore::open(&dir, None, 0, options()).unwrap();
        let run = run_id();
        let mut infos = Vec::new();
        let error = loop {
            let step = infos.len() as u64 + 1;
            match store.begin(&run, step, 1, &header(), ELEMENTS) {
                Ok(begun) => {
                    begun.write_at(&state(step, 1), 0).unwrap();
                    match begun.finish(&digest_of(&state(step, 1)), &record(step)) {
                        Ok(info) => infos.push(info),
                        Err(error) => break error,
                    }
                }
                Err(error) => break error,
            }
            assert!(infos.len() < 20, "128 KiB do not hold so many");
        };
        let StoreError::Full { needed, free, .. } = &error else {
            panic!("{error}");
        };
        assert!(infos.len() > 3 && needed > free, "{error}");
        assert_eq!(files(&dir.join("r-1")).len(), 2 * infos.len());
        for info in &infos {
            store.verify(&run, info, |_| ()).unwrap();
        }
        store.remove(&run, &infos[0]).unwrap();
        store_one(&store, &run, 90, 1);
    });
    // SAFETY: the path ends with a zero byte and lives during the call.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    outcome.unwrap();
}

#[test]
fn what_is_put_aside_is_kept_for_its_time_and_never_overwritten() {
    let shelf = Shelf::new();
    let (store, run) = (&shelf.store, run_id());
    let notes = folder(&shelf).join("notes.txt");
    fs::write(&notes, "people's").unwrap();
    fs::write(folder(&shelf).join("tmp-1"), "half").unwrap();
    fs::write(
        folder(&shelf).join("step-0000000010.g1.safetensors.damaged"),
        "old",
    )
    .unwrap();
    let swept = store.sweep(&run, &shelf.infos[..1]).unwrap();
    assert_eq!(swept.len(), 3, "{swept:?}");
    assert_eq!(shelf.trash().len(), 2, "the temporary file is deleted");
    assert_eq!(files(&folder(&shelf)).len(), 4);

    // The same checkpoint again, twice: each has its own place.
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let info = store_one(store, &run, 20, 1);
        places.insert(store.quarantine(&run, &info).unwrap());
        let error = store.quarantine(&run, &info).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    }
    assert_eq!((places.len(), shelf.trash().len()), (2, 6));
    for place in places {
        assert!(place.exists() && place.with_extension("json").exists());
    }
    // An unlisted file in the way of a new one is not overwritten either.
    store_one(store, &run, 20, 1);
    store_one(store, &run, 20, 1);
    assert_eq!(shelf.trash().len(), 8);

    let by_people = shelf.dir().join(TRASH).join("by-people");
    fs::create_dir(&by_people).unwrap();
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    assert_eq!(store.empty_trash(now + 6 * day).unwrap(), 0);
    assert_eq!(shelf.trash().len(), 8);
    let freed = store.empty_trash(now + 8 * day).unwrap();
    assert!(freed > 4 * ELEMENTS * 4, "{freed}");
    assert_eq!(shelf.trash().len(), 0);
    assert!(by_people.exists() && notes.exists());

    // With too little room it is emptied early.
    store.quarantine(&run, &shelf.infos[0]).unwrap();
    let short_of_room = StoreOptions {
        min_free_bytes: u64::MAX,
        ..options()
    };
    let (store, _) =
        CheckpointStore::open(&shelf.dir(), Some(&shelf.id), 0, short_of_room).unwrap();
    assert!(store.empty_trash(now).unwrap() > 0);
    assert_eq!(shelf.trash().len(), 0);
}

#[test]
fn unlisted_checkpoints_can_be_adopted_with_their_ledger() {
    let shelf = Shelf::new();
    let (store, run) = (&shelf.store, run_id());
    let later = store_one(store, &run, 15, 2);
    // Of version 1, torn, of another run, and without its file.
    let old = store_one(store, &run, 30, 2);
    let folder = folder(&shelf);
    let manifest = |info: &CheckpointInfo| {
        path_for(&folder, info.step, info.generation).with_extension("json")
    };
    fs::write(manifest(&old), serde_json::to_vec_pretty(&old).unwrap()).unwrap();
    let torn = store_one(store, &run, 40, 2);
    fs::write(manifest(&torn), "{").unwrap();
    let short = store_one(store, &run, 50, 2);
    fs::write(path_for(&folder, 50, 2), "short").unwrap();
    let gone = store_one(store, &run, 60, 2);
    fs::remove_file(path_for(&folder, 60, 2)).unwrap();
    let foreign = store_one(store, &run, 70, 2);
    let text = fs::read_to_string(manifest(&foreign)).unwrap();
    fs::write(manifest(&foreign), text.replace("\"r-1\"", "\"x-1\"")).unwrap();
    let _ = (short, gone);

    let found = store.found(&run, &shelf.infos[..1]).unwrap();
    let infos: Vec<_> = found.iter().map(|(info, _)| info.clone()).collect();
    assert_eq!(infos, [shelf.infos[1].clone(), later, old]);
    let recorded = record(20);
    let (_, manifest_20) = &found[0];
    assert_eq!(manifest_20.info.lineage, 3);
    assert_eq!(manifest_20.record.as_ref(), Some(&recorded.run));
    assert_eq!(manifest_20.state_digest, Some(digest_of(&state(20, 1))));
    assert!(found[2].1.record.is_none(), "version 1 has none");

    let text = fs::read_to_string(manifest(&foreign)).unwrap();
    let newer = text.replace("fovea-manifest-2", "fovea-manifest-3");
    assert_ne!(text, newer);
    fs::write(manifest(&foreign), newer).unwrap();
    let error = store.found(&run, &[]).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { .. }), "{error}");
    assert!(error.to_string().contains("fovea-manifest-3"), "{error}");
}

#[test]
fn removing_gives_back_the_bytes_and_spares_what_people_put_there() {
    let shelf = Shelf::new();
    let (store, run) = (&shelf.store, run_id());
    let freed = store.remove(&run, &shelf.infos[0]).unwrap();
    assert!(freed > shelf.infos[0].bytes, "file and manifest: {freed}");
    assert_eq!(store.remove(&run, &shelf.infos[0]).unwrap(), 0);
    assert!(store.remove_run(&run).unwrap() > shelf.infos[1].bytes);
    assert!(!folder(&shelf).exists());
    assert_eq!(store.remove_run(&run).unwrap(), 0);
    fs::write(shelf.dir().join("other-2/notes.txt"), "people's").unwrap();
    assert!(store.remove_run(&shelf.other).unwrap() > 0);
    assert_eq!(files(&shelf.dir().join("other-2")).len(), 1);
    let absent = RunId::new("absent-9").unwrap();
    assert!(store.sweep(&absent, &[]).unwrap().is_empty());
    assert!(store.found(&absent, &[]).unwrap().is_empty());
}
