//! How many images the steps in a ledger used. Each step is read once; a rewind makes that void.

use std::collections::BTreeMap;

use super::runs::ShownRun;
use crate::error::ApiError;
use crate::journal::Journal;

/// Steps that are read at a time.
const PAGE: usize = 10_000;

/// Sums over ledgers, by the numbers of their runs.
#[derive(Debug, Default)]
pub(super) struct Images(BTreeMap<u64, Sum>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    lineage: u64,
    /// Steps up to this one are in the sum.
    step: u64,
    images: u64,
}

impl Images {
    /// Reads what is new of these runs, and forgets others.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) async fn update(
        &mut self,
        journal: &Journal,
        runs: &[ShownRun],
    ) -> Result<(), ApiError> {
        let before = std::mem::take(&mut self.0);
        for run in runs {
            let (number, lineage) = (run.number(), run.lineage());
            let known = before.get(&number).copied();
            let known = known.filter(|sum| sum.lineage == lineage && sum.step <= run.head());
            let mut sum = known.unwrap_or(Sum {
                lineage,
                step: 0,
                images: 0,
            });
            while sum.step < run.head() {
                let read = journal.losses(number, sum.step + 1, PAGE).await;
                let rows = read.map_err(|error| ApiError::Unavailable(error.to_string()))?;
                // What came meanwhile counts at the next scrape, together with its steps.
                let rows = rows.iter().take_while(|row| row.step <= run.head());
                let from = sum.step;
                for row in rows {
                    sum.step = row.step;
                    sum.images += row.images;
                }
                if sum.step == from {
                    break;
                }
            }
            self.0.insert(number, sum);
        }
        Ok(())
    }

    /// All images that the run ever used.
    pub(super) fn of(&self, run: &ShownRun) -> u64 {
        let sum = self.0.get(&run.number()).map_or(0, |sum| sum.images);
        sum + run.discarded().images
    }
}
