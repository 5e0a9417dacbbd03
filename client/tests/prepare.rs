//! `fovea prepare` as a process: what it leaves when it is killed, and who clears that up.

use crate::common;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{stderr, stdout};
use fovea_dataset::synthetic::{SyntheticOptions, generate};

fn prepare(folder: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fovea"));
    command
        .arg("prepare")
        .arg(folder)
        .arg("--out")
        .arg(out)
        .args(["--size", "32"])
        .args(more)
        .stdin(Stdio::null());
    command
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_folder_of_a_killed_process_is_swept_and_that_of_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let options = SyntheticOptions {
        patients: 12,
        size: 64,
        ..SyntheticOptions::default()
    };
    let [good, stuck] = ["good", "stuck"].map(|name| dir.path().join(name));
    for folder in [&good, &stuck] {
        generate(folder, &options, &|_| {}).unwrap();
    }
    // A FIFO without a writer: whoever opens it as a photograph waits for ever.
    let photograph = stuck.join("images/synthetic0001_left.jpeg");
    fs::remove_file(&photograph).unwrap();
    let status = Command::new("mkfifo").arg(&photograph).status().unwrap();
    assert!(status.success());

    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let out = place.join("set");
    let mut child = prepare(&stuck, &out, &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The spool is made once the folder is locked.
    while !names(&place)
        .iter()
        .any(|name| place.join(name).join("spool").exists())
    {
        assert!(Instant::now() < deadline, "no temporary folder in 60 s");
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    let leftover = names(&place).remove(0);
    assert!(leftover.starts_with(".set.tmp-"), "{leftover}");

    // Another process for the same destination leaves the live one's folder alone.
    let output = prepare(&good, &out, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let words = "a killed process";
    assert!(!stdout(&output).contains(words), "{}", stdout(&output));
    assert_eq!(names(&place), [leftover.as_str(), "set"]);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(&place), [leftover.as_str(), "set"]);
    let output = prepare(&good, &out, &["--overwrite"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(names(&place), ["set"]);
    let expected = format!(
        "removed {}, which a killed process had left",
        place.join(&leftover).display()
    );
    assert!(stdout(&output).contains(&expected), "{}", stdout(&output));
}

#[test]
fn a_dataset_of_a_newer_fovea_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let set = common::prepared(dir.path());
    let manifest = set.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("fovea-dataset-3"), "{text}");
    fs::write(
        &manifest,
        text.replace("fovea-dataset-3", "fovea-dataset-5"),
    )
    .unwrap();
    let run = dir.path().join("run.toml");
    fs::write(&run, "name = \"dr\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fovea"))
        .args(["local", "--dataset"])
        .arg(&set)
        .arg(&run)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!(
            "fovea: dataset {}: manifest.json has format version 5, and this Fovea reads versions up \
             to 4: use a newer Fovea, or prepare the dataset again with this one\n",
            set.display()
        )
    );
}
