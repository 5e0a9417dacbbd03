//! Preprocessing by name, and what the manifest says of it.

use std::fs;

use fovea_dataset::labels::LabelOptions;
use fovea_dataset::{
    Dataset, Duplicates, Encoded, GradeScale, PrepareOptions, Preprocessing, Square, prepare,
};

use crate::study::Study;

fn options(study: &Study, preprocess: &str, out: &str) -> PrepareOptions {
    PrepareOptions {
        preprocess: preprocess.parse().expect("a name"),
        out: study.dir.path().join(out),
        ..study.options()
    }
}

/// Records are the squares, processed; what is looked at and warned of is the same whatever is done.
#[test]
fn records_are_processed_and_nothing_else_changes() {
    let study = Study::new(12);
    let mut pipelines = Vec::new();
    let mut quality = Vec::new();
    for name in ["crop", "ben-graham", "clahe:clip=3", "none"] {
        let options = options(&study, name, &format!("out-{}", &name[..4]));
        let report = prepare(&options, &()).expect(name);
        assert_eq!(
            (report.excluded, report.warnings),
            (vec![], vec![]),
            "{name}"
        );
        let dataset = Dataset::open(&options.out).expect("open");
        dataset.verify().expect("packs");
        let manifest = dataset.manifest();
        assert_eq!(report.pipeline, manifest.pipeline());
        assert_eq!(
            manifest.preprocess.method().expect("a method"),
            options.preprocess
        );
        pipelines.push(report.pipeline.digest);
        for sample in dataset.index().train() {
            let mut record = vec![0; 48 * 48 * 3];
            let pack = dataset.open_pack(sample.pack as usize).expect("pack");
            pack.read(sample.record, &mut record).expect("record");
            record.chunks_exact_mut(3).for_each(|p| p.swap(0, 2));
            assert_eq!(record, expected(&study, &sample.image, &options.preprocess));
        }
        if name != "none" {
            quality.push(fs::read(options.out.join("quality.csv")).expect("quality"));
        }
        let sheet = image::open(options.out.join("contact-sheet.png")).expect("sheet");
        assert_eq!(sheet.width(), 8 * 144);
        assert!(sheet.height() > 3 * 144, "24 photographs and a legend");
    }
    assert!(quality.windows(2).all(|pair| pair[0] == pair[1]));
    pipelines.sort();
    pipelines.dedup();
    assert_eq!(pipelines.len(), 4);
}

fn expected(study: &Study, image: &str, preprocess: &Preprocessing) -> Vec<u8> {
    let path = ["jpeg", "PNG"]
        .map(|ending| study.images().join(format!("{image}.{ending}")))
        .into_iter()
        .find(|path| path.exists())
        .expect("a photograph");
    let file = Encoded::read(&path).expect("decode");
    let mut square = match preprocess.method().crops() {
        true => Square::of(&file, 48).expect("square"),
        false => Square::framed(&file, 48).expect("square"),
    };
    preprocess.apply(&mut square.pixels, square.disc);
    square.pixels.into_raw()
}

/// The same bytes whatever the number of threads.
#[test]
fn threads_do_not_matter() {
    let study = Study::new(12);
    let digests = [1, 4].map(|threads| {
        let options = PrepareOptions {
            threads,
            ..options(&study, "clahe", &format!("out-{threads}"))
        };
        prepare(&options, &()).expect("prepared").digest
    });
    assert_eq!(digests[0], digests[1]);
}

/// What the grades mean, as far as somebody said, and what was found of copies.
#[test]
fn scale_and_copies_are_recorded() {
    let study = Study::new(12);
    let manifest = |from: Option<&str>, out: &str| {
        let options = PrepareOptions {
            label_options: LabelOptions {
                from: from.map(|name| name.parse().expect("an importer")),
                ..LabelOptions::default()
            },
            allow_duplicates: true,
            ..options(&study, "crop", out)
        };
        prepare(&options, &()).expect("prepared");
        Dataset::read_manifest(&options.out).expect("manifest")
    };
    let none = Duplicates {
        // Pictures of 48 pixels do not tell.
        resaved: false,
        allowed: true,
        found: 0,
        other_patients: 0,
        sides_exact: 0,
        sides_resaved: 0,
    };
    let unstated = manifest(None, "unstated");
    assert_eq!(
        (unstated.scale, unstated.duplicates),
        (Some(GradeScale::Unstated), Some(none))
    );
    let stated = manifest(Some("eyepacs"), "stated");
    assert_eq!(stated.scale, Some(GradeScale::Icdr));

    fs::copy(
        study.images().join("2_left.jpeg"),
        study.images().join("4_left.jpeg"),
    )
    .expect("copy");
    let twice = manifest(None, "twice").duplicates.expect("recorded");
    assert_eq!((twice.found, twice.other_patients), (1, 1));
    assert_eq!(twice.sides_resaved, 0);
}
