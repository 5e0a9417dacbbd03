//! Faults that belong to a whole process: no descriptors left, a limit on files, a full file system.
//!
//! A test that changes its process's limits runs as a child: this test binary again, with one test.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::task::JoinHandle;

use super::*;
use crate::small_disk::SmallDisk;

/// Names the journal to a child.
const JOURNAL: &str = "FOVEA_TEST_JOURNAL";

/// Starts the test `name` of this module's parent as a child that uses the journal at `path`.
pub(super) fn start(name: &str, path: &Path) -> Child {
    // Without the name of the crate.
    let module = module_path!().split_once("::").unwrap().1;
    let parent = module.strip_suffix("::children").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{parent}::{name}"), "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env(JOURNAL, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "the child ran nothing: {text}");
    assert_eq!(output.status.signal(), None);
}

/// The journal that a child uses. It is not there when a person runs all ignored tests.
pub(super) fn given() -> Option<PathBuf> {
    std::env::var_os(JOURNAL).map(PathBuf::from)
}

fn set_limit(resource: libc::__rlimit_resource_t, soft: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a valid structure.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &raw mut limit), 0);
        limit.rlim_cur = soft.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(resource, &raw const limit), 0);
    }
}

fn many(from: u64, count: u64) -> Vec<Entry> {
    (from..from + count).map(|n| step(n, &[1; 200])).collect()
}

/// Appends so many batches of steps to run 1, on a task of its own. Its result is the ledger's head.
fn append_meanwhile(journal: &Journal, batches: u64, steps: u64) -> JoinHandle<u64> {
    let journal = journal.clone();
    tokio::spawn(async move {
        let mut head = 0;
        for batch in 0..batches {
            let entries = many(1 + batch * steps, steps);
            head = journal.append(1, entries).await.unwrap();
        }
        head
    })
}

/// Why writes wait, once they do.
async fn reason(journal: &Journal) -> String {
    let mut blocked = journal.blocked();
    let reason = within(blocked.wait_for(Option::is_some)).await.unwrap();
    reason.as_ref().unwrap().to_string()
}

#[test]
fn running_out_of_descriptors_does_not_touch_the_journal() {
    let (_folder, path) = place();
    finish(start("children::without_descriptors", &path));
    let (_, found) = open(&path);
    assert_eq!(found.live[0].ledger_head, 40_000);
}

#[tokio::test]
#[ignore = "the child of running_out_of_descriptors_does_not_touch_the_journal"]
async fn without_descriptors() {
    let Some(path) = given() else { return };
    let (journal, _) = open(&path);
    set_limit(libc::RLIMIT_NOFILE, 64);
    let mut taken = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    journal.put(&run(1), OnFull::Refuse).await.unwrap();
    journal.put(&ended(2), OnFull::Refuse).await.unwrap();
    // Enough that the log is merged several times, and that a removed ledger is swept.
    for at in 0..40 {
        journal.append(2, many(1 + 1000 * at, 1000)).await.unwrap();
        journal.append(1, many(1 + 1000 * at, 1000)).await.unwrap();
        journal.steps(1, SPLIT, 1, 5000).await.unwrap();
    }
    journal.remove_run(2).await.unwrap();
    journal
        .put_run(
            RunChange {
                number: 1,
                run: None,
                rewind: Some(20_000),
                steps: vec![],
                scores: None,
                train_samples: SPLIT,
                head: 0,
            },
            Urgency::Now,
            OnFull::Refuse,
        )
        .await
        .unwrap();
    journal.append(1, many(20_001, 20_000)).await.unwrap();
    assert!(journal.blocked().borrow().is_none());
    let error = File::open("/dev/null").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    journal.close().await.unwrap();
    drop(taken);
}

#[test]
fn a_write_error_delays_and_loses_nothing() {
    let (_folder, path) = place();
    finish(start("children::with_small_files", &path));
    let (_, found) = open(&path);
    assert_eq!(found.live[0].ledger_head, 20_000);
}

/// A limit on the size of files makes `write` fail with EFBIG, which SQLite reports as an I/O error.
#[tokio::test]
#[ignore = "the child of a_write_error_delays_and_loses_nothing"]
async fn with_small_files() {
    let Some(path) = given() else { return };
    // SAFETY: ignoring a signal has no conditions. Without it the limit would end the process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    let log = fs::metadata(path.with_extension("db-wal")).unwrap().len();
    set_limit(libc::RLIMIT_FSIZE, log + 10_000);
    let writer = append_meanwhile(&journal, 20, 1000);
    let reason = reason(&journal).await;
    assert!(reason.contains("cannot write to"), "{reason}");
    let error = journal.put(&run(2), OnFull::Refuse).await.unwrap_err();
    assert!(matches!(error, JournalError::Unavailable { .. }), "{error}");
    assert_eq!(journal.run(1).await.unwrap(), Some(run(1)));
    set_limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
    assert_eq!(within(writer).await.unwrap(), 20_000);
    assert!(journal.blocked().borrow().is_none());
    journal.close().await.unwrap();
}

#[tokio::test]
#[cfg_attr(not(has_mount), ignore = "needs to mount a tmpfs: root")]
async fn a_full_file_system_delays_and_loses_nothing() {
    if given().is_some() {
        return;
    }
    let (folder, path) = place();
    let disk = SmallDisk::mount(folder.path(), 4 << 20).expect("mounting needs root");
    let (journal, _) = open(&path);
    journal.put(&run(1), OnFull::Wait).await.unwrap();
    disk.fill().unwrap();
    let writer = append_meanwhile(&journal, 3, 3000);
    let reason = reason(&journal).await;
    assert!(reason.contains("the disk is full"), "{reason}");
    let error = journal.put(&run(2), OnFull::Refuse).await.unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    disk.free().unwrap();
    assert_eq!(within(writer).await.unwrap(), 9000);
    journal.close().await.unwrap();
    assert_eq!(open(&path).1.live[0].ledger_head, 9000);
}
