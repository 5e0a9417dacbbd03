//! Files and folders that this user may not use.

use std::fs;

use super::*;
use crate::data_dir::{DataDir, DataDirError};

/// Does `work` on a thread that has no rights to the files of this process.
fn without_rights<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the call touches no memory. It changes the rights of this thread only.
            unsafe { libc::setfsuid(65_534) };
            work()
        });
        thread.join().unwrap()
    })
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
#[cfg_attr(not(has_root), ignore = "acts as another user: root")]
fn a_file_without_permission_is_named_with_whose_it_is() {
    let [folder, file, log] = [0o755, 0o666, 0o666];
    for (modes, name, what) in [
        ([0o700, file, log], "journal.db-wal", "open"),
        ([folder, 0o600, log], "journal.db", "open"),
        ([folder, 0o444, log], "journal.db", "open"),
        ([folder, file, 0o600], "journal.db-wal", "open"),
        ([folder, file, 0o444], "journal.db-wal", "open"),
        // No log, and no right to create one; no journal, either.
        ([folder, file, 0], "", "create a file in"),
        ([folder, 0, 0], "journal.db", "open"),
    ] {
        let (place, path) = place();
        let (journal, _) = open(&path);
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(async {
                journal.put(&run(1), OnFull::Wait).await.unwrap();
            });
        let left = super::backup::files(&path);
        drop(journal);
        let log_path = path.with_extension("db-wal");
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while log_path.exists() {
            assert!(
                std::time::Instant::now() < deadline,
                "the journal stays open"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::remove_file(&path).unwrap();
        for ((file, bytes), mode) in [&path, &log_path].into_iter().zip(left).zip(&modes[1..]) {
            if *mode != 0 {
                fs::write(file, bytes).unwrap();
                allow(file, *mode);
            }
        }
        allow(place.path(), modes[0]);
        let count = fs::read_dir(place.path()).unwrap().count();
        let error = without_rights(|| Journal::open(&path, true)).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, JournalError::Denied { .. }),
            "{modes:?}: {text}"
        );
        let expected = place.path().join(name);
        let expected = expected.to_string_lossy();
        let begin = format!(
            "cannot {what} {}: Permission denied",
            expected.trim_end_matches('/')
        );
        assert!(text.contains(&begin), "{modes:?}: {text}");
        assert!(text.contains("belongs to uid 0 (mode "), "{text}");
        assert!(text.contains("chown"), "{text}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), count);
    }
}

#[test]
#[cfg_attr(not(has_root), ignore = "acts as another user: root")]
fn a_data_folder_without_permission_is_named_with_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    allow(folder.path(), 0o755);
    let error = without_rights(|| DataDir::open(folder.path())).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, DataDirError::Denied { .. }), "{text}");
    assert!(text.contains("lock: Permission denied"), "{text}");
    assert!(text.contains("belongs to uid 0 (mode 0755)"), "{text}");
}
