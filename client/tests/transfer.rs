//! Checkpoints down, datasets up: whole and checked, or not at all.

mod common;

use std::path::Path;

use common::{Fake, State, fovea, prepared, run_after, sha256, stderr, stdout};
use fovea_proto::pb::Phase;

fn with_checkpoint(bytes: &[u8], digest: String) -> Fake {
    Fake::new(State {
        run: Some(run_after("dr-1", Phase::Completed, 2)),
        checkpoint: Some((bytes.to_vec(), digest)),
        ..State::default()
    })
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn some_bytes() -> Vec<u8> {
    (0..10_500u32).map(|i| (i * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_checkpoint_arrives_whole() {
    let bytes = some_bytes();
    let address = with_checkpoint(&bytes, sha256(&bytes)).serve().await;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.safetensors");
    std::fs::write(&target, "older").unwrap();
    let args = [
        "checkpoint",
        "get",
        "dr-1",
        "newest",
        "-o",
        target.to_str().unwrap(),
    ];
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read(&target).unwrap(), bytes);
    assert_eq!(files(dir.path()), ["m.safetensors"]);
    assert!(
        stdout(&output).contains("at step 24, 10.5 kB"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn a_damaged_checkpoint_leaves_no_file() {
    let bytes = some_bytes();
    let wrong = with_checkpoint(&bytes, sha256(b"something else"));
    let short = with_checkpoint(&bytes, sha256(&bytes));
    short.0.lock().unwrap().cut_checkpoint_at = Some(9_999);
    for (fake, word) in [
        (wrong, "SHA-256"),
        (short, "9999 bytes came, 10500 were announced"),
    ] {
        let address = fake.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m.safetensors");
        let args = [
            "checkpoint",
            "get",
            "dr-1",
            "24",
            "-o",
            target.to_str().unwrap(),
        ];
        let output = fovea(&address, &args).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));

        // What was there before stays.
        std::fs::write(&target, "older").unwrap();
        assert_eq!(fovea(&address, &args).await.status.code(), Some(1));
        assert_eq!(std::fs::read(&target).unwrap(), b"older");
        assert_eq!(files(dir.path()), ["m.safetensors"]);
    }
}

#[tokio::test]
async fn a_checkpoint_that_was_put_aside_names_the_one_before() {
    let bytes = some_bytes();
    let lost = |step: &'static str, lost_at_once, words: &'static str| {
        // What is sent may look whole: the coordinator's word at the end decides.
        let fake = with_checkpoint(&bytes, sha256(&bytes));
        let mut state = fake.0.lock().unwrap();
        state.checkpoint_lost = Some("its SHA-256 is not what was stored".into());
        state.lost_at_once = lost_at_once;
        drop(state);
        (fake, step, words)
    };
    let before = "`fovea checkpoint get dr-1 12` fetches the one before";
    for (fake, step, words) in [
        lost(
            "24",
            false,
            "run dr-1 at step 24 was damaged and has been put aside: its SHA-256",
        ),
        lost("24", true, "run dr-1 at step 24 was damaged"),
        lost(
            "newest",
            true,
            "the newest checkpoint of run dr-1 was damaged",
        ),
    ] {
        let address = fake.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m.safetensors");
        let args = [
            "checkpoint",
            "get",
            "dr-1",
            step,
            "-o",
            target.to_str().unwrap(),
        ];
        let output = fovea(&address, &args).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains(words), "{words:?} is not in {said}");
        assert!(said.contains(before), "{said}");
        assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
    }

    // None is left before it.
    let (fake, ..) = lost("24", false, "");
    if let Some(run) = &mut fake.0.lock().unwrap().run {
        run.checkpoints.retain(|c| c.step == 24);
    }
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("m.safetensors");
    std::fs::write(&target, "older").unwrap();
    let args = [
        "checkpoint",
        "get",
        "dr-1",
        "24",
        "-o",
        target.to_str().unwrap(),
    ];
    let output = fovea(&fake.serve().await, &args).await;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("`fovea checkpoints dr-1` lists"), "{said}");
    assert_eq!(std::fs::read(&target).unwrap(), b"older");
    assert_eq!(files(dir.path()), ["m.safetensors"]);
}

#[tokio::test]
async fn a_dataset_is_sent_byte_for_byte_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let set = prepared(dir.path());
    let fake = Fake::default();
    let address = fake.serve().await;
    let set_text = set.to_str().unwrap();

    let output = fovea(&address, &["--json", "dataset", "add", set_text]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(said["type"], "dataset");
    assert_eq!(said["already_there"], false);
    assert_eq!(said["name"], "set");
    {
        let state = fake.0.lock().unwrap();
        let (manifest, index, packs) = &state.created[0];
        assert_eq!(manifest, &std::fs::read(set.join("manifest.json")).unwrap());
        assert_eq!(index, &std::fs::read(set.join("index.csv")).unwrap());
        let parsed = fovea_dataset::Manifest::parse(manifest).unwrap();
        assert!(packs.len() > 1, "a dataset of one pack shows little");
        for (entry, bytes) in parsed.packs.iter().zip(packs) {
            assert_eq!(bytes, &std::fs::read(set.join(&entry.file)).unwrap());
        }
    }

    let output = fovea(&address, &["dataset", "add", set_text]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stdout(&output).contains("dataset set was there already"),
        "{}",
        stdout(&output)
    );
    assert_eq!(fake.0.lock().unwrap().created.len(), 1, "it was sent again");

    let output = fovea(&address, &["dataset", "list"]).await;
    let listed = stdout(&output);
    assert!(listed.starts_with("dataset  "), "{listed}");
    assert!(listed.contains("32 px"), "{listed}");
}

#[tokio::test]
async fn a_folder_that_is_no_dataset_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let address = Fake::default().serve().await;
    let output = fovea(&address, &["dataset", "add", dir.path().to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("fovea prepare"),
        "{}",
        stderr(&output)
    );
}
