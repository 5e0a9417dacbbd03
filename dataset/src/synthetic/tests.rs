//! Tests of the drawings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::crop;
use crate::patient::patient_and_eye;

fn eye(patient: u32, eye: Eye, grade: u8) -> EyeSpec {
    EyeSpec {
        seed: 5,
        patient,
        eye,
        grade,
        size: 128,
    }
}

/// Share of the pixels that differ clearly, in any channel.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    let differ = |(a, b): (&image::Rgb<u8>, &image::Rgb<u8>)| {
        a.0.iter().zip(b.0).any(|(&a, b)| a.abs_diff(b) > 12)
    };
    let count = a.pixels().zip(b.pixels()).filter(|&p| differ(p)).count();
    count as f64 / f64::from(a.width() * a.height())
}

/// Pins the bytes: if they changed, every recorded result of the demo would change.
#[test]
fn an_eye_is_drawn_the_same_for_ever() {
    let spec = eye(1, Eye::Left, 4);
    assert_eq!(render(&spec), render(&spec));
    let digest = crate::sha256_hex(render(&spec).as_raw());
    assert_eq!(&digest[..16], "61577bec667f56c0");
}

#[test]
fn seed_patient_and_eye_each_make_another_picture() {
    let spec = eye(1, Eye::Left, 0);
    let first = render(&spec);
    for other in [
        EyeSpec { seed: 6, ..spec },
        EyeSpec { patient: 2, ..spec },
        EyeSpec {
            eye: Eye::Right,
            ..spec
        },
    ] {
        assert!(difference(&first, &render(&other)) > 0.1, "{other:?}");
    }
}

#[test]
fn grades_differ_in_their_lesions_and_in_nothing_else() {
    for patient in 0..6 {
        let draw = |grade| render(&eye(patient, Eye::Right, grade));
        let healthy = draw(0);
        let changed = |grade| difference(&healthy, &draw(grade));
        // The eye stays the same eye: lesions cover a small part of it.
        assert!(changed(1) < 0.03, "grade 1 changes {}", changed(1));
        for grade in 2..=4 {
            let part = changed(grade);
            assert!((0.01..0.3).contains(&part), "grade {grade} changes {part}");
        }
        assert!(changed(2) > changed(1));
    }
    // Taken over several eyes, a higher grade shows more.
    let total = |grade| -> f64 {
        let part = |patient| {
            let draw = |grade| render(&eye(patient, Eye::Left, grade));
            difference(&draw(0), &draw(grade))
        };
        (0..12).map(part).sum()
    };
    let by_grade: Vec<f64> = (1..=3).map(total).collect();
    assert!(by_grade.is_sorted(), "{by_grade:?}");
}

/// A classifier that only looks at the mean colour must fail: referable eyes are neither darker
/// nor brighter by more than a small part of what patients differ by.
#[test]
fn mean_colour_does_not_give_the_grade_away() {
    let means = |grade: u8| -> Vec<[f64; 3]> {
        (0..60)
            .map(|patient| {
                let picture = render(&EyeSpec {
                    size: 64,
                    ..eye(patient + 100 * u32::from(grade), Eye::Left, grade)
                });
                let mut sum = [0.0; 3];
                for pixel in picture.pixels() {
                    for (sum, &value) in sum.iter_mut().zip(&pixel.0) {
                        *sum += f64::from(value) / 4096.0;
                    }
                }
                sum
            })
            .collect()
    };
    let (healthy, referable) = (means(0), means(3));
    for channel in 0..3 {
        let above = |a: &[f64; 3], b: &[f64; 3]| f64::from(u8::from(a[channel] > b[channel]));
        let wins: f64 = healthy
            .iter()
            .flat_map(|a| referable.iter().map(move |b| above(a, b)))
            .sum();
        let auc = wins / 3600.0;
        assert!((0.25..0.75).contains(&auc), "channel {channel}: AUC {auc}");
    }
}

#[test]
fn the_disc_lies_on_the_noses_side() {
    for patient in 0..8 {
        for (side, nose_right) in [(Eye::Left, false), (Eye::Right, true)] {
            let picture = render(&eye(patient, side, 0));
            // The disc is the brightest spot in blue, where the retina is darkest.
            let (x, _, _) = picture
                .enumerate_pixels()
                .max_by_key(|(_, _, p)| u16::from(p[1]) + u16::from(p[2]))
                .unwrap();
            assert_eq!(
                x > 64,
                nose_right,
                "patient {patient}, {side:?}: column {x}"
            );
        }
    }
}

#[test]
fn drawings_can_be_cropped_like_photographs() {
    for patient in 0..10 {
        let picture = render(&eye(patient, Eye::Left, (patient % 5) as u8));
        let found = crop::find(&picture).unwrap();
        assert_eq!(found.method, crop::CropMethod::Circle, "patient {patient}");
        assert!((114..=127).contains(&found.side), "{found:?}");
    }
}

fn small() -> SyntheticOptions {
    SyntheticOptions {
        patients: 6,
        size: 64,
        ..SyntheticOptions::default()
    }
}

