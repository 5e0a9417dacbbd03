//! Fetching a backup: whole or not at all.

use crate::common;
use common::{Fake, State, fovea, stderr, stdout};
use fovea_proto::pb;
use tonic::Status;

fn parts(announced: u64, sha256: &str) -> Vec<Result<pb::BackupPart, Status>> {
    use pb::backup_part::Part;
    let info = pb::BackupInfo {
        bytes: announced,
        created_at_ms: 7,
        runs: 3,
        live_runs: 1,
        datasets: 2,
    };
    let end = pb::BackupEnd {
        sha256: sha256.into(),
    };
    [
        Part::Info(info),
        Part::Data(b"jour"[..].into()),
        Part::Data(b"nal"[..].into()),
        Part::End(end),
    ]
    .map(|part| Ok(pb::BackupPart { part: Some(part) }))
    .into()
}

#[tokio::test]
async fn a_backup_is_fetched_whole_or_not_at_all() {
    use std::os::unix::fs::PermissionsExt;
    let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b"journal"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fovea.tar");
    let name = file.to_str().unwrap();
    let fake = Fake::new(State {
        backup: parts(7, &sha256),
        ..State::default()
    });
    let address = fake.serve().await;
    let output = fovea(&address, &["admin", "backup", name]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text =
        format!("{name}: 3 runs, 1 under way, 2 datasets; 7 B, sha256 {sha256} (verified)\n");
    assert_eq!(stdout(&output), text);
    assert_eq!(std::fs::read(&file).unwrap(), b"journal");
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // It is not replaced unless that is asked for.
    let output = fovea(&address, &["admin", "backup", name]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("--overwrite"),
        "{}",
        stderr(&output)
    );
    let args = ["--json", "admin", "backup", name, "--overwrite"];
    let output = fovea(&address, &args).await;
    let record: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(record["type"], "backup");
    assert_eq!((&record["runs"], &record["bytes"]), (&3.into(), &7.into()));

    let status = Status::unavailable("journal: being copied for another backup");
    let mut cut = parts(7, &sha256);
    cut.truncate(3);
    let cases: [(_, &str); 5] = [
        (parts(8, &sha256), "received 7 bytes, 8 were announced"),
        (parts(5, &sha256), "more than the 5 bytes"),
        (parts(7, "00"), "00 was announced"),
        (cut, "ended too early"),
        (vec![Err(status)], "being copied for another backup"),
    ];
    for (parts, text) in cases {
        std::fs::write(&file, "the old one").unwrap();
        fake.0.lock().unwrap().backup = parts;
        let output = fovea(&address, &args).await;
        assert_ne!(output.status.code(), Some(0), "{text}");
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
        assert_eq!(std::fs::read(&file).unwrap(), b"the old one");
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1, "{text}: nothing is left behind");
    }
}
