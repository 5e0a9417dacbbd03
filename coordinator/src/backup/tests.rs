//! Archives, whole and damaged ones.

use crate::data_dir::DataDir;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::restore::restore_by;
use super::*;
use crate::config::Config;
use crate::journal::Journal;
use crate::small_disk::SmallDisk;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Files of TLS, as a configuration names them.
    fn tls(&self) -> Vec<(&'static str, PathBuf)> {
        let config = Config {
            tls_ca: self.path("ca"),
            tls_ca_key: self.path("key"),
            ..Config::default()
        };
        fs::write(&config.tls_ca, "the CA").unwrap();
        fs::write(&config.tls_ca_key, "its key").unwrap();
        tls_paths(&config)
    }

    /// A backup of a journal with two datasets, and of a CA.
    async fn backup(&self) -> Vec<u8> {
        self.backup_with(&self.tls()).await
    }

    /// The same with these files of TLS.
    async fn backup_with(&self, tls: &[(&'static str, PathBuf)]) -> Vec<u8> {
        let data = self.path("data");
        fs::create_dir_all(&data).unwrap();
        let (journal, _) = Journal::open(&data.join(JOURNAL), true).unwrap();
        for name in ["a", "b"] {
            let name = fovea_core::ids::DatasetName::new(name).unwrap();
            journal.put_dataset(&name, &"0".repeat(64)).await.unwrap();
        }
        journal.put_store("checkpoints", "c0ffee").await.unwrap();
        let snapshot = journal.snapshot().await.unwrap();
        let backup = Backup::make(snapshot, &data, tls, 1_000).unwrap();
        let (expected, mut archive) = (backup.archive_bytes(), Vec::new());
        backup.write(&mut archive).unwrap();
        assert_eq!(archive.len() as u64, expected);
        assert_eq!(names(&data), ["journal.db", "journal.db-wal"]);
        archive
    }

    fn restore(&self, archive: &[u8], to: &str) -> Result<Restored, RestoreError> {
        let file = self.path("backup.tar");
        fs::write(&file, archive).unwrap();
        restore(&file, &self.path(to))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let names: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.into_iter().collect()
}

#[tokio::test]
async fn a_backup_becomes_the_journal_of_a_new_folder() {
    let place = Place::new();
    let archive = place.backup().await;
    let restored = place.restore(&archive, "new").unwrap();
    let report = restored.report().join("\n");
    assert!(
        report.contains("restored the journal: 0 runs, 0 under way, 2 datasets"),
        "{report}"
    );
    // Made one second after the beginning of the epoch.
    let revived =
        "workers that were denied since the backup was made, 1970-01-01 00:00 UTC, are valid again";
    assert!(report.contains(revived), "{report}");
    assert!(
        report.contains("checkpoints: ") && report.contains("holds no store"),
        "{report}"
    );
    assert_eq!(
        names(&place.path("new")),
        ["journal.db", "lock", "restored-tls"]
    );
    let tls = place.path("new/restored-tls");
    assert_eq!(names(&tls), ["ca.key", "ca.pem"]);
    assert_eq!(fs::read(tls.join("ca.key")).unwrap(), b"its key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&tls), mode(&tls.join("ca.key"))), (0o700, 0o600));
    let setting = format!(
        "tls_ca_key = {:?}",
        tls.join("ca.key").display().to_string()
    );
    assert!(report.contains(&setting), "{report}");
    let (_, found) = Journal::open(&place.path("new/journal.db"), true).unwrap();
    assert_eq!(found.datasets.len(), 2);
    assert_eq!(found.stores["checkpoints"], "c0ffee");

    // Into a folder that has one, or the log of one.
    for file in ["journal.db", "journal.db-wal", "restored-tls"] {
        let folder = place.path("used");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), "precious").unwrap();
        let error = place.restore(&archive, "used").unwrap_err();
        assert!(matches!(error, RestoreError::Occupied { .. }), "{error}");
        assert_eq!(error.exit_code(), 4);
        assert_eq!(fs::read(folder.join(file)).unwrap(), b"precious");
        fs::remove_dir_all(folder).unwrap();
    }
}

/// One that was killed leaves its mark and a part of its files: no coordinator starts there, and the next one begins anew.
#[tokio::test]
async fn a_restoration_that_was_killed_is_done_again() {
    let place = Place::new();
    let archive = place.backup().await;
    let folder = place.path("half");
    fs::create_dir_all(folder.join("restored-tls")).unwrap();
    fs::write(folder.join("restored-tls/ca.pem"), "half of it").unwrap();
    fs::write(folder.join("tmp-backup-1"), "half of it").unwrap();
    fs::write(folder.join("restoring"), "").unwrap();
    let error = DataDir::open(&folder)
        .unwrap()
        .check_restored()
        .unwrap_err();
    assert!(error.to_string().contains("Restore it again"), "{error}");
    place.restore(&archive, "half").unwrap();
    assert_eq!(names(&folder), ["journal.db", "lock", "restored-tls"]);
    assert_eq!(names(&folder.join("restored-tls")), ["ca.key", "ca.pem"]);
    DataDir::open(&folder).unwrap().check_restored().unwrap();
    // Nor is a mark left by one that is refused.
    assert!(place.restore(b"no tar", "other").is_err());
    assert_eq!(names(&place.path("other")), ["lock"]);
}

/// A disk that cannot flush the folder after everything has its place.
#[tokio::test]
async fn what_is_in_place_and_may_not_last_is_said() {
    let place = Place::new();
    place.restore(&place.backup().await, "first").unwrap();
    let folder = place.path("new");
    let fails = |_: &Path| Err(std::io::Error::from_raw_os_error(5));
    let error = restore_by(&place.path("backup.tar"), &folder, fails).unwrap_err();
    assert!(matches!(error, RestoreError::Unsynced { .. }), "{error}");
    assert_eq!(error.exit_code(), 4);
    let text = error.to_string();
    assert!(!text.contains("nothing was restored"), "{text}");
    for part in ["journal.db is in place", "restored-tls", "Check the disk"] {
        assert!(text.contains(part), "{text}");
    }
    // It is as after one that succeeded.
    assert_eq!(names(&folder), ["journal.db", "lock", "restored-tls"]);
    let (_, found) = Journal::open(&folder.join(JOURNAL), true).unwrap();
    assert_eq!(found.datasets.len(), 2);
}

/// There is room for the first of the files of TLS, and not for the second.
#[tokio::test]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
async fn a_restoration_that_ran_out_of_room_leaves_no_key_and_can_be_done_again() {
    const MIB: u64 = 1 << 20;
    let place = Place::new();
    let tls = place.tls();
    for (_, path) in &tls {
        fs::write(path, vec![b'k'; 3 * MIB as usize]).unwrap();
    }
    let archive = place.backup_with(&tls).await;
    let folder = place.path("new");
    fs::create_dir(&folder).unwrap();
    let _disk = SmallDisk::mount(&folder, 16 * MIB).expect("mounting needs root");
    let journal = archive.len() as u64 - 6 * MIB;
    let taken = folder.join("taken");
    fs::write(&taken, vec![0; (12 * MIB - journal) as usize]).unwrap();
    let error = place.restore(&archive, "new").unwrap_err();
    assert!(matches!(error, RestoreError::Tls(_)), "{error}");
    assert!(error.to_string().contains("ca.key"), "{error}");
    assert_eq!(names(&folder), ["lock", "taken"]);
    fs::remove_file(&taken).unwrap();
    place.restore(&archive, "new").unwrap();
    assert_eq!(names(&folder), ["journal.db", "lock", "restored-tls"]);
    assert_eq!(names(&folder.join("restored-tls")), ["ca.key", "ca.pem"]);
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let archive = place.backup().await;
    // Before the two files of TLS, of two blocks each, and the end.
    let journal_at = archive.len() - 2 * 1024 - 1024 - 4096;
    let key_at = archive.len() - 1024 - 512;
    let cut = |at: usize| archive[..at].to_vec();
    let flipped = |at: usize| {
        let mut damaged = archive.clone();
        damaged[at] ^= 1;
        damaged
    };
    let cases = [
        vec![],
        b"not a tar archive at all".to_vec(),
        vec![0; 4096],
        cut(300),
        cut(600),
        cut(2_000),
        cut(archive.len() / 2),
        cut(journal_at),
        flipped(0),
        flipped(520),
        flipped(archive.len() / 2),
        flipped(journal_at),
        flipped(key_at),
        cut(key_at),
    ];
    for (number, damaged) in cases.into_iter().enumerate() {
        let error = place.restore(&damaged, "new").unwrap_err();
        assert!(
            matches!(error, RestoreError::Damaged { .. }),
            "{number}: {error}"
        );
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("backup.tar"), "{text}");
        assert_eq!(names(&place.path("new")), ["lock"], "{number}");
    }
    let error = restore(&place.path("absent.tar"), &place.path("other")).unwrap_err();
    assert!(error.to_string().contains("absent.tar"), "{error}");
    assert!(!place.path("other").exists(), "a folder was made");
    let error = restore(place.dir.path(), &place.path("other")).unwrap_err();
    assert!(error.to_string().contains("no regular file"), "{error}");
}

#[tokio::test]
async fn a_newer_backup_is_refused_by_its_format() {
    let place = Place::new();
    let archive = place.backup().await;
    let text = String::from_utf8_lossy(&archive).into_owned();
    let at = text.find("\"format\": 1").unwrap() + "\"format\": ".len();
    let mut newer = archive;
    newer[at] = b'2';
    let error = place.restore(&newer, "new").unwrap_err();
    assert!(
        matches!(error, RestoreError::TooNew { found: 2, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_folder_without_room_or_rights_is_named() {
    let place = Place::new();
    place.backup().await;
    let (journal, _) = Journal::open(&place.path("data/journal.db"), true).unwrap();
    let snapshot = journal.snapshot().await.unwrap();
    let error = Backup::make(snapshot, &place.path("gone"), &[], 0).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
    // The journal can be copied again.
    drop(journal.snapshot().await.unwrap());
}
