//! A data folder that 976f9b6 wrote (journal schema 2) is opened by this version with all that is in it, and one that a
//! newer version wrote is refused by name. `fixtures/data-976f9b6/README.md` says how the folder was made.

use crate::common;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use fovea_proto::pb;
use pb::Phase;
use prost::Message;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-976f9b6")
}

/// A copy of the folder in `to`, with checkpoint files of their full length.
fn copy_of_fixture(to: &Path) {
    copy(&fixture().join("data"), to);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.extension().is_some_and(|end| end == "header") {
            restore_checkpoint(&path, &target.with_extension("safetensors"));
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Of a checkpoint only the header is kept; all floats are zero. The manifest beside it knows the file's length.
fn restore_checkpoint(header: &Path, to: &Path) {
    let manifest = fs::read(header.with_extension("json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let mut file = File::create(to).unwrap();
    file.write_all(&fs::read(header).unwrap()).unwrap();
    file.set_len(manifest["bytes"].as_u64().unwrap()).unwrap();
}

/// The runs as 976f9b6 listed them, with what has been added since.
fn runs_of_old() -> Vec<pb::Run> {
    let bytes = fs::read(fixture().join("runs.bin")).unwrap();
    let mut runs = pb::ListRunsResponse::decode(&*bytes).unwrap().runs;
    for run in &mut runs {
        // Keys that came later, with their defaults.
        let train = run.spec.as_mut().and_then(|spec| spec.train.as_mut());
        train.unwrap().imbalance = Some(pb::Imbalance::None.into());
        run.set_priority(pb::Priority::Normal);
    }
    runs
}

async fn opened(dir: &tempfile::TempDir) -> Server {
    let data = dir.path().join("data");
    copy_of_fixture(&data);
    Server::start(&data, |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_data_folder_is_opened_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = opened(&dir).await;
    let list = server.runs().list(pb::ListRunsRequest::default()).await;
    let runs = list.unwrap().into_inner().runs;
    assert_eq!(runs, runs_of_old());
    let phases: Vec<Phase> = runs.iter().map(pb::Run::phase).collect();
    assert_eq!(phases, [Phase::Paused, Phase::Completed]);

    for (run, steps) in runs.iter().zip([3, 4]) {
        let request = pb::VerifyCheckpointsRequest {
            run_id: run.id.clone(),
            step: None,
        };
        let verified = server.checkpoints().verify(request).await.unwrap();
        let verified = verified.into_inner().checkpoints;
        assert_eq!(verified.len(), 2, "{}", run.id);
        for one in verified {
            assert_eq!(one.problem, "", "{}: {:?}", run.id, one.checkpoint);
        }
        let request = pb::AuditRequest {
            run_id: run.id.clone(),
        };
        let audit = server.runs().audit(request).await.unwrap().into_inner();
        assert_eq!((audit.steps, audit.problems), (steps, vec![]), "{}", run.id);
    }

    let datasets = server.datasets().list(pb::ListDatasetsRequest {}).await;
    let datasets = datasets.unwrap().into_inner().datasets;
    assert_eq!(datasets.len(), 1);
    assert_eq!(datasets[0].digest, runs[0].dataset_digest);

    // The paused run goes on where it stopped, and its workers get the dataset.
    let mut worker = Worker::join(&server, "w0").await;
    let mut other = Worker::join(&server, "w1").await;
    let request = pb::ResumeRequest {
        run_id: runs[0].id.clone(),
        checkpoint_step: None,
    };
    server.runs().resume(request).await.unwrap();
    let assignment = worker.assignment().await;
    assert_eq!(other.assignment().await, assignment);
    assert_eq!(
        (&*assignment.run_id, assignment.start_step),
        (&*runs[0].id, 3)
    );
    assert_eq!(assignment.next_epoch, 1);
    let request = pb::FetchPackRequest {
        digest: assignment.dataset_digest.clone(),
        pack: 0,
    };
    let mut pack = server
        .datasets()
        .fetch_pack(request)
        .await
        .unwrap()
        .into_inner();
    let mut bytes = 0;
    while let Some(chunk) = pack.message().await.unwrap() {
        bytes += chunk.data.len();
    }
    assert!(bytes > 0);
    // Numbers of runs are not used again.
    let next = server.submit(spec()).await.unwrap();
    assert!(next.id.ends_with("-3"), "{}", next.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_journal_is_copied_before_it_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let server = opened(&dir).await;
    server.stop().await;
    let copy = dir.path().join("data/journal.db.v2.bak");
    assert!(copy.is_file(), "{} was not made", copy.display());
    let db = rusqlite::Connection::open(&copy).unwrap();
    let number = |query: &str| -> i64 { db.query_row(query, [], |row| row.get(0)).unwrap() };
    let version = number("SELECT value FROM meta WHERE key = 'schema_version'");
    assert_eq!(version, 2);
    assert_eq!(number("SELECT count(*) FROM runs"), 2);
    assert_eq!(number("SELECT count(*) FROM ledger"), 7);
}

#[test]
fn a_folder_of_a_newer_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    copy_of_fixture(&data);
    let path = data.join("journal.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    let update = "UPDATE meta SET value = 99 WHERE key = 'schema_version'";
    assert_eq!(db.execute(update, []).unwrap(), 1);
    db.close().unwrap();
    let before = fs::read(&path).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fovea-coordinator"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(
        error.contains("journal.db") && error.contains("99"),
        "{error}"
    );
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
}
