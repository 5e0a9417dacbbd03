//! What the scrapes of a soak show, and whether it may be so: pure, over times since the soak's start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::exposition::Exposition;

/// After this long no series may name a worker that has died.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Prometheus gives a scrape up after this long, unless it is told otherwise.
const PROMETHEUS_PATIENCE: Duration = Duration::from_secs(10);
/// Counters that begin at zero with their process, as docs/metrics.md says. All others come from the journal.
const OF_THE_PROCESS: [&str; 7] = [
    "fovea_journal_commits",
    "fovea_journal_writes",
    "fovea_journal_commit_seconds",
    "fovea_traces_dropped",
    "fovea_recovery_seconds",
    "fovea_run_step_seconds",
    "process_cpu_seconds",
];
const STARTED: &str = "process_start_time_seconds";

/// The verdict over all scrapes of a soak, one a second.
#[derive(Debug, Default, Serialize)]
pub struct Scrapes {
    /// Scrapes that were answered.
    pub answered: u32,
    /// Scrapes that failed while the coordinator was killed or starting.
    pub failed_while_down: u32,
    /// Scrapes that failed though the coordinator served all the while.
    pub failed_while_serving: u32,
    /// The longest time between two answers, and the longest that the coordinator was away: ms.
    pub longest_gap_ms: u64,
    /// See `longest_gap_ms`.
    pub longest_down_ms: u64,
    /// The slowest answer: ms.
    pub slowest_ms: u64,
    /// Answers of another coordinator process than the one before.
    pub restarts: u32,
    /// Series of counters, histograms included.
    pub counters: usize,
    /// Times that a counter's value was less than before, though it may not be.
    pub fell: u32,
    /// Times that a counter of the process began again after a restart.
    pub began_again: u32,
    /// Workers that died after a series had named them.
    pub dead_workers: usize,
    /// Those of them that a scrape was answered for 60 s or more after.
    pub dead_for_a_minute: usize,
    /// The longest time after a worker's death at which a series still named it: ms.
    pub longest_named_ms: u64,
    /// Answers that promtool read; 0 where there is none.
    pub promtool: u32,
    #[serde(skip)]
    failures: Vec<String>,
    #[serde(skip)]
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<Duration>,
    started: Option<f64>,
    counters: BTreeMap<String, f64>,
    /// Workers that a series has named.
    named: BTreeSet<String>,
    /// Those that have been dead for a minute.
    outlived: BTreeSet<String>,
}

impl Scrapes {
    /// A scrape that began and ended then was answered.
    pub(super) fn answered(
        &mut self,
        began: Duration,
        ended: Duration,
        text: &str,
        dead: &[(String, Duration)],
    ) {
        let parsed = match Exposition::parse(text) {
            Ok(parsed) => parsed,
            Err(problem) => return self.fail(ended, &format!("no exposition: {problem}")),
        };
        self.answered += 1;
        let took = ended - began;
        self.slowest_ms = self.slowest_ms.max(took.as_millis() as u64);
        if took > PROMETHEUS_PATIENCE {
            self.fail(ended, &format!("took {took:?}"));
        }
        if let Some(last) = self.seen.last.replace(ended) {
            let gap = (ended - last).as_millis() as u64;
            self.longest_gap_ms = self.longest_gap_ms.max(gap);
        }
        self.count(ended, &parsed);
        // What was read may be as old as the request.
        self.look_for_the_dead(began, &parsed, dead);
    }

    /// A scrape that ended then failed, while the coordinator was down for a part of it or served all the while.
    pub(super) fn failed(&mut self, ended: Duration, down: bool, reason: &str) {
        if down {
            self.failed_while_down += 1;
        } else {
            self.failed_while_serving += 1;
            self.fail(
                ended,
                &format!("failed while the coordinator served: {reason}"),
            );
        }
    }

