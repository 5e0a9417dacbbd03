//! What the dataset store promises, on real files: uploads, repair, kinds of errors.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::test_support::{dataset, files, memory_folder, options, upload};
use super::{DatasetStore, DescribingFile, StoreError, StoreOptions, Upload, UploadError};

fn datasets(root: &Path) -> DatasetStore {
    DatasetStore::open(&root.join("datasets"), None, 0, options())
        .unwrap()
        .0
}

#[test]
fn an_upload_adds_a_dataset_and_repairs_one_that_is_there() {
    let root = memory_folder();
    let (store, source) = (datasets(root.path()), dataset());
    let digest = &source.manifest.digest;
    let stored = upload(&store, source).unwrap().store().unwrap();
    assert!(stored.added && stored.repaired.is_empty());
    let held = store.open_dataset(digest).unwrap();
    assert_eq!(held.manifest, source.manifest);
    assert_eq!(held.pool, stored.held.pool);
    assert_eq!(
        store.read_files(digest).unwrap(),
        (source.manifest_bytes.clone(), source.index.clone())
    );
    assert!(store.probe(&held).is_empty());
    // What a kill before the journal's entry leaves.
    assert_eq!(
        store.unlisted(std::slice::from_ref(digest)).unwrap(),
        [] as [PathBuf; 0]
    );
    let place = root.path().join("datasets").join(digest);
    assert_eq!(store.unlisted(&[]).unwrap(), [place]);
    let mut read = 0;
    assert!(store.verify(&held, |bytes| read = bytes).is_empty());
    assert_eq!(
        read,
        source.packs.iter().map(|p| p.len() as u64).sum::<u64>()
    );
    let again = upload(&store, source).unwrap().store().unwrap();
    assert!(!again.added && again.repaired.is_empty());

    let place = root.path().join("datasets").join(digest);
    let pack = |number: usize| place.join(&source.manifest.packs[number].file);
    assert!(source.packs.len() >= 3);
    fs::remove_file(pack(0)).unwrap();
    let mut bytes = source.packs[2].clone();
    bytes[99] ^= 1;
    fs::write(pack(2), &bytes).unwrap();
    let good = fs::metadata(pack(1)).unwrap();
    let problems = store.verify(&held, |_| ());
    assert!(
        matches!(
            &problems[..],
            [
                (0, StoreError::Missing { .. }),
                (2, StoreError::Corrupt { .. })
            ]
        ),
        "{problems:?}"
    );
    assert!(matches!(
        store.probe(&held)[..],
        [(0, StoreError::Missing { .. })]
    ));
    fs::remove_file(place.join("index.csv")).unwrap();
    let error = store.open_dataset(digest).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    let repaired = upload(&store, source).unwrap().store().unwrap();
    assert!(!repaired.added && repaired.unreadable.is_empty());
    assert_eq!(repaired.repaired, [0, 2]);
    assert_eq!(repaired.repaired_files, [DescribingFile::Index]);
    assert_eq!(
        fs::metadata(pack(1)).unwrap().ino(),
        good.ino(),
        "a good pack is left alone"
    );
    let held = store.open_dataset(digest).unwrap();
    assert!(store.verify(&held, |_| ()).is_empty());
    assert_eq!(files(&root.path().join("datasets")).len(), 2);

    let mut file = store.open_pack(&held, 1).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, source.packs[1]);
    let error = store.open_pack(&held, 99).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(store.remove(digest).unwrap() > read);
    assert_eq!(store.remove(digest).unwrap(), 0);
    assert_eq!(files(&root.path().join("datasets")).len(), 1);
}

#[test]
fn manifest_and_index_are_verified_and_repaired_one_by_one() {
    use DescribingFile::{Index, Manifest};
    let root = memory_folder();
    let (store, source) = (datasets(root.path()), dataset());
    let held = upload(&store, source).unwrap().store().unwrap().held;
    let place = store.place(&source.manifest.digest);
    assert!(store.verify_description(&held).is_empty());
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    let cases: [(&[DescribingFile], bool); 5] = [
        (&[Manifest], true),
        (&[Index], true),
        (&[Manifest], false),
        (&[Index], false),
        (&[Manifest, Index], false),
    ];
    for (files, missing) in cases {
        let inode = |file: DescribingFile| fs::metadata(place.join(file.name())).unwrap().ino();
        let before = [Manifest, Index].map(inode);
        for file in files {
            let path = place.join(file.name());
            match missing {
                true => fs::remove_file(path).unwrap(),
                false => fs::write(&path, flipped(&fs::read(&path).unwrap())).unwrap(),
            }
        }
        let problems = store.verify_description(&held);
        let found: Vec<DescribingFile> = problems.iter().map(|(file, _)| *file).collect();
        assert_eq!(found, files, "{problems:?}");
        for (_, error) in &problems {
            match missing {
                true => assert!(matches!(error, StoreError::Missing { .. }), "{error}"),
                false => assert!(matches!(error, StoreError::Corrupt { .. }), "{error}"),
            }
        }
        let stored = upload(&store, source).unwrap().store().unwrap();
        let mut repaired = stored.repaired_files;
        repaired.sort();
        assert_eq!(repaired, files);
        assert!(!stored.added && stored.repaired.is_empty());
        assert!(store.verify_description(&held).is_empty());
        for (file, before) in [Manifest, Index].into_iter().zip(before) {
            if !files.contains(&file) {
                assert_eq!(inode(file), before, "a good {} is left alone", file.name());
            }
        }
    }
}

#[test]
fn an_upload_that_is_not_the_dataset_leaves_nothing() {
    let root = memory_folder();
    let (store, source) = (datasets(root.path()), dataset());
    let begin = || {
        let manifest = source.manifest.clone();
        Upload::begin(&store, manifest, &source.manifest_bytes, &source.index)
    };
    let field = |error: UploadError| match error {
        UploadError::Invalid { field, .. } => field,
        UploadError::Store(error) => panic!("{error}"),
    };
    let mut upload = begin().unwrap();
    assert_eq!(
        field(upload.piece(1, &source.packs[1]).unwrap_err()),
        "piece.pack"
    );
    assert_eq!(field(upload.piece(0, &[]).unwrap_err()), "piece.data");
    upload.piece(0, &source.packs[0]).unwrap();
    assert_eq!(field(upload.piece(0, &[1]).unwrap_err()), "piece.pack");
    assert_eq!(field(upload.verify().unwrap_err()), "piece");
    let mut upload = begin().unwrap();
    for (number, pack) in source.packs.iter().enumerate() {
        let mut bytes = pack.clone();
        bytes[0] ^= u8::from(number == 1);
        upload.piece(number as u32, &bytes).unwrap();
    }
    let error = upload.verify().unwrap_err();
    assert!(error.to_string().contains("pack 1"), "{error}");
    assert_eq!(field(error), "piece.data");
    assert_eq!(files(&root.path().join("datasets")).len(), 1);

    let dir = root.path().join("datasets");
    let short_of_room = StoreOptions {
        min_free_bytes: 1 << 60,
        ..options()
    };
    let (store, _) = DatasetStore::open(&dir, None, 0, short_of_room).unwrap();
    let manifest = source.manifest.clone();
    let error = Upload::begin(&store, manifest, &source.manifest_bytes, &source.index).unwrap_err();
    let UploadError::Store(StoreError::Full { needed, free, .. }) = &error else {
        panic!("{error}");
    };
    assert!(*needed > 1 << 60 && *free > 0);
    assert!(error.to_string().contains("min_free_mib"), "{error}");
}
