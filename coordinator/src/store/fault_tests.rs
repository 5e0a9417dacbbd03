//! Every file operation of the stores is made to fail, one after the other and in every way.
//!
//! A scenario runs once for each N, with its N-th operation failing, until it needs no more than N. A fault is either
//! single or stays (a full disk stays full). Afterwards, without faults: every stored checkpoint or pack is there and
//! verifies, the error was of the right kind, and no stray file remains.

use std::collections::BTreeSet;

use fovea_core::checkpoint::CheckpointInfo;

use super::disk::Operation;
use super::fault::{Faulted, with_fault};
use super::test_support::{
    Shelf, dataset, digest_of, empty_trash_after, files, folder, header, record, run_id, state,
    upload,
};
use super::{AssemblyFile, DatasetStore, StoreError, StoreOptions, UploadError};

const ERRNOS: [i32; 6] = [
    libc::ENOSPC,
    libc::EIO,
    libc::EACCES,
    libc::EMFILE,
    libc::ENOENT,
    libc::ESTALE,
];

/// Runs a scenario with every fault. `scenario` is given a fresh shelf and performs under the fault; `after` compares.
fn every_fault(
    scenario: impl Fn(&Shelf) -> Result<(), StoreError>,
    after: impl Fn(&Shelf, &Faulted<Result<(), StoreError>>, &str),
) {
    for errno in ERRNOS {
        for stays in [false, true] {
            for at in 0.. {
                let shelf = Shelf::new();
                let faulted = with_fault(errno, at, stays, || scenario(&shelf));
                let about = format!(
                    "errno {errno} at {at} (stays: {stays}), {:?}: {:?}",
                    faulted.failed, faulted.result
                );
                if let Err(error) = &faulted.result {
                    assert_kind(error, errno, &about);
                }
                after(&shelf, &faulted, &about);
                if faulted.count <= at {
                    assert!(at > 3, "{about}: the scenario is hardly tested");
                    break;
                }
            }
        }
    }
}

/// A fault is never taken for damage, and a full disk is reported as such.
fn assert_kind(error: &StoreError, errno: i32, about: &str) {
    match error {
        StoreError::Corrupt { .. } | StoreError::TooNew { .. } => panic!("{about}"),
        StoreError::Full { .. } => assert_eq!(errno, libc::ENOSPC, "{about}"),
        StoreError::Missing { .. } => assert_eq!(errno, libc::ENOENT, "{about}"),
        StoreError::Unavailable { .. } => assert!(
            ![libc::EMFILE, libc::ENOSPC].contains(&errno),
            "{about}: says nothing about the store"
        ),
        StoreError::Unreadable { source, .. }
        | StoreError::Write { source, .. }
        | StoreError::Remove { source, .. } => {
            let found = source.raw_os_error();
            // A store that is opened on a folder that is not there runs into it.
            let there = [libc::ENOTEMPTY, libc::EEXIST].map(Some).contains(&found);
            assert!(
                found == Some(errno) || (there && errno == libc::ENOENT),
                "{about}"
            );
            assert_ne!(errno, libc::ENOSPC, "{about}: must be Full");
        }
    }
}

fn intact(shelf: &Shelf, infos: &[CheckpointInfo], about: &str) {
    for info in infos {
        let found = shelf.store.verify(&run_id(), info, |_| ());
        found.unwrap_or_else(|error| panic!("{about}: {error}"));
        let manifest = shelf.store.manifest(&run_id(), info).expect(about);
        assert_eq!(manifest.info, *info, "{about}");
    }
}

/// The names that the run's folder should have for these checkpoints.
fn names_of(infos: &[CheckpointInfo]) -> BTreeSet<String> {
    let stem = |info: &CheckpointInfo| format!("step-{:010}.g{}", info.step, info.generation);
    infos
        .iter()
        .flat_map(|info| ["json", "safetensors"].map(|end| format!("{}.{end}", stem(info))))
        .collect()
}

/// Takes away what a fault kept from being removed; then nothing stray may be left.
fn assert_tidy(shelf: &Shelf, infos: &[CheckpointInfo], cleanup_failed: bool, about: &str) {
    if cleanup_failed {
        shelf.store.sweep(&run_id(), infos).expect(about);
    }
    assert_eq!(files(&folder(shelf)), names_of(infos), "{about}");
}

