//! Scrapes the coordinator's metrics once a second, while everything is killed, from a thread of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::scrapes::Scrapes;
use crate::{exposition, http};

const EVERY: Duration = Duration::from_secs(1);
/// A scrape that is not answered for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Every so many answers are given to promtool.
const CHECKED: u32 = 60;

/// When the coordinator served, and which workers were started: what the scrapes are compared with.
#[derive(Debug, Clone)]
pub struct Census(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    begun: Instant,
    /// From when to when the coordinator was down; the last one may go on.
    down: Vec<(Duration, Option<Duration>)>,
    workers: Vec<WorkerProcess>,
}

#[derive(Debug)]
struct WorkerProcess {
    pid: u32,
    /// When it was started, in the system's ticks: with its number a process' identity.
    started: u64,
    log: PathBuf,
    id: Option<String>,
    died: Option<Duration>,
}

impl Default for Census {
    fn default() -> Self {
        let known = Known {
            begun: Instant::now(),
            // It has not been started.
            down: vec![(Duration::ZERO, None)],
            workers: Vec::new(),
        };
        Self(Arc::new(Mutex::new(known)))
    }
}

impl Census {
    /// The coordinator serves from now on.
    pub fn serving(&self) {
        let mut known = self.known();
        let now = known.begun.elapsed();
        if let Some((_, end @ None)) = known.down.last_mut() {
            *end = Some(now);
        }
    }

    /// The coordinator is going to be killed or stopped.
    pub fn going_down(&self) {
        let mut known = self.known();
        let now = known.begun.elapsed();
        if known.down.last().is_none_or(|(_, end)| end.is_some()) {
            known.down.push((now, None));
        }
    }

    /// A worker was started.
    pub fn worker(&self, pid: u32, log: PathBuf) {
        let started = start_of(pid).unwrap_or(0);
        self.known().workers.push(WorkerProcess {
            pid,
            started,
            log,
            id: None,
            died: None,
        });
    }

    /// Looks which workers have died since the last time: the ids of all that have, with the time at which that was seen.
    fn dead_workers(&self) -> Vec<(String, Duration)> {
        let mut known = self.known();
        let now = known.begun.elapsed();
        for worker in known.workers.iter_mut().filter(|w| w.died.is_none()) {
            if start_of(worker.pid) != Some(worker.started) {
                worker.died = Some(now);
                let log = fs::read_to_string(&worker.log).unwrap_or_default();
                worker.id = id_in(&log);
            }
        }
        let dead = known.workers.iter();
        dead.filter_map(|w| w.id.clone().zip(w.died)).collect()
    }

    fn now(&self) -> Duration {
        self.known().begun.elapsed()
    }

    /// Whether the coordinator was down at any time between these two.
    fn was_down(&self, from: Duration, to: Duration) -> bool {
        let overlaps = |(began, ended): &(Duration, Option<Duration>)| {
            *began <= to && ended.is_none_or(|ended| ended >= from)
        };
        self.known().down.iter().any(overlaps)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// When a process was started, in ticks; None if it has ended, waited for or not.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before stands in parentheses and may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

/// The worker's id, as it logs it when it has joined.
fn id_in(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("session.opened: "))?;
    let (_, rest) = line.split_once("worker=")?;
    rest.split_ascii_whitespace().next().map(str::to_owned)
}

/// The thread that scrapes.
#[derive(Debug)]
pub struct Scraper {
    stop: Sender<()>,
    thread: JoinHandle<Scrapes>,
}

impl Scraper {
    /// Scrapes `address` ("host:port") from now on, in the network of the calling thread.
    pub fn start(address: String, census: Census) -> Self {
        let (stop, stopped) = mpsc::channel();
        let work = move || {
            let mut scrapes = Scrapes::default();
            let mut next = Instant::now();
            let mut promtool = true;
            loop {
                next = Instant::now().max(next + EVERY);
                once(&address, &census, &mut scrapes, &mut promtool);
                let pause = next.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            for (from, to) in census.known().down.iter().skip(1) {
                scrapes.was_down(to.unwrap_or(*from) - *from);
            }
            scrapes
        };
        Self {
            stop,
            thread: std::thread::spawn(work),
        }
    }

    /// The verdict over all scrapes.
    pub fn stop(self) -> Scrapes {
        let _ = self.stop.send(());
        self.thread.join().expect("the scraper does not panic")
    }
}

fn once(address: &str, census: &Census, scrapes: &mut Scrapes, promtool: &mut bool) {
    let began = census.now();
    let answer = http::request(address, "GET", "/metrics", None, PATIENCE);
    let ended = census.now();
    let text = match answer {
        Ok((200, text)) => text,
        other => {
            let reason = match other {
                Ok((status, text)) => format!("{status}: {text}"),
                Err(error) => error.to_string(),
            };
            return scrapes.failed(ended, census.was_down(began, ended), &reason);
        }
    };
    scrapes.answered(began, ended, &text, &census.dead_workers());
    if *promtool && scrapes.answered % CHECKED == 1 {
        match exposition::promtool(&text) {
            Ok(complaints) => scrapes.checked(ended, &complaints),
            // It is not installed.
            Err(_) => *promtool = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_census_knows_who_was_there() {
        let census = Census::default();
        assert!(census.was_down(Duration::ZERO, census.now()));
        census.serving();
        let from = census.now() + Duration::from_millis(1);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!census.was_down(from, census.now()));
        census.going_down();
        assert!(census.was_down(from, census.now()));

        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let line = "2026 INFO session.opened: joined the coordinator worker=w0-3f address=\"x\"\n";
        fs::write(log.path(), line).unwrap();
        census.worker(child.id(), log.path().into());
        assert!(census.dead_workers().is_empty());
        child.kill().unwrap();
        // It has ended, and nobody has waited for it.
        while start_of(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(census.dead_workers()[0].0, "w0-3f");
        child.wait().unwrap();
    }
}
