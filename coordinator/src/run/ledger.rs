//! Committed steps on their way into the journal, and their acknowledgement.
//!
//! A step is shown to watchers at once and acknowledged to the workers when it is on disk. Until then the workers
//! keep it, so that a coordinator that dies in between hears of it again. One write is under way at a time; steps
//! that come meanwhile share the next one.

use std::collections::BTreeMap;
use std::pin::Pin;

use fovea_core::ledger::Entry;
use fovea_core::run::{Run, StepReport};

use crate::journal::{Journal, JournalError, OnFull, RunChange, Urgency};

type Writing = Pin<Box<dyn Future<Output = Result<u64, JournalError>> + Send>>;

/// The end of a run's ledger.
pub(super) struct Ledger {
    /// Steps that are not on their way to the journal yet.
    unwritten: BTreeMap<u64, Entry>,
    /// The journal's ledger has no gap up to this step.
    head: u64,
    /// With the steps that are not written yet, it has no gap up to this one.
    end: u64,
    writing: Option<Writing>,
}

impl Ledger {
    pub fn new(head: u64) -> Self {
        Self {
            unwritten: BTreeMap::new(),
            head,
            end: head,
            writing: None,
        }
    }

    pub fn head(&self) -> u64 {
        self.head
    }

    /// The last step without a gap, written or not.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// A step was committed, or is reported again.
    pub fn add(&mut self, report: &StepReport, samples: Vec<u32>) {
        let entry = Entry {
            step: report.step,
            loss: report.loss,
            samples,
        };
        self.unwritten.insert(report.step, entry);
        // What came out of order follows on now.
        while self.unwritten.contains_key(&(self.end + 1)) {
            self.end += 1;
        }
    }

    pub fn is_idle(&self) -> bool {
        self.unwritten.is_empty() && self.writing.is_none()
    }

    /// Begins to write what waits, unless a write is under way.
    pub fn write(&mut self, journal: &Journal, run: &Run) {
        if self.writing.is_some() || self.unwritten.is_empty() {
            return;
        }
        let steps: Vec<Entry> = std::mem::take(&mut self.unwritten).into_values().collect();
        let (journal, number, head) = (journal.clone(), run.number, self.head);
        let train_samples = run.extent.train_samples;
        self.writing = Some(Box::pin(async move {
            journal
                .put_run(
                    RunChange {
                        number,
                        run: None,
                        rewind: None,
                        steps,
                        scores: None,
                        train_samples,
                        head,
                    },
                    Urgency::Soon,
                    OnFull::Wait,
                )
                .await
        }));
    }

    /// Ends when the write under way is on disk; never, if there is none.
    pub async fn written(&mut self) -> Result<(), JournalError> {
        match &mut self.writing {
            Some(writing) => {
                let head = writing.await;
                self.writing = None;
                self.wrote(head?);
                Ok(())
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the write under way. False if there is none; otherwise its steps are to be acknowledged.
    pub async fn finish(&mut self) -> Result<bool, JournalError> {
        let any = self.writing.is_some();
        if any {
            self.written().await?;
        }
        Ok(any)
    }

    /// Takes what waits, to be written with something else; not what comes after `rewind`.
    pub fn take(&mut self, rewind: Option<u64>) -> Vec<Entry> {
        let mut steps = std::mem::take(&mut self.unwritten);
        if let Some(step) = rewind {
            steps.retain(|s, _| *s <= step);
        }
        steps.into_values().collect()
    }

    /// What was taken could not be written.
    pub fn put_back(&mut self, steps: Vec<Entry>) {
        for entry in steps {
            self.unwritten.entry(entry.step).or_insert(entry);
        }
    }

    pub fn wrote(&mut self, head: u64) {
        self.head = head;
        self.end = self.end.max(head);
    }

    /// The run was sent back to `step`.
    pub fn rewound(&mut self, step: u64) {
        self.head = self.head.min(step);
        self.end = self.end.min(step);
        self.unwritten.clear();
    }
}
