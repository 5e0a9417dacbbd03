//! Scores of files against those of the device, and maps against the lesions that were drawn.

use std::fs;
use std::path::Path;

use fovea_core::class_map::ClassMap;
use fovea_core::googlenet::{FlatLayout, fill};
use fovea_core::pipeline::Pipeline;
use fovea_core::spec::{Init, RunSpec};
use fovea_dataset::synthetic::{EyeSpec, lesions, render};
use fovea_dataset::{Encoded, Eye, Recipe, crop};
use fovea_predict::args::Wanted;
use image::{Rgb, RgbImage};

use super::*;
use crate::job::first_state;
use crate::testing::spec as head_only;

const SIZE: u32 = 64;

fn eye(patient: u32, grade: u8, size: u32) -> EyeSpec {
    EyeSpec {
        seed: 11,
        patient,
        eye: Eye::Left,
        grade,
        size,
    }
}

fn spec(model: &str) -> RunSpec {
    let text = format!(
        "name = 'dr'\ndataset = 'eyes'\n[model]\n{model}\n[train]\nvirtual_ranks = 1\nbatch = 2"
    );
    toml::from_str(&text).unwrap()
}

/// The state of a new network that says different things of different photographs.
fn fresh(spec: &RunSpec) -> (FlatLayout, Vec<f32>) {
    let layout = spec.model.layout().unwrap();
    let mut state = vec![0.0; layout.state_len()];
    for entry in layout.trainable().iter().chain(layout.frozen()) {
        let start = match entry.group {
            Some(_) => 0,
            None => layout.frozen_range().start,
        };
        let place = start + entry.offset;
        let values = &mut state[place..place + entry.spec.len()];
        fill(&entry.spec, Init::Msra, 3, values);
    }
    (layout, state)
}

/// Writes a model's file, as a checkpoint would be.
fn write_model(path: &Path, spec: &RunSpec, pipeline: Option<&Pipeline>) {
    write_scaled_model(path, spec, pipeline, 1.0);
}

