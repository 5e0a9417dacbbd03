//! Checkpoints that come back from the object store.

use std::fs;

use crate::store::names::path_for;
use crate::store::test_support::{Shelf, folder, run_id};
use crate::store::{Placed, StoreError};

/// The second checkpoint of a shelf, which is not there any more.
struct Gone {
    shelf: Shelf,
    data: Vec<u8>,
    manifest: Vec<u8>,
}

impl Gone {
    fn new() -> Self {
        let shelf = Shelf::new();
        let path = path_for(&folder(&shelf), 20, 1);
        let [data, manifest] =
            [path.clone(), path.with_extension("json")].map(|path| fs::read(path).unwrap());
        shelf.store.remove(&run_id(), &shelf.infos[1]).unwrap();
        Self {
            shelf,
            data,
            manifest,
        }
    }

    fn receive_data(&self) -> Placed {
        let info = &self.shelf.infos[1];
        let store = &self.shelf.store;
        let mut receiving = store
            .receive(&run_id(), (20, 1), info.bytes, &info.sha256)
            .unwrap();
        receiving.piece(&self.data).unwrap();
        receiving.finish().unwrap()
    }

    fn receive_manifest(&self, placed: Placed) -> Result<(), StoreError> {
        let store = &self.shelf.store;
        store.receive_manifest(&run_id(), (20, 1), placed, &self.manifest)
    }

    /// Sweeps what is not the first checkpoint. Returns how many files went.
    fn sweep(&self) -> usize {
        let listed = &self.shelf.infos[..1];
        self.shelf.store.sweep(&run_id(), listed).unwrap().len()
    }
}

#[test]
fn a_sweep_between_file_and_manifest_takes_neither() {
    let gone = Gone::new();
    let (store, infos) = (&gone.shelf.store, &gone.shelf.infos);
    let placed = gone.receive_data();
    assert!(store.found(&run_id(), &infos[..1]).unwrap().is_empty());
    assert_eq!(gone.sweep(), 0);
    gone.receive_manifest(placed).unwrap();
    store.verify(&run_id(), &infos[1], |_| ()).unwrap();
    let found = store.found(&run_id(), &infos[..1]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, infos[1]);
    // It is like any other by now.
    assert_eq!(gone.sweep(), 2);

    // One whose manifest does not come is not kept.
    drop(gone.receive_data());
    assert_eq!(gone.sweep(), 1);
}

#[test]
fn a_run_that_is_removed_meanwhile_is_gone() {
    let gone = Gone::new();
    let placed = gone.receive_data();
    gone.shelf.store.remove_run(&run_id()).unwrap();
    assert!(!folder(&gone.shelf).exists());
    gone.receive_manifest(placed).unwrap_err();
    assert!(!folder(&gone.shelf).exists());
}