    /// What promtool said against an answer.
    pub(super) fn checked(&mut self, at: Duration, complaints: &[String]) {
        self.promtool += 1;
        if !complaints.is_empty() {
            self.fail(at, &format!("promtool: {}", complaints.join("; ")));
        }
    }

    /// The coordinator was away for so long.
    pub(super) fn was_down(&mut self, length: Duration) {
        self.longest_down_ms = self.longest_down_ms.max(length.as_millis() as u64);
    }

    /// What is wrong. A soak that killed workers or coordinators must have seen it.
    pub(super) fn failures(&self, killed_coordinator: bool, killed_worker: bool) -> Vec<String> {
        let mut failures = self.failures.clone();
        for (killed, seen, what) in [
            (true, self.answered as usize, "scrape was answered"),
            (
                killed_coordinator,
                self.restarts as usize,
                "scrape saw that the coordinator was started again",
            ),
            (
                killed_worker,
                self.dead_workers,
                "scrape named a worker that was killed later",
            ),
        ] {
            if killed && seen == 0 {
                failures.push(format!("scrapes: no {what}"));
            }
        }
        failures
    }

    fn count(&mut self, at: Duration, parsed: &Exposition) {
        let started = parsed.value(STARTED);
        let before = std::mem::replace(&mut self.seen.started, started);
        let restarted = before.is_some() && before != started;
        self.restarts += u32::from(restarted);
        let mut fell = Vec::new();
        // A series of the process that is not there begins again with the next process, whenever it comes.
        if restarted {
            let mut again = 0;
            self.seen.counters.retain(|key, value| {
                let now = parsed.samples.get(key);
                let own = OF_THE_PROCESS.iter().any(|name| key.starts_with(name));
                let begins = own && now.is_none_or(|now| now.value < *value);
                again += u32::from(begins);
                !begins
            });
            self.began_again += again;
        }
        for (key, sample) in parsed.samples.iter().filter(|(_, s)| s.is_counter()) {
            let before = self.seen.counters.insert(key.clone(), sample.value);
            if let Some(before) = before.filter(|before| sample.value < *before) {
                fell.push(format!("{key} fell from {before} to {}", sample.value));
            }
        }
        self.counters = self.counters.max(self.seen.counters.len());
        self.fell += fell.len() as u32;
        for text in fell {
            self.fail(at, &text);
        }
    }

