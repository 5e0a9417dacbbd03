//! Unusable rows and photographs, and warnings.

use std::fs;

use fovea_dataset::prepare::PrepareError;
use fovea_dataset::{Dataset, MaxBad, Warning, prepare};

use crate::study::{Study, file, photograph};

/// A study in which everything that can go wrong with a row or a photograph does.
fn broken_study() -> Study {
    let study = Study::new(10);
    let images = study.images();
    let whole = fs::read(images.join("0_left.jpeg")).expect("read");
    fs::write(images.join("0_left.jpeg"), &whole[..whole.len() / 2]).expect("truncate");
    image::RgbImage::from_pixel(160, 120, image::Rgb([90, 90, 90]))
        .save(images.join("1_left.PNG"))
        .expect("blank");
    fs::remove_file(images.join("2_left.jpeg")).expect("missing");
    fs::write(images.join("3_left.PNG"), b"not a picture").expect("garbage");
    let text = study.labels().replace("4_left,4", "4_left,7") + "5_left,0\n6_left,3\n,2\n";
    study.write_labels(&text);
    study
}

const BROKEN: [(&str, &str); 9] = [
    ("0_left", "truncated"),
    ("1_left", "blank"),
    ("2_left", "missing"),
    ("3_left", "cannot be decoded"),
    ("4_left", "grade 7 is outside 0 to 4"),
    (
        "6_left",
        "conflicting labels: grade 1 here, grade 3 on line 23",
    ),
    ("5_left", "duplicate row"),
    (
        "6_left",
        "conflicting labels: grade 3 here, grade 1 on line 14",
    ),
    ("", "the name is empty"),
];

