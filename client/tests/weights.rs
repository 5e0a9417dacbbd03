//! `fovea weights`, and submissions that name weights.

#[path = "../../weights/src/testing.rs"]
mod crafted;

use crate::common;
use std::path::PathBuf;

use common::*;
use tonic::Status;

/// A folder with a file of GoogLeNet's weights and a run file that names it.
struct Place {
    dir: tempfile::TempDir,
    sha256: String,
    bytes: usize,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bytes = crafted::googlenet(&[], |_| {});
        std::fs::write(dir.path().join("w.safetensors"), &bytes).unwrap();
        let run = "name = \"dr\"\ndataset = \"d\"\n[model]\nweights = \"w.safetensors\"\n";
        std::fs::write(dir.path().join("run.toml"), run).unwrap();
        Self {
            dir,
            sha256: sha256(&bytes),
            bytes: bytes.len(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[tokio::test]
async fn a_submission_sends_its_file_once_and_names_it_as_the_coordinator_does() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let place = Place::new();
    let run = place.path("run.toml");
    let run = run.to_str().unwrap();
    let args = ["submit", run, "--set", "train.epochs=7", "--set", "name=x"];
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    let added = "weights stored were added: BVLC GoogLeNet, safetensors, 11.96 MB";
    assert!(printed.contains(added), "{printed}");
    assert!(printed.contains(&place.sha256), "{printed}");
    assert!(
        printed.contains("run x-1 accepted: 7 epochs of 12 steps, dataset d"),
        "{printed}"
    );
    assert!(printed.contains("fovea watch x-1"), "{printed}");
    let again = stdout(&fovea(&address, &["submit", run]).await);
    assert!(!again.contains("added"), "{again}");
    let by_name = ["submit", run, "--set", "model.weights=bvlc"];
    fovea(&address, &by_name).await;
    {
        let state = fake.0.lock().unwrap();
        let [(header, sent)] = &state.sent_weights[..] else {
            panic!("{:?}", state.sent_weights);
        };
        assert_eq!((&*header.name, &*header.file_name), ("", "w.safetensors"));
        assert_eq!((&header.sha256, *sent), (&place.sha256, place.bytes));
        let named: Vec<_> = state
            .submitted
            .iter()
            .map(|spec| {
                let model = spec.model.clone().unwrap();
                (model.weights.unwrap(), model.weights_sha256.unwrap())
            })
            .collect();
        let pinned = ("stored".to_owned(), place.sha256.clone());
        let stored = ("bvlc".to_owned(), String::new());
        assert_eq!(named, [pinned.clone(), pinned, stored]);
        assert_eq!(state.submitted[0].name, "x");
        assert_eq!(state.submitted[0].train.as_ref().unwrap().epochs, Some(7));
    }
    // What the coordinator cannot use is sent again.
    fake.0.lock().unwrap().weights[0].problem = "it is corrupt".into();
    let repaired = stdout(&fovea(&address, &["submit", run]).await);
    assert!(
        repaired.contains("weights stored were repaired"),
        "{repaired}"
    );
}

#[tokio::test]
async fn an_addition_shows_what_is_in_the_file() {
    let fake = Fake::default();
    let address = fake.serve().await;
    let place = Place::new();
    let file = place.path("w.safetensors");
    let file = file.to_str().unwrap();
    let output = fovea(&address, &["weights", "add", file, "--name", "bvlc"]).await;
    let printed = stdout(&output);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0].starts_with("weights bvlc were added: "),
        "{printed}"
    );
    assert_eq!(
        lines[1..],
        [
            "  2 layers that a run starts from: conv1 64x3x7x7 to conv2 8x64x1x1",
            "  ignored loss1/1, loss1/2, loss1/3, loss1/4 and 2 more (auxiliary)",
            "  ignored loss3/classifier (replaced)",
        ]
    );
    let json = stdout(&fovea(&address, &["--json", "weights", "list"]).await);
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&record["type"], &record["name"]),
        (&"weights".into(), &"bvlc".into())
    );
    assert_eq!(record["layers"][0]["shape"][0], 64);
    fake.0.lock().unwrap().weights[0].used_by = vec!["dr-1".into(), "dr-2".into()];
    let listed = stdout(&fovea(&address, &["weights", "list"]).await);
    assert!(listed.contains("dr-1, dr-2"), "{listed}");
    assert!(listed.contains(&place.sha256[..12]), "{listed}");

    // What cannot be is refused before the coordinator is asked.
    let broken = place.path("broken.caffemodel");
    std::fs::write(&broken, [7; 99]).unwrap();
    let broken = broken.to_str().unwrap();
    for (args, code, named) in [
        (
            &["weights", "add", broken][..],
            1,
            "broken.caffemodel is not a .caffemodel",
        ),
        (
            &["weights", "add", "nowhere.caffemodel"],
            1,
            "nowhere.caffemodel: No such file",
        ),
        (
            &["weights", "add", file, "--name", "a/b"],
            2,
            "--name: \"a/b\" would be taken for a path",
        ),
        (&["submit", broken], 2, "broken.caffemodel"),
    ] {
        let output = fovea(&address, args).await;
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
    }
    assert_eq!(fake.0.lock().unwrap().sent_weights.len(), 1);
}

#[tokio::test]
async fn removals_name_what_was_removed_and_why_not() {
    let fake = Fake::new(State {
        delete_refusals: [(
            "used".to_owned(),
            Status::failed_precondition(
                "weights used are needed by dr-1; cancel it first (`fovea cancel dr-1`)",
            ),
        )]
        .into(),
        ..State::default()
    });
    let address = fake.serve().await;
    let output = fovea(&address, &["weights", "rm", "--yes", "a", "used"]).await;
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stdout(&output), "weights a removed, 53.00 MB freed\n");
    assert!(
        stderr(&output).contains("needed by dr-1"),
        "{}",
        stderr(&output)
    );
    let output = fovea(&address, &["weights", "rm", "b"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    assert_eq!(fake.0.lock().unwrap().deleted, ["a"]);
}
