//! Makes a file operation of the stores fail, for tests.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Operation;

/// What fails on this thread.
struct Plan {
    errno: i32,
    at: usize,
    stays: bool,
    /// Operations so far.
    count: usize,
    /// The first operation that failed.
    failed: Option<(Operation, Option<PathBuf>)>,
    /// All operations.
    log: Vec<Operation>,
}

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// Called before every operation.
pub(super) fn gate(operation: Operation, path: Option<&Path>) -> io::Result<()> {
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else {
            return Ok(());
        };
        let number = plan.count;
        plan.count += 1;
        plan.log.push(operation);
        let fails = number == plan.at || (plan.stays && number > plan.at);
        // The disk is full for those who write.
        let fails = fails && (plan.errno != libc::ENOSPC || operation.changes());
        if !fails {
            return Ok(());
        }
        if plan.failed.is_none() {
            plan.failed = Some((operation, path.map(Path::to_owned)));
        }
        Err(io::Error::from_raw_os_error(plan.errno))
    })
}

/// What happened in [`with_fault`].
pub(super) struct Faulted<T> {
    /// What the work gave.
    pub result: T,
    /// Operations that were made.
    pub count: usize,
    /// The first operation that failed, with its path unless it was on an open file.
    pub failed: Option<(Operation, Option<PathBuf>)>,
    /// All operations.
    pub log: Vec<Operation>,
}

/// Does `work` with the error `errno` from the operation number `at`, and from all later ones if it `stays`.
pub(super) fn with_fault<T>(
    errno: i32,
    at: usize,
    stays: bool,
    work: impl FnOnce() -> T,
) -> Faulted<T> {
    PLAN.set(Some(Plan {
        errno,
        at,
        stays,
        count: 0,
        failed: None,
        log: Vec::new(),
    }));
    let result = work();
    let plan = PLAN.take().unwrap();
    Faulted {
        result,
        count: plan.count,
        failed: plan.failed,
        log: plan.log,
    }
}