#[test]
fn bad_images_and_rows_are_all_named_and_nothing_is_written() {
    let study = broken_study();
    let mut options = study.options();
    options.max_bad = MaxBad::Count(8);
    let error = prepare(&options, &()).expect_err("nine are bad");
    let PrepareError::TooManyBad {
        excluded,
        total: 23,
        unlabelled: 0,
        allowed: 8,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(excluded.len(), BROKEN.len());
    let message = error.to_string();
    assert!(
        message.starts_with("9 of 23 rows cannot be used, 8 are allowed"),
        "{message}"
    );
    for (found, (image, reason)) in excluded.iter().zip(BROKEN) {
        assert_eq!(found.image, image);
        assert!(found.reason.contains(reason), "{found}");
        assert!(message.contains(&found.to_string()), "{message}");
    }
    assert_eq!(study.output_files(), vec![], "something was left behind");
}

#[test]
fn a_photograph_that_the_disk_does_not_give_is_not_left_out_as_a_bad_one() {
    // With names that tell patient and eye, and with those of which only tags may tell them.
    for name in ["0_left.jpeg", "IM0001.dcm", "IM0001"] {
        let study = Study::new(8);
        let path = study.images().join(name);
        let image = name.split('.').next().expect("a name");
        study.write_labels(&study.labels().replace("0_left", image));
        fs::remove_file(study.images().join("0_left.jpeg")).expect("remove");
        let mut options = study.options();
        options.max_bad = MaxBad::Count(9);
        options.label_options.each_image_a_patient = true;
        // A link to nothing is a photograph that is not there.
        std::os::unix::fs::symlink(study.images().join("gone"), &path).expect("link");
        let report = prepare(&options, &()).expect("one is allowed");
        assert_eq!(report.excluded.len(), 1, "{name}");
        assert_eq!(report.excluded[0].image, image);
        fs::remove_dir_all(study.out()).expect("remove");
        fs::remove_file(&path).expect("remove");
        // It opens, and reading it fails, whoever reads.
        std::os::unix::fs::symlink("/proc/self/mem", &path).expect("link");
        let error = prepare(&options, &()).expect_err("it cannot be read");
        let PrepareError::Unreadable { path: found, .. } = &error else {
            panic!("{name}: {error}");
        };
        assert_eq!(found, &path);
        let message = error.to_string();
        assert!(message.contains("prepare again"), "{message}");
        assert_eq!(study.output_files(), vec![], "something was left behind");
    }
}

#[test]
fn below_the_threshold_they_are_left_out_and_listed() {
    let study = broken_study();
    let mut options = study.options();
    options.max_bad = "40%".parse().expect("share");
    options.validation_fraction = 0.5;
    let report = prepare(&options, &()).expect("nine of 23 are allowed");
    assert_eq!(report.excluded.len(), 9);
    let dataset = Dataset::open(&study.out()).expect("open");
    assert_eq!(dataset.manifest().excluded, 9);
    let samples = dataset.index().train().len() + dataset.index().validation().len();
    assert_eq!(samples, 14);
    let listed = String::from_utf8(file(&study.output_files(), "excluded.csv")).expect("text");
    assert_eq!(listed.lines().next(), Some("image,reason"));
    for (line, (image, reason)) in listed.lines().skip(1).zip(BROKEN) {
        assert!(line.starts_with(&format!("{image},")), "{line}");
        assert!(line.contains(reason), "{line}");
    }
    let folder = study.dir.path().to_string_lossy().into_owned();
    assert!(
        !listed.contains(&folder),
        "the list must not depend on where the images lie"
    );
    let unlabelled = |w: &Warning| matches!(w, Warning::Unlabelled { .. });
    assert!(
        !report.warnings.iter().any(unlabelled),
        "bad rows name their images too"
    );
}

#[test]
fn at_most_twenty_bad_images_are_listed() {
    let study = Study::new(1);
    let rows: String = (100..125).map(|i| format!("{i}_left,0\n")).collect();
    study.write_labels(&(study.labels() + &rows));
    let message = prepare(&study.options(), &())
        .expect_err("25 missing")
        .to_string();
    assert_eq!(message.matches("missing:").count(), 20);
    assert!(message.ends_with("... and 5 more"), "{message}");
}

#[test]
fn the_same_pixels_under_two_names_are_reported() {
    let study = Study::new(10);
    // Patient 90's left eye is patient 1's, with another grade; and an eye without a label.
    photograph(2)
        .save(study.images().join("90_left.png"))
        .expect("save");
    photograph(3)
        .save(study.images().join("91_left.png"))
        .expect("save");
    study.write_labels(&(study.labels() + "90_left,4\n"));
    let mut options = study.options();
    options.allow_unlabelled = true;
    // Whichever sides the two come to.
    options.allow_duplicates = true;
    let report = prepare(&options, &()).expect("prepared");
    let [unlabelled, same] = report.warnings.as_slice() else {
        panic!("{:?}", report.warnings);
    };
    assert!(
        unlabelled.to_string().contains("91_left.png"),
        "{unlabelled}"
    );
    let images = vec![("1_left".to_owned(), 1), ("90_left".to_owned(), 4)];
    assert!(
        matches!(same, Warning::SamePixels { images: found, exact: true, across_patients: true, .. } if *found == images)
    );
    assert!(same.to_string().contains("their labels conflict"), "{same}");
}

#[test]
fn many_images_without_a_label_count_as_bad() {
    let study = Study::new(60);
    let more = |number: u32| {
        photograph(number)
            .save(study.images().join(format!("{number}x.png")))
            .expect("save");
    };
    more(900);
    let report = prepare(&study.options(), &()).expect("one of 120 may be left over");
    let one = |warning: &Warning| matches!(warning, Warning::Unlabelled { count: 1, .. });
    assert!(report.warnings.iter().any(one), "{:?}", report.warnings);
    more(901);
    let mut options = study.options();
    options.overwrite = true;
    options.max_bad = MaxBad::Count(1);
    let message = prepare(&options, &()).expect_err("2 of 120").to_string();
    assert!(
        message.starts_with("2 images have no label, 1 is allowed"),
        "{message}"
    );
    assert!(message.contains("900x.png, 901x.png"), "{message}");
    options.max_bad = MaxBad::Count(2);
    prepare(&options, &()).expect("two are allowed");
    options.max_bad = MaxBad::Count(0);
    options.allow_unlabelled = true;
    prepare(&options, &()).expect("they may be there");
}
