//! Slices become a file, or leave nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use fovea_core::googlenet::FlatLayout;
use fovea_core::pipeline::Pipeline;
use fovea_core::roster::slice_of;
use fovea_core::run::{Extent, Run};
use safetensors::SafeTensors;

use crate::small_disk::SmallDisk;
use crate::store::names::path_for;
use crate::store::test_support::{
    ELEMENTS, Shelf, digest_of, files, fingerprint, folder, header, memory_folder, options, record,
    run_id, state, store_one,
};
use crate::store::{CheckpointStore, Description, StoreError};

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
    let mut run = Run::new(run_id(), 1, spec, "d".repeat(64), extent, 0);
    let pipeline = Pipeline {
        steps: "clahe (clip 2, tiles 8), circle, bilinear, rules 3".into(),
        size: 224,
        digest: "ab".repeat(32),
        recipe: Some("crop".into()),
    };
    run.pipeline = Some(pipeline.clone());
    let layout = FlatLayout::new(2, &run.spec.model.frozen).unwrap();
    let about = Description {
        run: &run,
        generation: 3,
        step: 5,
        fingerprint: &fingerprint(),
    };
    let header = crate::store::header(&layout, &about).unwrap();
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
    assert_eq!(
        Pipeline::from_metadata(&about[Pipeline::KEY]),
        Some(pipeline)
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
    let _disk = SmallDisk::mount(&mount, 128 << 10).unwrap();
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
}