/// Whether the fault may have hit the removal of what was begun.
fn hits_cleanup(faulted: &Faulted<Result<(), StoreError>>, errno: i32, stays: bool) -> bool {
    let operation = faulted.failed.as_ref().map(|failed| failed.0);
    // ENOENT from a file that is there makes its removal skip it.
    stays || errno == libc::ENOENT || matches!(operation, Some(Operation::Remove | Operation::Stat))
}

fn assemble(shelf: &Shelf, step: u64) -> Result<(AssemblyFile, String), StoreError> {
    let bytes = state(step, 1);
    let header = header();
    let elements = bytes.len() as u64 / 4;
    let file = shelf.store.begin(&run_id(), step, 1, &header, elements)?;
    for (number, slice) in bytes.chunks(5000).enumerate() {
        file.write_at(slice, number as u64 * 5000)?;
        file.sync()?;
    }
    Ok((file, digest_of(&bytes)))
}

#[test]
fn a_checkpoint_is_stored_whole_or_not_at_all() {
    for errno in ERRNOS {
        for stays in [false, true] {
            for at in 0.. {
                let shelf = Shelf::new();
                let faulted = with_fault(errno, at, stays, || {
                    let (file, digest) = assemble(&shelf, 30)?;
                    file.finish(&digest, &record(30)).map(|_| ())
                });
                let about = format!(
                    "errno {errno} at {at} (stays: {stays}), {:?}: {:?}",
                    faulted.failed, faulted.result
                );
                if let Err(error) = &faulted.result {
                    assert_kind(error, errno, &about);
                    intact(&shelf, &shelf.infos, &about);
                    let cleanup = hits_cleanup(&faulted, errno, stays);
                    assert_tidy(&shelf, &shelf.infos, cleanup, &about);
                } else {
                    let found = shelf.store.found(&run_id(), &shelf.infos).expect(&about);
                    assert_eq!(found.len(), 1, "{about}");
                    let all = [&shelf.infos[..], &[found[0].0.clone()]].concat();
                    intact(&shelf, &all, &about);
                    assert_tidy(&shelf, &all, errno == libc::ENOENT, &about);
                }
                if faulted.count <= at {
                    assert!(faulted.result.is_ok(), "{about}");
                    assert!(at > 15, "{about}: the scenario is hardly tested");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_full_disk_empties_the_trash_for_a_new_checkpoint() {
    let mut emptied = 0;
    for at in 0.. {
        let shelf = Shelf::new();
        shelf
            .store
            .quarantine(&run_id(), &shelf.infos[0])
            .expect("quarantine");
        let faulted = with_fault(libc::ENOSPC, at, false, || assemble(&shelf, 30).map(drop));
        let failed = faulted.failed.map(|(operation, _)| operation);
        if failed == Some(Operation::Allocate) {
            faulted
                .result
                .expect("there is room after the trash was emptied");
            assert_eq!(shelf.trash(), Vec::<String>::new());
            emptied += 1;
        }
        intact(&shelf, &shelf.infos[1..], "full");
        if faulted.count <= at {
            break;
        }
    }
    assert_eq!(emptied, 1);
}

#[test]
fn finishing_again_after_a_fault_stores_the_checkpoint() {
    for errno in ERRNOS {
        for stays in [false, true] {
            for at in 0.. {
                let shelf = Shelf::new();
                let (file, digest) = assemble(&shelf, 30).unwrap();
                let faulted = with_fault(errno, at, stays, || {
                    file.finish(&digest, &record(30)).map(|_| ())
                });
                let about = format!(
                    "errno {errno} at {at} (stays: {stays}), {:?}",
                    faulted.failed
                );
                let again = with_fault(0, usize::MAX, false, || file.finish(&digest, &record(30)));
                let info = again.result.expect(&about);
                let sync_failed = faulted.failed.as_ref().is_some_and(|(operation, path)| {
                    *operation == Operation::Sync && path.is_none()
                });
                if sync_failed
                    && faulted
                        .log
                        .iter()
                        .filter(|o| **o == Operation::Sync)
                        .count()
                        == 1
                {
                    // The kernel may have dropped the pages: a second sync alone would prove nothing.
                    let writes = again.log.iter().filter(|o| **o == Operation::Write).count();
                    assert_eq!(
                        writes, 2,
                        "{about}: the file and its manifest are written again"
                    );
                }
                let same = file.finish(&digest, &record(30)).expect(&about);
                assert_eq!(same, info, "{about}");
                drop(file);
                let all = [&shelf.infos[..], &[info]].concat();
                intact(&shelf, &all, &about);
                // A temporary manifest whose removal failed may be left.
                assert_tidy(&shelf, &all, hits_cleanup(&faulted, errno, stays), &about);
                if faulted.count <= at {
                    assert!(faulted.result.is_ok(), "{about}");
                    break;
                }
            }
        }
    }
}

#[test]
fn reading_never_takes_a_fault_for_damage() {
    every_fault(
        |shelf| {
            let [first, second] = &shelf.infos[..] else {
                unreachable!("the shelf has two checkpoints");
            };
            shelf.store.check()?;
            shelf.store.probe(&run_id(), first)?;
            shelf.store.verify(&run_id(), second, |_| ())?;
            shelf.store.open_file(&run_id(), first)?;
            shelf.store.manifest(&run_id(), second)?;
            shelf.store.found(&run_id(), &[])?;
            shelf.store.free_bytes()?;
            Ok(())
        },
        |shelf, faulted, about| {
            intact(shelf, &shelf.infos, about);
            assert_tidy(shelf, &shelf.infos, false, about);
            if faulted.failed.is_none() {
                assert!(faulted.result.is_ok(), "{about}");
            }
        },
    );
}

#[test]
fn removing_one_checkpoint_spares_the_others() {
    every_fault(
        |shelf| shelf.store.remove(&run_id(), &shelf.infos[0]).map(|_| ()),
        |shelf, faulted, about| {
            let kept = &shelf.infos[1..];
            intact(shelf, kept, about);
            if faulted.result.is_err() {
                // As the run would: once more.
                shelf.store.remove(&run_id(), &shelf.infos[0]).expect(about);
            }
            assert_tidy(shelf, kept, faulted.failed.is_some(), about);
        },
    );
}

#[test]
fn a_sweep_deletes_no_checkpoint() {
    every_fault(
        |shelf| {
            let swept = shelf.store.sweep(&run_id(), &shelf.infos[..1])?;
            assert!(swept.len() <= 2);
            Ok(())
        },
        |shelf, faulted, about| {
            intact(shelf, &shelf.infos[..1], about);
            let unlisted = names_of(&shelf.infos[1..]);
            let left = files(&folder(shelf));
            let trashed: BTreeSet<String> = shelf.trash().into_iter().collect();
            for name in &unlisted {
                assert!(
                    left.contains(name) || trashed.contains(name),
                    "{about}: {name} is gone"
                );
            }
            shelf
                .store
                .sweep(&run_id(), &shelf.infos[..1])
                .expect(about);
            assert_tidy(shelf, &shelf.infos[..1], false, about);
            let trashed: BTreeSet<String> = shelf.trash().into_iter().collect();
            assert!(unlisted.is_subset(&trashed), "{about}: {trashed:?}");
            let _ = faulted;
        },
    );
}

#[test]
fn a_quarantine_and_emptying_the_trash_spare_the_others() {
    every_fault(
        |shelf| {
            shelf.store.quarantine(&run_id(), &shelf.infos[0])?;
            let problem = empty_trash_after(&shelf.store, 30).problem;
            problem.map_or(Ok(()), Err)
        },
        |shelf, faulted, about| {
            intact(shelf, &shelf.infos[1..], about);
            if faulted.result.is_ok() && faulted.failed.is_none() {
                assert_eq!(shelf.trash(), Vec::<String>::new(), "{about}");
            }
        },
    );
}

#[test]
fn removing_a_run_spares_other_runs() {
    every_fault(
        |shelf| shelf.store.remove_run(&shelf.other).map(|_| ()),
        |shelf, faulted, about| {
            intact(shelf, &shelf.infos, about);
            if faulted.result.is_err() || faulted.failed.is_some() {
                shelf.store.remove_run(&shelf.other).expect(about);
            }
            let other = shelf.dir().join(shelf.other.as_str());
            assert!(!other.exists(), "{about}");
        },
    );
}

#[test]
fn opening_a_store_changes_nothing_that_is_stored() {
    for errno in ERRNOS {
        for stays in [false, true] {
            for at in 0.. {
                let shelf = Shelf::new();
                std::fs::write(folder(&shelf).join("tmp-left"), "half").unwrap();
                let known = shelf.id.clone();
                let faulted = with_fault(errno, at, stays, || {
                    let options = StoreOptions {
                        accept: false,
                        ..shelf.options()
                    };
                    super::CheckpointStore::open(&shelf.dir(), Some(&known), 2, options)
                });
                let about = format!(
                    "errno {errno} at {at} (stays: {stays}), {:?}",
                    faulted.failed
                );
                intact(&shelf, &shelf.infos, &about);
                let left = BTreeSet::from(["tmp-left".to_owned()]);
                let files = files(&folder(&shelf));
                let unlisted: BTreeSet<String> =
                    files.difference(&names_of(&shelf.infos)).cloned().collect();
                if faulted.failed.is_none() {
                    assert!(faulted.result.is_ok() && unlisted.is_empty(), "{about}");
                } else {
                    assert!(unlisted.is_subset(&left), "{about}");
                }
                if faulted.count <= at {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_dataset_is_stored_whole_or_not_at_all_and_repaired_in_part() {
    let source = dataset();
    let digest = source.manifest.digest.clone();
    for errno in ERRNOS {
        for stays in [false, true] {
            for repair in [false, true] {
                for at in 0.. {
                    let shelf = Shelf::new();
                    let (store, _) =
                        DatasetStore::open(&shelf.datasets(), None, 0, shelf.options()).unwrap();
                    let place = shelf.datasets().join(&digest);
                    if repair {
                        upload(&store, source).unwrap().store().unwrap();
                        let pack = place.join(&source.manifest.packs[0].file);
                        let mut bytes = std::fs::read(&pack).unwrap();
                        bytes[7] ^= 1;
                        std::fs::write(&pack, bytes).unwrap();
                    }
                    let faulted = with_fault(errno, at, stays, || {
                        let stored = upload(&store, source)?.store()?;
                        Ok::<_, UploadError>((stored.repaired, stored.unreadable))
                    });
                    let about = format!(
                        "errno {errno} at {at} (stays: {stays}, repair: {repair}), {:?}: {:?}",
                        faulted.failed, faulted.result
                    );
                    match &faulted.result {
                        Ok((repaired, unreadable)) => {
                            // Only what is missing or corrupt is replaced.
                            let damaged = repaired.is_empty() || (repair && *repaired == [0]);
                            assert!(damaged || errno == libc::ENOENT, "{about}");
                            for (_, error) in unreadable {
                                assert_kind(error, errno, &about);
                            }
                        }
                        Err(UploadError::Store(error)) => assert_kind(error, errno, &about),
                        Err(UploadError::Invalid { .. }) => panic!("{about}"),
                    }
                    if repair {
                        // What was right is still right.
                        let held = store.open_dataset(&digest).expect(&about);
                        let problems = store.verify(&held, |_| ());
                        let corrupt: Vec<u32> = problems.iter().map(|problem| problem.0).collect();
                        assert!(
                            corrupt.is_empty() || corrupt == [0],
                            "{about}: {problems:?}"
                        );
                        if faulted.failed.is_none() {
                            assert!(corrupt.is_empty(), "{about}");
                        }
                    }
                    // Once more without faults, as people do, on a coordinator that was started again.
                    let (store, _) =
                        DatasetStore::open(&shelf.datasets(), None, 1, shelf.options())
                            .or_else(|_| {
                                DatasetStore::open(&shelf.datasets(), None, 0, shelf.options())
                            })
                            .expect(&about);
                    let stored = upload(&store, source).expect(&about).store().expect(&about);
                    assert!(stored.unreadable.is_empty(), "{about}");
                    assert!(store.verify(&stored.held, |_| ()).is_empty(), "{about}");
                    let names = files(&shelf.datasets());
                    let expected = BTreeSet::from([digest.clone(), "store.json".to_owned()]);
                    assert_eq!(names, expected, "{about}");
                    assert!(store.remove(&digest).expect(&about) > 0, "{about}");
                    if faulted.count <= at {
                        break;
                    }
                }
            }
        }
    }
}