/// As [`write_model`], with the parameters times `factor`.
fn write_scaled_model(path: &Path, spec: &RunSpec, pipeline: Option<&Pipeline>, factor: f32) {
    let (layout, mut state) = fresh(spec);
    state.iter_mut().for_each(|value| *value *= factor);
    let mut metadata = std::collections::BTreeMap::from([
        ("format", "fovea-checkpoint-1".to_owned()),
        ("spec", serde_json::to_string(spec).unwrap()),
    ]);
    if let Some(pipeline) = pipeline {
        metadata.insert(Pipeline::KEY, serde_json::to_string(pipeline).unwrap());
    }
    let entries = layout.state_entries();
    let tensors = entries
        .iter()
        .map(|entry| (entry.name.as_str(), &entry.shape[..]));
    let mut bytes = fovea_weights::header(&metadata, tensors).unwrap();
    bytes.extend(state.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

fn command(folder: &Path) -> Predict {
    Predict {
        model: folder.join("model.safetensors"),
        wanted: Wanted {
            paths: vec![folder.join("photographs")],
            out: Some(folder.join("scores.csv")),
            maps: None,
            rotations: false,
            fuse_eyes: false,
            patient_pattern: None,
            preprocess: None,
            overwrite: true,
        },
        batch: None,
        device: None,
        threads: None,
        size: None,
    }
}

fn recipe(text: &str) -> Recipe {
    Recipe::new(text.parse().unwrap(), SIZE).unwrap()
}

/// The columns of the table, by row.
fn table(folder: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(folder.join("scores.csv")).unwrap();
    let rows = reader.deserialize();
    rows.map(Result::unwrap).collect()
}

/// Three photographs in batches of two, and a file that is none in between.
#[test]
fn the_scores_are_those_of_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let photographs = folder.path().join("photographs");
    fs::create_dir(&photographs).unwrap();
    for patient in 1..4 {
        let path = photographs.join(format!("{patient}_left.png"));
        render(&eye(patient, patient as u8, 96)).save(path).unwrap();
    }
    fs::write(photographs.join("2_right.jpeg"), b"no photograph").unwrap();
    for model in [
        "frozen = ['conv1/7x7_s2']",
        "classes = 5\nhead = 'ordinal'\nfrozen = []",
    ] {
        let spec = spec(model);
        let recipe = recipe("clahe:clip=3");
        let command = command(folder.path());
        write_model(&command.model, &spec, Some(&recipe.pipeline()));
        assert_eq!(run(&command, tch::Device::Cpu).unwrap(), 1);
        let rows = table(folder.path());
        let patients: Vec<&str> = rows.iter().map(|row| &*row["patient"]).collect();
        assert_eq!(patients, ["1", "2", "2", "3"]);
        assert!(
            rows[2]["error"].len() > 3 && rows[2]["score"].is_empty(),
            "{rows:?}"
        );

        let (layout, state) = fresh(&spec);
        let mut device = TorchDevice::new(&spec, &layout, tch::Device::Cpu);
        device.load(&state).unwrap();
        let read = |patient: u32| {
            let file = Encoded::read(&photographs.join(format!("{patient}_left.png"))).unwrap();
            recipe.image(&file).unwrap().record
        };
        let of = |device: &mut TorchDevice, patients: &[u32], turns: u8| {
            let size = SIZE as usize;
            let turned = patients.iter().flat_map(|patient| {
                let mut turned = vec![0; size * size * 3];
                rotate90(&read(*patient), size, turns, &mut turned);
                turned
            });
            let batch = Batch {
                samples: patients.to_vec(),
                quarter_turns: vec![turns; patients.len()],
                labels: vec![0; patients.len()],
                size,
                pixels: Pixels::Turned(turned.collect()),
                ..Batch::default()
            };
            device.score(&batch).unwrap()
        };
        let mut expected = of(&mut device, &[1, 2], 0);
        expected.extend(of(&mut device, &[3], 0));
        let scored = [0, 1, 3].map(|at| &rows[at]);
        for (row, score) in scored.iter().zip(&expected) {
            for (class, p) in score.probabilities.iter().enumerate() {
                assert_eq!(row[&format!("p{class}")], p.to_string(), "other bits");
            }
            let scheme = spec.scheme();
            assert_eq!(
                row["score"],
                format!("{:.7}", scheme.p_positive(&score.probabilities))
            );
            assert_eq!(
                row["class"],
                scheme.head.predicted(&score.probabilities).to_string()
            );
        }
        // A new network is sure of itself: the small probability tells photographs apart.
        assert_ne!(scored[0]["p0"], scored[2]["p0"]);

        let mut turned = command.clone();
        turned.wanted.rotations = true;
        turned.wanted.fuse_eyes = true;
        turned.wanted.maps = Some(folder.path().join("maps"));
        run(&turned, tch::Device::Cpu).unwrap();
        let rows = table(folder.path());
        let views = [0, 1, 2, 3].map(|turns| of(&mut device, &[3], turns)[0].probabilities.clone());
        let mean: f64 = views.iter().map(|p| f64::from(p[0])).sum::<f64>() / 4.0;
        let found: f64 = rows[3]["p0"].parse().unwrap();
        assert!((found - mean).abs() < 1e-6, "{found} {mean}");
        assert!(views[0] != views[1], "turning changes nothing");
        assert_eq!(rows[3]["patient_score"], rows[3]["score"]);
        let pictures: Vec<&str> = rows.iter().map(|row| &*row["map"]).collect();
        assert_eq!(pictures, ["1_left.png", "2_left.png", "", "3_left.png"]);
        assert!(image::open(folder.path().join("maps/3_left.png")).is_ok());
    }
}

#[test]
fn a_model_that_says_nothing_or_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let photographs = folder.path().join("photographs");
    fs::create_dir(&photographs).unwrap();
    render(&eye(1, 0, 96))
        .save(photographs.join("1_left.png"))
        .unwrap();
    let mut command = command(folder.path());
    let spec = spec("frozen = []");
    let failed = |command: &Predict| {
        let error = run(command, tch::Device::Cpu).unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let mut other = recipe("crop").pipeline();
    other.digest = "0".repeat(64);
    write_model(&command.model, &spec, Some(&other));
    let (code, text) = failed(&command);
    assert!(
        code == 1 && text.contains("this version would prepare them as crop"),
        "{text}"
    );
    write_model(&command.model, &spec, None);
    let (code, text) = failed(&command);
    assert!(
        code == 2 && text.contains("--preprocess and --size"),
        "{text}"
    );
    command.wanted.preprocess = Some("crop".parse().unwrap());
    command.size = Some(SIZE);
    assert_eq!(run(&command, tch::Device::Cpu).unwrap(), 0);
    command.wanted.overwrite = false;
    let (code, text) = failed(&command);
    assert!(
        code == 2 && text.contains("scores.csv: the file is there"),
        "{text}"
    );
    command.wanted.overwrite = true;
    // As of a training that has diverged: each parameter is finite.
    write_scaled_model(
        &command.model,
        &spec,
        Some(&recipe("crop").pipeline()),
        1e20,
    );
    let (code, text) = failed(&command);
    assert!(
        code == 1 && text.contains("model.safetensors: its output for a photograph is not finite"),
        "{text}"
    );
    fs::write(&command.model, b"no model").unwrap();
    assert!(failed(&command).1.contains("not a safetensors file"));
    // What was there is still there.
    assert_eq!(table(folder.path()).len(), 1);
}

/// In the place of the first picture there is a folder.
#[test]
fn a_map_that_cannot_be_written_costs_no_score() {
    let folder = tempfile::tempdir().unwrap();
    let photographs = folder.path().join("photographs");
    let maps = folder.path().join("maps");
    fs::create_dir(&photographs).unwrap();
    fs::create_dir_all(maps.join("1_left.png")).unwrap();
    for patient in 1..4 {
        let path = photographs.join(format!("{patient}_left.png"));
        render(&eye(patient, 0, 96)).save(path).unwrap();
    }
    let mut command = command(folder.path());
    command.wanted.maps = Some(maps);
    let spec = spec("frozen = []");
    write_model(&command.model, &spec, Some(&recipe("crop").pipeline()));
    let error = run(&command, tch::Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("maps/1_left.png"), "{error}");
    assert_eq!(error.exit_code(), 1);
    let rows = table(folder.path());
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert!(!row["score"].is_empty() && row["map"].is_empty(), "{row:?}");
    }
}

