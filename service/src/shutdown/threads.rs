//! What the threads of this process are doing, for the log of a forced exit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A sentence about every thread: its name, its state (R running, S waiting, D in an
/// uninterruptible wait of the kernel) and, where the kernel tells, what it waits in.
pub(super) fn describe() -> String {
    let mut counts = BTreeMap::new();
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    for task in tasks.flatten() {
        if let Some(thread) = thread(&task.path()) {
            *counts.entry(thread).or_insert(0usize) += 1;
        }
    }
    let stuck = counts.keys().any(|thread| thread.state == 'D');
    let threads: Vec<String> = counts
        .into_iter()
        .map(|(thread, count)| thread.text(count))
        .collect();
    let mut text = format!("Its threads: {}.", threads.join(", "));
    if stuck {
        text.push_str(
            " Those in state D are in an uninterruptible wait of the kernel: the process is gone \
             only when that ends.",
        );
    }
    text
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    name: String,
    state: char,
    waits_in: Option<String>,
}

impl Thread {
    fn text(&self, count: usize) -> String {
        let Self {
            name,
            state,
            waits_in,
        } = self;
        let mut text = format!("{name} {state}");
        if let Some(place) = waits_in {
            text.push_str(&format!(" in {place}"));
        }
        if count > 1 {
            text.push_str(&format!(" x{count}"));
        }
        text
    }
}

/// The thread with this folder in /proc; None if it ended meanwhile.
fn thread(task: &Path) -> Option<Thread> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let (name, state) = parse_stat(&stat)?;
    let waits_in = fs::read_to_string(task.join("wchan"))
        .ok()
        .filter(|place| !place.is_empty() && place != "0");
    Some(Thread {
        name,
        state,
        waits_in,
    })
}

/// Name and state of `PID (NAME) STATE ...`. The name may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(String, char)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    Some((name.to_owned(), tail.trim_start().chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_states_are_read() {
        let stat = "12 (tokio (rt) w) D 1 2 3";
        assert_eq!(parse_stat(stat), Some(("tokio (rt) w".into(), 'D')));
        assert_eq!(parse_stat("12 x"), None);
        let named = std::thread::Builder::new()
            .name("describes".into())
            .spawn(describe)
            .unwrap();
        let text = named.join().unwrap();
        assert!(text.contains("describes R"), "{text}");
    }
}
