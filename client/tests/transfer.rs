//! Checkpoints down, datasets up: whole and verified, or not at all.

use crate::common;
use std::path::Path;

use common::{
    Fake, State, fovea, fovea_under, mode, prepared, prepared_of, run_after, sha256, stderr, stdout,
};
use fovea_proto::pb::create_dataset_response::Outcome;
use fovea_proto::pb::{self, Phase};
use tonic::Status;

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
    // What a killed fetch left is swept.
    std::fs::write(dir.path().join(".fovea-dead.part"), "half").unwrap();
    let mut args = vec![
        "checkpoint",
        "get",
        "dr-1",
        "newest",
        "-o",
        target.to_str().unwrap(),
    ];
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(
        stderr(&output),
        format!(
            "fovea: {} exists already; --overwrite replaces it, or name another file\n",
            target.display()
        )
    );
    assert_eq!(std::fs::read(&target).unwrap(), b"older");
    args.push("--overwrite");
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read(&target).unwrap(), bytes);
    assert_eq!(files(dir.path()), ["m.safetensors"]);
    assert!(
        stdout(&output).contains("at step 24, 10.50 kB"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn a_fetched_file_is_for_those_to_read_whom_the_umask_allows() {
    let bytes = some_bytes();
    let address = with_checkpoint(&bytes, sha256(&bytes)).serve().await;
    for (umask, expected) in [("077", 0o600), ("022", 0o644)] {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m.safetensors");
        let args = ["checkpoint", "get", "dr-1", "-o", target.to_str().unwrap()];
        let output = fovea_under(umask, &address, &args).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(mode(&target), expected, "umask {umask}");
    }
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_named_without_the_temporary_file() {
    let bytes = some_bytes();
    let address = with_checkpoint(&bytes, sha256(&bytes)).serve().await;
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let target = nowhere.join("m.safetensors");
    let args = ["checkpoint", "get", "dr-1", "-o", target.to_str().unwrap()];
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(
        stderr(&output),
        format!(
            "fovea: {}: there is no folder {}; make it first\n",
            target.display(),
            nowhere.display()
        )
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
        (short, "received 9999 bytes, 10500 were announced"),
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
        let args: Vec<&str> = args.into_iter().chain(["--overwrite"]).collect();
        let output = fovea(&address, &args).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        assert_eq!(std::fs::read(&target).unwrap(), b"older");
        assert_eq!(files(dir.path()), ["m.safetensors"]);
    }
}

#[tokio::test]
async fn a_corrupt_checkpoint_names_the_previous_one() {
    let bytes = some_bytes();
    let lost = |step: &'static str, lost_at_once, words: &'static str| {
        // What is sent may look whole: the coordinator's status at the end decides.
        let fake = with_checkpoint(&bytes, sha256(&bytes));
        let mut state = fake.0.lock().unwrap();
        state.checkpoint_lost = Some(Status::data_loss("its SHA-256 is not what was stored"));
        state.lost_at_once = lost_at_once;
        drop(state);
        (fake, step, words)
    };
    let before = "`fovea checkpoint get dr-1 12` fetches the previous one";
    for (fake, step, words) in [
        lost(
            "24",
            false,
            "run dr-1 at step 24 is corrupt and was put aside by the coordinator: its SHA-256",
        ),
        lost("24", true, "run dr-1 at step 24 is corrupt"),
        lost(
            "newest",
            true,
            "the newest checkpoint of run dr-1 is corrupt",
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
        let printed = stderr(&output);
        assert_eq!(output.status.code(), Some(7), "{printed}");
        assert!(printed.contains(words), "{words:?} is not in {printed}");
        assert!(printed.contains(before), "{printed}");
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
        "--overwrite",
    ];
    let output = fovea(&fake.serve().await, &args).await;
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(7), "{printed}");
    assert!(
        printed.contains("`fovea checkpoints dr-1` lists"),
        "{printed}"
    );
    assert_eq!(std::fs::read(&target).unwrap(), b"older");
    assert_eq!(files(dir.path()), ["m.safetensors"]);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read_now_is_not_called_corrupt() {
    let bytes = some_bytes();
    for at_once in [true, false] {
        let fake = with_checkpoint(&bytes, sha256(&bytes));
        {
            let mut state = fake.0.lock().unwrap();
            state.checkpoint_lost = Some(Status::unavailable("the store is not mounted"));
            state.lost_at_once = at_once;
        }
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
        let output = fovea(&fake.serve().await, &args).await;
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(8), "{text}");
        assert!(
            text.contains(
                "the checkpoint of run dr-1 at step 24 cannot be read now: the store is not mounted. \
                 It stays listed"
            ),
            "{text}"
        );
        assert!(!text.contains("corrupt"), "{text}");
        assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
    }
}

#[tokio::test]
async fn a_dataset_is_sent_byte_for_byte_even_if_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let set = prepared(dir.path());
    let fake = Fake::default();
    let address = fake.serve().await;
    let set_text = set.to_str().unwrap();

    let output = fovea(&address, &["--json", "dataset", "add", set_text]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let added: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(added["type"], "dataset");
    assert_eq!(added["already_there"], false);
    assert_eq!(added["outcome"], "added");
    assert_eq!(added["name"], "set");
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

    // Whether it is there, and whole there, only the coordinator can judge.
    let output = fovea(&address, &["dataset", "add", set_text]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(fake.0.lock().unwrap().created.len(), 2, "it was not sent");

    let output = fovea(&address, &["dataset", "list"]).await;
    let listed = stdout(&output);
    assert!(listed.starts_with("dataset  "), "{listed}");
    assert!(listed.contains("32 px"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_reply_ends_an_upload() {
    let dir = tempfile::tempdir().unwrap();
    // More than the windows of stream and connection hold: it cannot all be on its way.
    let set = prepared_of(dir.path(), 16, 320);
    let set_text = set.to_str().unwrap();
    let manifest = std::fs::read(set.join("manifest.json")).unwrap();
    let reply = |outcome: Outcome, packs: &[u32], files: &[&str]| pb::CreateDatasetResponse {
        dataset: Some(common::describe(&manifest)),
        outcome: outcome.into(),
        repaired_packs: packs.to_vec(),
        repaired_files: files.iter().map(ToString::to_string).collect(),
    };
    let cases = [
        (
            reply(Outcome::Unchanged, &[], &[]),
            "dataset set is unchanged, all digests are right: ",
            serde_json::json!(["unchanged", [], [], true]),
        ),
        (
            reply(Outcome::Repaired, &[1], &[]),
            "packs was damaged and has been replaced (pack 1): ",
            serde_json::json!(["repaired", [1], [], true]),
        ),
        (
            reply(Outcome::Repaired, &[0, 3], &[]),
            "packs were damaged and have been replaced (pack 0, 3): ",
            serde_json::json!(["repaired", [0, 3], [], true]),
        ),
        (
            reply(Outcome::Repaired, &[], &["index.csv"]),
            "dataset set was repaired, index.csv was missing or damaged and has been replaced: ",
            serde_json::json!(["repaired", [], ["index.csv"], true]),
        ),
        (
            reply(Outcome::Repaired, &[1], &["manifest.json", "index.csv"]),
            "(pack 1), and manifest.json and index.csv were missing or damaged and have been replaced: ",
            serde_json::json!(["repaired", [1], ["manifest.json", "index.csv"], true]),
        ),
    ];
    for (reply, text, json) in cases {
        let fake = Fake::default();
        fake.0.lock().unwrap().early_reply = Some(Ok(reply));
        let address = fake.serve().await;
        let output = fovea(&address, &["dataset", "add", set_text]).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains(text), "{}", stdout(&output));
        let output = fovea(&address, &["--json", "dataset", "add", set_text]).await;
        let d: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(
            serde_json::json!([
                d["outcome"],
                d["repaired_packs"],
                d["repaired_files"],
                d["already_there"]
            ]),
            json
        );
    }

    let fake = Fake::default();
    fake.0.lock().unwrap().early_reply = Some(Err(Status::resource_exhausted(
        "512.0 MiB must stay free (min_free_mib): no room: 517.0 MiB are needed, 12.0 MiB are free",
    )));
    let output = fovea(&fake.serve().await, &["dataset", "add", set_text]).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(
            "disk is too full for this: 512.0 MiB must stay free (min_free_mib): no room"
        ),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_dataset_list_shows_problems() {
    let dir = tempfile::tempdir().unwrap();
    let set = prepared(dir.path());
    let fake = Fake::default();
    let address = fake.serve().await;
    fovea(&address, &["dataset", "add", set.to_str().unwrap()]).await;
    let problem = "pack 2 is corrupt; repair it with `fovea dataset add DIR`";
    fake.0.lock().unwrap().dataset_problem = format!("pack.corrupt: {problem}");
    let listed = stdout(&fovea(&address, &["dataset", "list"]).await);
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].ends_with("  problem"), "{listed}");
    assert!(lines[1].ends_with(&format!("  {problem}")), "{listed}");
    let json = stdout(&fovea(&address, &["--json", "dataset", "list"]).await);
    let d: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(d["problem"], format!("pack.corrupt: {problem}"));
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