/// Of a map's positive part, the share that lies on the lesions, and the share of the square that they cover.
fn on_lesions(map: &ClassMap, mask: &RgbImage) -> Option<[f64; 2]> {
    let side = f64::from(mask.width());
    let (mut mass, mut hit, mut area) = (0.0, 0.0, 0.0);
    for (x, y, Rgb([seen, ..])) in mask.enumerate_pixels() {
        let at = |place: u32| (f64::from(place) + 0.5) / side;
        let value = map.at(at(x), at(y)).max(0.0);
        let lesion = f64::from(u8::from(*seen > 76));
        mass += value;
        hit += value * lesion;
        area += lesion;
    }
    (mass > 0.0).then(|| [hit / mass, area / (side * side)])
}

/// A classifier over the published weights' features learns from 64 drawings; then its maps lie on lesions of drawings that
/// it has not seen, and those of the untrained classifier do not.
#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn after_training_the_maps_lie_on_the_lesions() {
    const SIDE: u32 = 224;
    const BATCH: u32 = 16;
    const TRAINED: u32 = 64;
    let weights = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/weights/bvlc_googlenet_trunk_v1.caffemodel");
    let mut spec = head_only("");
    spec.model.weights = "bvlc".into();
    let layout = FlatLayout::new(2, &spec.model.frozen).unwrap();
    let state = first_state(&spec, &layout, Some(fs::File::open(weights).unwrap())).unwrap();
    let mut device =
        TorchDevice::new(&spec, &layout, tch::Device::Cpu).with_cache(u64::from(TRAINED) << 22);
    device.load(&state).unwrap();
    let recipe = Recipe::new("crop".parse().unwrap(), SIDE).unwrap();
    let grade = |patient: u32| [0u8, 3, 1, 2][patient as usize % 4];
    let drawing = |patient: u32| eye(patient, grade(patient), 256);
    let encoded = |picture: &RgbImage| {
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        Encoded::from_bytes(png.into_inner()).unwrap()
    };
    let record = |patient: u32| {
        let file = encoded(&render(&drawing(patient)));
        recipe.image(&file).unwrap().record
    };
    let batch = |patients: &[u32]| Batch {
        samples: patients.to_vec(),
        quarter_turns: vec![0; patients.len()],
        labels: patients.iter().map(|p| u32::from(grade(*p) >= 2)).collect(),
        size: SIDE as usize,
        pixels: Pixels::Turned(patients.iter().flat_map(|p| record(*p)).collect()),
        ..Batch::default()
    };
    let unseen: Vec<u32> = (1000..1012).filter(|p| grade(*p) >= 2).collect();
    let masks: Vec<RgbImage> = unseen
        .iter()
        .map(|patient| {
            let spec = drawing(*patient);
            let square = recipe.square(&encoded(&render(&spec)), SIDE).unwrap();
            let seen = lesions(&spec);
            let mask = RgbImage::from_fn(spec.size, spec.size, |x, y| {
                Rgb([(seen[(y * spec.size + x) as usize] * 255.0) as u8; 3])
            });
            crop::extract(&mask, &square.crop, SIDE)
        })
        .collect();
    // The mean share of the mass, relative to the mean share of the area.
    let concentration = |device: &mut TorchDevice| {
        let maps = device.score_mapped(&batch(&unseen)).unwrap();
        let shares = maps.iter().zip(&masks);
        let shares = shares.filter_map(|(score, mask)| on_lesions(score.map.as_ref()?, mask));
        let shares: Vec<[f64; 2]> = shares.collect();
        let mean = |of: usize| shares.iter().map(|s| s[of]).sum::<f64>() / shares.len() as f64;
        (mean(0), mean(1), shares.len())
    };
    let untrained = concentration(&mut device);
    let patients: Vec<u32> = (0..TRAINED).collect();
    let batches: Vec<Batch> = patients.chunks(BATCH as usize).map(batch).collect();
    for _ in 0..30 {
        for batch in &batches {
            let mut sum = device.gradient_buffer(1);
            device.gradient(batch, &mut sum).unwrap();
            assert!(device.update(&mut sum, 1.0 / BATCH as f32, 0.01).unwrap());
        }
    }
    let trained = concentration(&mut device);
    println!(
        "mass on lesions, share of the area, photographs: untrained {untrained:?}, trained {trained:?}"
    );
    assert_eq!(trained.2, unseen.len(), "a map without positive evidence");
    assert!(trained.0 > 1.3 * trained.1, "{trained:?}");
    assert!(trained.0 > 1.2 * untrained.0, "{untrained:?} {trained:?}");
}
