//! The trash, adoption and removal.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;

use crate::store::disk::Operation;
use crate::store::fault::with_fault;
use crate::store::names::path_for;
use crate::store::test_support::{
    ELEMENTS, Shelf, digest_of, empty_trash_after, files, folder, header, options, record, run_id,
    state, store_one,
};
use crate::store::trash::TRASH;
use crate::store::{CheckpointStore, Moment, Purged, StoreError, StoreOptions, TrashAges};

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
    assert_eq!(empty_trash_after(store, 6).freed, 0);
    assert_eq!(shelf.trash().len(), 8);
    let Purged { freed, problem } = empty_trash_after(store, 8);
    assert!(freed > 4 * ELEMENTS * 4 && problem.is_none(), "{problem:?}");
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
    assert!(empty_trash_after(&store, 0).problem.is_none());
    assert_eq!(shelf.trash().len(), 0);
}

/// Also for root: a name that the store does not write keeps the folder from being removed.
fn hold(entry: &Path) {
    fs::write(entry.join(OsStr::from_bytes(b"\xff")), "").unwrap();
}

#[test]
fn an_entry_that_cannot_be_removed_does_not_keep_the_others() {
    let shelf = Shelf::new();
    let places = [0, 1].map(|at| shelf.store.quarantine(&run_id(), &shelf.infos[at]).unwrap());
    let [older, younger] = places.each_ref().map(|place| place.parent().unwrap());
    hold(older);
    let Purged { freed, problem } = empty_trash_after(&shelf.store, 8);
    assert!(freed > shelf.infos[1].bytes, "{freed}");
    assert!(older.exists() && !younger.exists());
    let text = problem.expect("one stays").to_string();
    assert!(text.contains(&*older.to_string_lossy()), "{text}");
}

#[test]
fn a_full_disk_empties_what_can_be_removed_of_the_trash() {
    let mut emptied = 0;
    for at in 0.. {
        let shelf = Shelf::new();
        let places = [0, 1].map(|at| shelf.store.quarantine(&run_id(), &shelf.infos[at]).unwrap());
        hold(places[0].parent().unwrap());
        let begin = || {
            let file = shelf.store.begin(&run_id(), 30, 1, &header(), ELEMENTS);
            file.map(drop)
        };
        let faulted = with_fault(libc::ENOSPC, at, false, begin);
        if matches!(faulted.failed, Some((Operation::Allocate, _))) {
            faulted.result.expect("there is room for it");
            assert!(!places[1].exists());
            emptied += 1;
        }
        if faulted.count <= at {
            break;
        }
    }
    assert_eq!(emptied, 1);
}

#[test]
fn a_clock_that_is_ahead_does_not_empty_the_trash() {
    let shelf = Shelf::new();
    shelf.store.quarantine(&run_id(), &shelf.infos[0]).unwrap();
    let (mut ages, now) = (TrashAges::default(), SystemTime::now());
    let day = Duration::from_secs(86_400);
    let mut pass = |wall: SystemTime, running: Duration| {
        let purged = shelf.store.empty_trash(&mut ages, Moment { wall, running });
        assert!(purged.problem.is_none());
        purged.freed
    };
    assert_eq!(pass(now + 365 * day, Duration::ZERO), 0);
    assert_eq!(pass(now, day / 24), 0, "it was corrected");
    assert_eq!(pass(now + 6 * day, 6 * day), 0);
    assert!(pass(now + 8 * day, 8 * day) > 0);
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
