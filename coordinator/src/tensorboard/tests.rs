//! Files of a run that is trained, killed, and sent back.

use std::fs;
use std::path::Path;

use fovea_core::ids::RunId;
use fovea_core::run::{Extent, Rewind, Run, StepPhases, StepReport};
use fovea_core::spec::RunSpec;
use fovea_tensorboard::{FileName, Known, events};

use super::folder::Folder;
use crate::journal::LossRow;

fn run() -> Run {
    let spec: RunSpec = toml::from_str("name = \"dr\"\ndataset = \"d\"").unwrap();
    let extent = Extent {
        steps_per_epoch: 4,
        total_steps: 100,
        train_samples: 16,
        validation_samples: 4,
    };
    Run::new(RunId::new("dr-1").unwrap(), 1, spec, "d".into(), extent, 7)
}

fn rows(steps: std::ops::RangeInclusive<u64>) -> Vec<LossRow> {
    let row = |step| LossRow {
        step,
        loss: 1.0 / step as f64,
        images: 4,
    };
    steps.map(row).collect()
}

fn report(step: u64) -> StepReport {
    StepReport {
        step,
        loss: 0.5,
        images: 4,
        images_per_s: 30.0,
        learning_rate: 0.1,
        phases: StepPhases::default(),
    }
}

fn files(folder: &Path) -> Vec<FileName> {
    let names = fs::read_dir(folder).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<FileName> = names.map(|name| FileName::parse(&name).unwrap()).collect();
    names.sort_unstable();
    names
}

fn known(folder: &Path) -> Known {
    let mut known = Known::default();
    for name in files(folder) {
        let bytes = fs::read(folder.join(name.to_string())).unwrap();
        events(&bytes).for_each(|event| known.read(&event));
    }
    known
}

#[test]
fn a_coordinator_that_was_killed_goes_on_where_its_files_end() {
    let dir = tempfile::tempdir().unwrap();
    let (path, run) = (dir.path().join("dr-1"), run());
    let mut folder = Folder::open(path.clone(), &run).unwrap();
    assert!(!path.exists(), "nothing is to be written yet");
    assert_eq!(folder.next_step(&run), 1);
    folder
        .write(&run, &rows(1..=5), true, Some((report(5), 2)))
        .unwrap();
    // Behind a gap nothing is committed.
    folder.write(&run, &rows(7..=8), true, None).unwrap();
    assert_eq!((known(&path).step, files(&path).len()), (5, 1));
    // Killed within a record.
    let first = path.join(files(&path)[0].to_string());
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() - 120]).unwrap();
    let cut = known(&path).step;
    assert!(cut < 5);
    let mut folder = Folder::open(path.clone(), &run).unwrap();
    assert_eq!(folder.next_step(&run), cut + 1);
    // Nothing new, no new file.
    folder.write(&run, &[], true, None).unwrap();
    assert_eq!(files(&path).len(), 1);
    folder.write(&run, &rows(cut + 1..=9), true, None).unwrap();
    assert_eq!((known(&path).step, files(&path).len()), (9, 2));
}

#[test]
fn after_a_rewind_another_file_begins_there() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut run) = (dir.path().join("dr-1"), run());
    let mut folder = Folder::open(path.clone(), &run).unwrap();
    folder.write(&run, &rows(1..=9), true, None).unwrap();
    let back = |run: &mut Run, step| {
        run.lineage += 1;
        run.rewinds.retain(|rewind| rewind.step < step);
        run.rewinds.push(Rewind {
            lineage: run.lineage,
            generation: 1,
            step,
        });
    };
    back(&mut run, 6);
    assert_eq!(folder.next_step(&run), 7);
    folder.write(&run, &rows(7..=8), true, None).unwrap();
    assert_eq!((known(&path).step, files(&path).len()), (8, 2));
    // Twice while nobody wrote: the one that went back further counts, also without a new step.
    back(&mut run, 3);
    back(&mut run, 5);
    let folder = Folder::open(path.clone(), &run).unwrap();
    assert_eq!((known(&path).step, files(&path).len()), (3, 3));
    assert_eq!(folder.next_step(&run), 4);
    // Another run of the same id, of a journal that was lost.
    run.lineage <<= 1;
    run.rewinds.clear();
    Folder::open(path.clone(), &run).unwrap();
    assert_eq!((known(&path).step, files(&path).len()), (0, 4));
}