#[test]
fn a_set_is_readable_labelled_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("set");
    let finished = AtomicUsize::new(0);
    generate(&dir, &small(), &|n| {
        finished.fetch_add(n, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(finished.into_inner(), 12);

    let labels = std::fs::read_to_string(dir.join("trainLabels.csv")).unwrap();
    let mut lines = labels.lines();
    assert_eq!(lines.next(), Some("image,level"));
    let eyes = small().eyes();
    assert_eq!(lines.clone().count(), eyes.len());
    for (line, eye) in lines.zip(&eyes) {
        let (name, level) = line.split_once(',').unwrap();
        assert_eq!(level, eye.grade.to_string());
        assert_eq!(patient_and_eye(name).map(|(_, eye)| eye), Some(eye.eye));
        assert!(name.starts_with("synthetic"), "{name}");
        let path = dir.join("images").join(format!("{name}.jpeg"));
        let picture = image::open(&path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (64, 64));
        // JPEG loses little of what was drawn.
        let lost = difference(&picture, &render(eye));
        assert!(lost < 0.25, "{name} differs in {lost}");
    }
    let readme = std::fs::read_to_string(dir.join("README.txt")).unwrap();
    assert!(readme.starts_with("SYNTHETIC"), "{readme}");
}

#[test]
fn a_set_is_the_same_every_time_and_replaces_an_older_one_only() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let read = || -> HashMap<String, Vec<u8>> {
        std::fs::read_dir(dir.join("images"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| {
                (
                    e.file_name().into_string().unwrap(),
                    std::fs::read(e.path()).unwrap(),
                )
            })
            .collect()
    };
    generate(dir, &small(), &|_| ()).unwrap();
    let first = read();
    assert_eq!(first.len(), 12);
    generate(dir, &small(), &|_| ()).unwrap();
    assert!(first == read());

    let fewer = SyntheticOptions {
        patients: 2,
        ..small()
    };
    generate(dir, &fewer, &|_| ()).unwrap();
    let left = read();
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|(name, bytes)| first[name] == *bytes));

    std::fs::write(dir.join("README.txt"), "Photographs of my patients").unwrap();
    let error = generate(dir, &small(), &|_| ()).unwrap_err();
    assert!(matches!(error, SyntheticError::NotOurs { .. }), "{error}");
    assert_eq!(read().len(), 4);
}

#[test]
fn grades_follow_the_weights_and_eyes_of_a_patient_agree_mostly() {
    let options = SyntheticOptions {
        patients: 1000,
        seed: 3,
        ..SyntheticOptions::default()
    };
    let eyes = options.eyes();
    let share = |grade: u8| eyes.iter().filter(|e| e.grade == grade).count() as f64 / 2000.0;
    for (grade, weight) in options.grade_weights.iter().enumerate() {
        let share = share(grade as u8);
        assert!((share - weight / 100.0).abs() < 0.03, "{grade}: {share}");
    }
    let mut equal = 0;
    for pair in eyes.chunks(2) {
        let [left, right] = [pair[0], pair[1]];
        assert_eq!(left.patient, right.patient);
        assert_eq!((left.eye, right.eye), (Eye::Left, Eye::Right));
        assert!(left.grade.abs_diff(right.grade) <= 1);
        equal += u32::from(left.grade == right.grade);
    }
    assert!((750..950).contains(&equal), "{equal} of 1000 agree");

    // Grades of weight 0 are not drawn, and more patients do not change the first ones.
    let only = SyntheticOptions {
        grade_weights: [1.0, 0.0, 0.0, 0.0, 2.0],
        ..options.clone()
    };
    assert!(only.eyes().iter().all(|e| e.grade == 0 || e.grade == 4));
    let fewer = SyntheticOptions {
        patients: 10,
        ..options
    };
    assert_eq!(fewer.eyes(), eyes[..20]);
}

#[test]
fn impossible_options_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("none");
    let refused = |change: fn(&mut SyntheticOptions)| {
        let mut options = small();
        change(&mut options);
        match generate(&dir, &options, &|_| ()).unwrap_err() {
            SyntheticError::Option { option, .. } => option,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(|o| o.patients = 0), "patients");
    assert_eq!(refused(|o| o.size = 63), "size");
    assert_eq!(refused(|o| o.size = 5000), "size");
    assert_eq!(refused(|o| o.grade_weights = [0.0; 5]), "grade_weights");
    assert_eq!(refused(|o| o.grade_weights[2] = -1.0), "grade_weights");
    assert_eq!(refused(|o| o.grade_weights[2] = f64::NAN), "grade_weights");
    assert!(!dir.exists());
}

/// Where a drawing differs from the healthy eye's, the mask is; and there is none in a healthy eye.
#[test]
fn lesions_are_where_the_drawing_differs() {
    for patient in 0..4 {
        let healthy = eye(patient, Eye::Left, 0);
        assert!(lesions(&healthy).iter().all(|v| *v == 0.0));
        let ill = EyeSpec {
            grade: 3,
            ..healthy
        };
        let mask = lesions(&ill);
        let (a, b) = (render(&healthy), render(&ill));
        let (mut on, mut off, mut counts) = (0.0, 0.0, [0.0; 2]);
        for ((a, b), mask) in a.pixels().zip(b.pixels()).zip(&mask) {
            let change: f64 =
                a.0.iter()
                    .zip(b.0)
                    .map(|(a, b)| f64::from(a.abs_diff(b)))
                    .sum();
            // Blur and noise are the same in both; drusen are drawn from other numbers, deeper.
            match *mask > 0.3 {
                true => (on, counts[0]) = (on + change, counts[0] + 1.0),
                false => (off, counts[1]) = (off + change, counts[1] + 1.0),
            }
        }
        let (on, off) = (on / counts[0], off / counts[1]);
        assert!(on > 40.0 && off < on / 8.0, "patient {patient}: {on} {off}");
    }
}