    fn look_for_the_dead(
        &mut self,
        at: Duration,
        parsed: &Exposition,
        dead: &[(String, Duration)],
    ) {
        let label = |key: &str| {
            let (_, rest) = key.split_once("worker=\"")?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let names: BTreeSet<String> = parsed.samples.keys().filter_map(|key| label(key)).collect();
        for (worker, died) in dead {
            let Some(since) = at.checked_sub(*died) else {
                continue;
            };
            if since >= GONE_WITHIN && self.seen.named.contains(worker) {
                self.seen.outlived.insert(worker.clone());
            }
            if names.contains(worker) {
                self.longest_named_ms = self.longest_named_ms.max(since.as_millis() as u64);
                if since > GONE_WITHIN {
                    let text = format!("a series names {worker}, which died {since:?} ago");
                    self.fail(at, &text);
                }
            }
        }
        self.seen.named.extend(names);
        let named = &self.seen.named;
        self.dead_workers = dead.iter().filter(|(w, _)| named.contains(w)).count();
        self.dead_for_a_minute = self.seen.outlived.len();
    }

    /// Notes what is wrong, the first times.
    fn fail(&mut self, at: Duration, what: &str) {
        if self.failures.len() < 20 {
            let text = format!("scrapes: after {:.1} s: {what}", at.as_secs_f64());
            self.failures.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn text(started: u32, steps: u32, commits: u32, worker: &str) -> String {
        format!(
            "# TYPE fovea_steps counter\nfovea_steps_total{{run=\"r-1\"}} {steps}\n\
             # TYPE fovea_journal_commits counter\nfovea_journal_commits_total {commits}\n\
             # TYPE fovea_worker_silent_seconds gauge\nfovea_worker_silent_seconds{{worker=\"{worker}\"}} 1\n\
             # TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}\n# EOF\n"
        )
    }

    /// The verdict over answers at these times.
    fn over(answers: &[(u64, String)], dead: &[(String, Duration)]) -> Scrapes {
        let mut scrapes = Scrapes::default();
        for (at, text) in answers {
            let died: Vec<_> = dead.iter().filter(|(_, d)| *d <= s(*at)).cloned().collect();
            scrapes.answered(s(*at), s(*at), text, &died);
        }
        scrapes
    }

    #[test]
    fn counters_of_the_journal_never_fall_and_those_of_a_process_only_with_it() {
        let good = over(
            &[
                (1, text(1, 5, 9, "w0")),
                (2, text(1, 6, 10, "w0")),
                (5, text(2, 6, 1, "w0")),
                (6, text(2, 7, 2, "w0")),
            ],
            &[],
        );
        assert_eq!(good.failures(true, false), [""; 0]);
        assert_eq!((good.restarts, good.began_again, good.fell), (1, 1, 0));
        assert_eq!((good.counters, good.longest_gap_ms), (2, 3000));
        // With its process, too, and also when the series was away meanwhile.
        let gone = text(2, 0, 1, "w0").replace("fovea_steps_total{run=\"r-1\"} 0\n", "");
        let fell = over(
            &[
                (1, text(1, 5, 9, "w0")),
                (2, gone),
                (3, text(2, 4, 1, "w0")),
            ],
            &[],
        );
        assert!(
            fell.failures(true, false)[0]
                .contains("fovea_steps_total{run=\"r-1\"} fell from 5 to 4")
        );
        let fell = over(&[(1, text(1, 5, 9, "w0")), (2, text(1, 5, 8, "w0"))], &[]);
        assert_eq!(fell.fell, 1);
        assert!(fell.failures(false, false)[0].contains("fovea_journal_commits_total fell"));
    }

    #[test]
    fn a_dead_worker_is_named_for_a_minute_at_most() {
        let dead = [("w0-1".to_owned(), s(10))];
        let answers = |until: u64, last: u64| -> Vec<(u64, String)> {
            let name = |at| if at <= until { "w0-1" } else { "w1-1" };
            (1..=last).map(|at| (at, text(1, 1, 1, name(at)))).collect()
        };
        let good = over(&answers(12, 80), &dead);
        assert_eq!(good.failures(false, true), [""; 0]);
        assert_eq!((good.dead_workers, good.dead_for_a_minute), (1, 1));
        assert_eq!(good.longest_named_ms, 2000);
        let late = over(&answers(71, 80), &dead);
        assert!(late.failures(false, true)[0].contains("names w0-1, which died 61s ago"));
        let short = over(&answers(12, 30), &dead);
        assert_eq!((short.dead_workers, short.dead_for_a_minute), (1, 0));
    }

    #[test]
    fn a_scrape_may_fail_only_while_the_coordinator_is_down_and_must_see_what_was_killed() {
        let mut scrapes = over(&[(1, text(1, 1, 1, "w0"))], &[]);
        scrapes.failed(s(2), true, "refused");
        assert_eq!(scrapes.failures(false, false), [""; 0]);
        assert_eq!(scrapes.failures(true, true).len(), 2);
        scrapes.failed(s(3), false, "refused");
        scrapes.checked(s(3), &["no help".into()]);
        scrapes.answered(s(4), s(15), &text(1, 1, 1, "w0"), &[]);
        scrapes.answered(s(16), s(16), "hello", &[]);
        let failures = scrapes.failures(false, false);
        for (failure, said) in
            failures
                .iter()
                .zip(["served: refused", "promtool", "took 11s", "no exp"])
        {
            assert!(failure.contains(said), "{failures:?}");
        }
        assert_eq!(failures.len(), 4);
        assert_eq!(Scrapes::default().failures(false, false).len(), 1);
    }
}
