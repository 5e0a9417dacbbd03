//! Preparing real photographs, where they are available.

use std::collections::BTreeSet;
use std::path::Path;

use fovea_core::ids::DatasetName;
use fovea_dataset::crop::CropMethod;
use fovea_dataset::{Dataset, Encoded, PrepareOptions, Square, Warning, crop, decode, prepare};

#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn real_photographs_are_prepared_whole() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/fundus512");
    let dir = tempfile::tempdir().expect("folder");
    let options = PrepareOptions {
        // Small, for speed: decoding and finding the circle is the same work. From 96 px on copies are sought,
        // of which there are none. Two photographs show one eye, under different names.
        image_size: 96,
        ..PrepareOptions::new(
            data.join("trainLabels.csv"),
            data.join("images"),
            dir.path().join("dataset"),
            DatasetName::new("fundus512").expect("name"),
        )
    };
    let report = prepare(&options, &()).expect("prepared");
    assert_eq!(report.excluded, vec![]);
    assert!(
        matches!(&*report.warnings, [Warning::OneEye { pairs: 1, most_alike }]
            if (&*most_alike[0].0, &*most_alike[0].1) == ("Patient058_L", "Patient155_L")),
        "{:?}",
        report.warnings
    );
    assert_eq!(report.patients.iter().sum::<usize>(), 238);
    let all: Vec<u64> = (0..5)
        .map(|g| report.counts.train[g] + report.counts.validation[g])
        .collect();
    assert_eq!(all, [228, 73, 132, 22, 21]);

    let dataset = Dataset::open(&options.out).expect("open");
    dataset.verify().expect("packs");
    if let Some(folder) = std::env::var_os("FOVEA_SHOW") {
        for name in ["contact-sheet.png", "quality.csv"] {
            std::fs::copy(options.out.join(name), Path::new(&folder).join(name)).expect("copy");
        }
    }
    let patients = |samples: &[fovea_dataset::Sample]| -> BTreeSet<u32> {
        samples.iter().map(|sample| sample.patient).collect()
    };
    let (train, held_out) = (
        patients(dataset.index().train()),
        patients(dataset.index().validation()),
    );
    assert!(train.is_disjoint(&held_out));
    assert!((59..=60).contains(&held_out.len()), "{}", held_out.len());

    // The disc fills its square: retina in the middle of all four edges, black in the corners. The
    // frame of these photographs cuts the disc at top and bottom.
    let mut record = vec![0; 96 * 96 * 3];
    for sample in dataset.index().train() {
        let pack = dataset.open_pack(sample.pack as usize).expect("pack");
        pack.read(sample.record, &mut record).expect("record");
        let level = |x: usize, y: usize| {
            let at = (y * 96 + x) * 3;
            record[at..at + 3].iter().copied().max().unwrap_or(0)
        };
        for corner in [(0, 0), (95, 0), (0, 95), (95, 95)] {
            assert!(
                level(corner.0, corner.1) < 8,
                "{}: {corner:?}",
                sample.image
            );
        }
        for edge in [3, 92] {
            assert!(level(edge, 48) > 12, "{}: column {edge}", sample.image);
            assert!(level(48, edge) > 12, "{}: row {edge}", sample.image);
        }
    }
}

#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn a_photograph_and_its_small_copy_give_the_same_circle() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let originals: Vec<_> = std::fs::read_dir(data.join("fundus_original"))
        .expect("../shared/data/fundus_original can be listed")
        .collect();
    assert!(!originals.is_empty(), "no photograph to compare");
    for original in originals {
        let original = original.expect("entry").path();
        let large = decode(&original).expect("decode");
        let name = original
            .file_stem()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        let small = decode(&data.join(format!("fundus512/images/{name}.jpeg"))).expect("decode");
        let scale = f64::from(large.width()) / f64::from(small.width());
        let (large, small) = (
            crop::find(&large).expect("fundus"),
            crop::find(&small).expect("fundus"),
        );
        assert_eq!(
            (large.method, small.method),
            (CropMethod::Circle, CropMethod::Circle)
        );
        for (what, a, b) in [
            ("side", f64::from(large.side), f64::from(small.side)),
            ("left", large.left as f64, small.left as f64),
            ("top", large.top as f64, small.top as f64),
        ] {
            let off = (a - b * scale).abs() / f64::from(large.side);
            assert!(off < 0.01, "{name}: {what} {a} against {b} x {scale}");
        }
    }
}

#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn a_real_photograph_reduced_while_it_is_decoded_gives_the_same_square() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/fundus_original");
    for (size, reduction) in [(224, 4), (512, 2)] {
        for entry in std::fs::read_dir(&data).expect("list").take(4) {
            let path = entry.expect("entry").path();
            let reduced = Square::read(&path, size).expect("square");
            assert_eq!(reduced.reduction, reduction, "{}", path.display());
            let whole = decode(&path).expect("decode");
            let crop = crop::find(&whole).expect("fundus");
            let crop = crop.within(whole.width(), whole.height());
            let stored = f64::from(crop.side) / f64::from(size);
            let factor = f64::from(reduction);
            for (a, b) in [
                (f64::from(reduced.crop.side), f64::from(crop.side)),
                (reduced.crop.left as f64, crop.left as f64),
                (reduced.crop.top as f64, crop.top as f64),
            ] {
                let off = (a * factor - b).abs() / stored;
                assert!(
                    off <= 1.0,
                    "{}, {size}: {:?}, {crop:?}",
                    path.display(),
                    reduced.crop
                );
            }
        }
    }
}

/// Random bytes over real photographs: what is not noticed must be rare.
#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn overwritten_parts_of_real_photographs_are_noticed() {
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/fundus512/images");
    let mut paths: Vec<_> = std::fs::read_dir(data)
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .collect();
    paths.sort();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(13);
    for (length, most) in [(512, 3), (2000, 1)] {
        let mut missed = 0;
        for path in &paths[..60] {
            let whole = std::fs::read(path).expect("read");
            for _ in 0..4 {
                // Behind the headers, before the end marker.
                let room = (whole.len() - 800 - 2 - length) as u64;
                let at = 800 + (random.next_u64() % room) as usize;
                let mut damaged = whole.clone();
                for byte in &mut damaged[at..at + length] {
                    *byte = (random.next_u32() % 255) as u8;
                }
                let read = Encoded::from_bytes(damaged).and_then(|file| file.decode(1));
                missed += usize::from(read.is_ok());
            }
        }
        println!("{length} bytes: {missed} of 240 were not noticed");
        assert!(missed <= most, "{missed} of 240 with {length} bytes");
    }
}
