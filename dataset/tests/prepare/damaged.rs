//! Datasets that were damaged after they were written.

use std::fs;

use fovea_dataset::{Dataset, DatasetError, IndexError, PackError, prepare, verify_pack};

use crate::study::Study;

#[test]
fn every_damage_is_noticed_when_a_dataset_is_opened() {
    let study = Study::new(8);
    prepare(&study.options(), &()).expect("prepared");
    let out = study.out();
    let with_changed = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, check: &dyn Fn()| {
        let path = out.join(name);
        let before = fs::read(&path).expect("read");
        fs::write(&path, change(before.clone())).expect("write");
        check();
        fs::write(&path, before).expect("restore");
    };
    let flip = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    let pack = "packs/train-00000.pack";
    with_changed("manifest.json", &flip, &|| {
        let error = Dataset::open(&out).expect_err("manifest");
        assert!(matches!(error, DatasetError::Manifest { .. }), "{error}");
    });
    with_changed("index.csv", &flip, &|| {
        let error = Dataset::open(&out).expect_err("index");
        assert!(
            matches!(
                &error,
                DatasetError::Index {
                    source: IndexError::Digest { .. },
                    ..
                }
            ),
            "{error}"
        );
    });
    with_changed(pack, &cut, &|| {
        let error = Dataset::open(&out).expect_err("short pack");
        assert!(
            matches!(error, DatasetError::Pack(PackError::Size { .. })),
            "{error}"
        );
    });
    with_changed(pack, &flip, &|| {
        let dataset = Dataset::open(&out).expect("sizes are right");
        let error = dataset.verify().expect_err("damaged pack");
        assert!(
            error.to_string().contains("train-00000.pack is damaged"),
            "{error}"
        );
        let error = verify_pack(&dataset.pack_path(0), &dataset.manifest().packs[0]);
        assert!(matches!(error, Err(PackError::Digest { .. })));
    });
    fs::remove_file(out.join(pack)).expect("remove");
    assert!(Dataset::open(&out).is_err(), "a pack is missing");
    let error = Dataset::open(study.dir.path()).expect_err("no dataset");
    assert!(matches!(error, DatasetError::NotADataset { .. }), "{error}");
}
