//! Checkpoints that are stored before the journal has their run.
//!
//! An evaluation begins with a copy of a checkpoint, which is complete before its run is accepted. Until the journal has the
//! run, a mark lies beside the copy, which was on the disk before it:
//!
//! ```text
//! checkpoints/<run>/step-0000000010.g1.unjournalled
//! ```
//!
//! So a start can tell what a killed coordinator was copying from what a lost journal has listed, which stays. Only what has a
//! mark is removed here.

use std::io;
use std::path::PathBuf;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use tracing::info;

use super::checkpoints::CheckpointStore;
use super::disk;
use super::error::StoreError;
use super::names::{self, path_for};

/// What the name of a mark ends with, behind the name of its checkpoint.
const MARK: &str = "unjournalled";

/// A checkpoint whose run the journal may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unjournalled {
    pub run: RunId,
    pub step: u64,
    pub generation: u64,
}

impl Unjournalled {
    /// The checkpoint `info`, as one of `run`.
    pub(crate) fn new(run: &RunId, info: &CheckpointInfo) -> Self {
        Self {
            run: run.clone(),
            step: info.step,
            generation: info.generation,
        }
    }
}

impl CheckpointStore {
    /// Marks a checkpoint that is going to be stored.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn mark(&self, of: &Unjournalled) -> Result<(), StoreError> {
        self.check()?;
        let folder = self.inner().folder(&of.run);
        self.inner().ensure_folder(&folder)?;
        let (mark, _) = self.places(of);
        match disk::write_new(&mark, b"") {
            Ok(()) => self.inner().sync_folder(&folder),
            // Of a start that could not remove it. Its number was given again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.inner().root.write_error(&mark, 0, error)),
        }
    }

    /// The checkpoints that have a mark.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn marked(&self) -> Result<Vec<Unjournalled>, StoreError> {
        self.check()?;
        let root = &self.inner().root;
        let names = disk::list(root.dir()).map_err(|e| root.read_error(root.dir(), e))?;
        let mut marked = Vec::new();
        for run in names.into_iter().filter_map(|name| RunId::new(name).ok()) {
            let folder = self.inner().folder(&run);
            if !folder.is_dir() {
                continue;
            }
            for name in self.inner().list(&folder)? {
                if let Some((generation, step)) = parse(&name) {
                    marked.push(Unjournalled {
                        run: run.clone(),
                        step,
                        generation,
                    });
                }
            }
        }
        Ok(marked)
    }

    /// Takes the mark off a checkpoint, as the journal has its run. An empty folder goes with it.
    ///
    /// # Errors
    /// As the disk reports; call it again then.
    pub(crate) fn unmark(&self, of: &Unjournalled) -> Result<(), StoreError> {
        self.check()?;
        let (mark, _) = self.places(of);
        let (inner, folder) = (self.inner(), self.inner().folder(&of.run));
        disk::remove_if_there(&mark).map_err(|error| inner.root.remove_error(&mark, error))?;
        match disk::remove_folder(&folder) {
            Ok(()) => inner.sync_folder(inner.root.dir()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                inner.sync_folder(&folder)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(inner.root.remove_error(&folder, error)),
        }
    }

    /// Removes a checkpoint that has a mark, and its mark: its run was not accepted. What has no mark stays.
    ///
    /// # Errors
    /// As the disk reports; call it again then.
    pub(crate) fn remove_marked(&self, of: &Unjournalled) -> Result<(), StoreError> {
        self.check()?;
        let (mark, data) = self.places(of);
        let root = &self.inner().root;
        if disk::exists(&mark).map_err(|error| root.read_error(&mark, error))? {
            for path in [data.with_extension("json"), data] {
                disk::remove_if_there(&path).map_err(|error| root.remove_error(&path, error))?;
            }
            // Before the mark: what comes back after a power failure must have it.
            self.inner().sync_folder(&self.inner().folder(&of.run))?;
        }
        self.unmark(of)
    }

    /// Moves a checkpoint that [`Self::marked`] found to the trash, if it is there, and removes its mark.
    ///
    /// # Errors
    /// As the disk reports; call it again then.
    pub(crate) fn discard_marked(&self, of: &Unjournalled) -> Result<(), StoreError> {
        self.check()?;
        let Unjournalled {
            run,
            step,
            generation,
        } = of;
        match self.inner().discard(run, *step, *generation) {
            Ok(entry) => info!(
                run_id = %run,
                step,
                generation,
                "checkpoint.swept: {run} was not accepted when the coordinator ended; its copy of the checkpoint of step {step} \
                 was moved to {}",
                entry.display()
            ),
            // It ended before the copy was complete.
            Err(StoreError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        self.unmark(of)
    }

    /// Where the mark and the file of a checkpoint lie.
    fn places(&self, of: &Unjournalled) -> (PathBuf, PathBuf) {
        let data = path_for(&self.inner().folder(&of.run), of.step, of.generation);
        (data.with_extension(MARK), data)
    }
}

/// Generation and step in the name of a mark.
fn parse(name: &str) -> Option<(u64, u64)> {
    let stem = name.strip_suffix(MARK)?;
    let (generation, step, _) = names::parse(&format!("{stem}json"))?;
    Some((generation, step))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::test_support::{Shelf, files, options, run_id, store_one};
    use super::*;

    fn unjournalled(run: &str) -> Unjournalled {
        Unjournalled {
            run: RunId::new(run).unwrap(),
            step: 10,
            generation: 1,
        }
    }

    /// A copy that is marked, as an evaluation makes it.
    fn copied(shelf: &Shelf, run: &str) -> Unjournalled {
        let of = unjournalled(run);
        shelf.store.mark(&of).unwrap();
        store_one(&shelf.store, &of.run, 10, 1);
        of
    }

    #[test]
    fn a_copy_of_a_run_that_was_not_accepted_goes_with_its_mark_and_nothing_else_does() {
        let shelf = Shelf::new();
        let of = copied(&shelf, "e-3");
        assert_eq!(files(&shelf.dir().join("e-3")).len(), 3);
        // Marks are no checkpoints.
        assert_eq!(shelf.store.found(&of.run, &[]).unwrap().len(), 1);
        shelf.store.remove_marked(&of).unwrap();
        assert!(!shelf.dir().join("e-3").exists());
        assert!(shelf.trash().is_empty());
        // Once more, and where it ended with the mark.
        shelf.store.remove_marked(&of).unwrap();
        shelf.store.mark(&of).unwrap();
        shelf.store.remove_marked(&of).unwrap();
        assert!(!shelf.dir().join("e-3").exists());
        // A checkpoint without a mark stays, whoever asks.
        shelf.store.remove_marked(&unjournalled("r-1")).unwrap();
        shelf
            .store
            .verify(&run_id(), &shelf.infos[0], |_| ())
            .unwrap();
        // What else lies there does, too.
        let of = copied(&shelf, "e-3");
        store_one(&shelf.store, &of.run, 20, 1);
        shelf.store.remove_marked(&of).unwrap();
        assert_eq!(files(&shelf.dir().join("e-3")).len(), 2);
    }

    #[test]
    fn the_next_start_finds_what_was_marked() {
        let shelf = Shelf::new();
        let whole = copied(&shelf, "e-3");
        let (begun, accepted) = (unjournalled("e-4"), copied(&shelf, "e-5"));
        shelf.store.mark(&begun).unwrap();
        fs::write(shelf.dir().join("e-4/tmp-1"), "half").unwrap();
        let (store, _) =
            CheckpointStore::open(&shelf.dir(), Some(&shelf.id), 0, options()).unwrap();
        let found = store.marked().unwrap();
        assert_eq!(found, [whole.clone(), begun.clone(), accepted.clone()]);
        store.discard_marked(&whole).unwrap();
        store.discard_marked(&begun).unwrap();
        store.unmark(&accepted).unwrap();
        assert!(store.marked().unwrap().is_empty());
        for gone in ["e-3", "e-4"] {
            assert!(!shelf.dir().join(gone).exists(), "{gone}");
        }
        assert_eq!(shelf.trash().len(), 2, "a file and its manifest");
        assert_eq!(store.found(&accepted.run, &[]).unwrap().len(), 1);
        assert_eq!(files(&shelf.dir().join("e-5")).len(), 2);
    }
}
