//! What was decided about runs lately, for people who were not watching. In memory: the log has all of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::RunEvent;
use crate::clock::unix_ms;
use fovea_core::run::Phase;

/// Notes of a run that are kept, and runs that have some; the newest stay.
const NOTES: usize = 200;
const RUNS: usize = 500;

/// Something that was decided about a run, or happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Name of the event.
    pub event: String,
    pub text: String,
}

/// The newest notes by the run's number. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Notes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    since_ms: u64,
    by_run: Mutex<BTreeMap<u64, VecDeque<Note>>>,
}

impl Default for Notes {
    fn default() -> Self {
        Self(Arc::new(Inner {
            since_ms: unix_ms(),
            by_run: Mutex::default(),
        }))
    }
}

impl Notes {
    /// Since when there are any.
    pub(crate) fn since_ms(&self) -> u64 {
        self.0.since_ms
    }

    /// Those of a run, newest first.
    pub(crate) fn of(&self, run: u64) -> Vec<Note> {
        let by_run = self.lock();
        let notes = by_run.get(&run);
        notes
            .map(|notes| notes.iter().rev().cloned().collect())
            .unwrap_or_default()
    }

    /// Keeps an event. Steps and what checkpoints and results show anyway are none.
    pub(super) fn add(&self, run: u64, event: &RunEvent) {
        let (event, text) = match event {
            RunEvent::Step(_) | RunEvent::Checkpoint(_) | RunEvent::Epoch(_) => return,
            RunEvent::Note(message) => match fovea_core::run::without_event_name(message) {
                text if text.len() < message.len() => {
                    let name = message[..message.len() - text.len()].trim_end_matches(": ");
                    (name.to_owned(), text.to_owned())
                }
                text => (String::new(), text.to_owned()),
            },
            RunEvent::Run(shown) => {
                let run = &shown.run;
                let text = match &run.phase {
                    Phase::Running { roster, .. } => format!(
                        "generation {} {} on {}",
                        run.generation,
                        match run.spec.evaluate {
                            None => "trains",
                            Some(_) => "scores",
                        },
                        fovea_core::count::count(roster.members.len(), "worker", "workers")
                    ),
                    Phase::Queued { reason } | Phase::Forming { reason, .. } => {
                        let name = run.phase_name();
                        match reason {
                            Some(reason) => format!("{name}: {reason}"),
                            None => name.to_owned(),
                        }
                    }
                    Phase::Failed { reason } => format!("failed: {reason}"),
                    Phase::Finishing { .. }
                    | Phase::Paused
                    | Phase::Completed
                    | Phase::Cancelled => run.phase_name().to_owned(),
                };
                ("run.phase".to_owned(), text)
            }
        };
        let note = Note {
            at_ms: unix_ms(),
            event,
            text,
        };
        let mut by_run = self.lock();
        let notes = by_run.entry(run).or_default();
        let same = |last: &Note| last.event == note.event && last.text == note.text;
        if notes.back().is_some_and(same) {
            return;
        }
        if notes.len() == NOTES {
            notes.pop_front();
        }
        notes.push_back(note);
        if by_run.len() > RUNS {
            by_run.pop_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, VecDeque<Note>>> {
        self.0.by_run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_none_is_there_twice_in_a_row() {
        let notes = Notes::default();
        let add = |run, text: &str| notes.add(run, &RunEvent::Note(text.into()));
        add(1, "worker.lost: w1 is gone");
        add(1, "worker.lost: w1 is gone");
        add(1, "plain: text");
        let of = notes.of(1);
        let said: Vec<(&str, &str)> = of.iter().map(|n| (&*n.event, &*n.text)).collect();
        assert_eq!(said, [("", "plain: text"), ("worker.lost", "w1 is gone")]);
        for number in 0..2 * NOTES {
            add(1, &format!("a.b: {number}"));
        }
        let of = notes.of(1);
        assert_eq!((of.len(), &*of[0].text), (NOTES, "399"));
        for run in 2..=RUNS as u64 + 1 {
            add(run, "a.b: c");
        }
        assert_eq!(notes.of(1), []);
        assert_eq!(notes.of(2).len(), 1);
    }
}
