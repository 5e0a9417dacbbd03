//! Losses of runs by step, read from the journal as they grow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fovea_core::run::Run;
use fovea_dashboard::{MOST_POINTS, thin};

use crate::journal::{Journal, JournalError};

/// Curves that are kept, and steps of all of them together.
const CURVES: usize = 64;
const STEPS: usize = 8_000_000;
/// Steps that are read at a time.
const PAGE: usize = 20_000;

/// The curves of the runs that somebody looked at last.
#[derive(Debug, Default)]
pub(super) struct Curves(Mutex<HashMap<u64, Kept>>);

#[derive(Debug, Clone, Default)]
struct Kept {
    curve: Arc<tokio::sync::Mutex<Curve>>,
    steps: usize,
    asked: u64,
}

#[derive(Debug, Default)]
struct Curve {
    /// That of the run when it was read: a rewind voids steps.
    lineage: u64,
    points: Vec<(u32, f32)>,
}

impl Curves {
    /// Mean loss by committed step of a run, thinned to what is drawn.
    pub(super) async fn losses(
        &self,
        run: &Run,
        journal: &Journal,
    ) -> Result<Vec<(f64, f64)>, JournalError> {
        let shared = self.curve(run.number);
        let mut curve = shared.lock().await;
        if curve.lineage != run.lineage {
            curve.points.clear();
            curve.lineage = run.lineage;
        }
        loop {
            let from = curve
                .points
                .last()
                .map_or(0, |(step, _)| u64::from(*step) + 1);
            let read = journal.losses(run.number, from, PAGE).await?;
            let is_last = read.len() < PAGE;
            let points = read.into_iter();
            curve
                .points
                .extend(points.map(|row| (row.step as u32, row.loss as f32)));
            if is_last {
                break;
            }
        }
        self.note(run.number, curve.points.len());
        let points: Vec<(f64, f64)> = curve
            .points
            .iter()
            .map(|(step, loss)| (f64::from(*step), f64::from(*loss)))
            .collect();
        Ok(thin(&points, MOST_POINTS))
    }

    fn curve(&self, number: u64) -> Arc<tokio::sync::Mutex<Curve>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = all.values().map(|kept| kept.asked).max().unwrap_or(0) + 1;
        let kept = all.entry(number).or_default();
        kept.asked = asked;
        Arc::clone(&kept.curve)
    }

    /// A curve has so many steps now: those that were not asked for lately make room.
    fn note(&self, number: u64, steps: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.get_mut(&number) {
            kept.steps = steps;
        }
        let too_many = |all: &HashMap<u64, Kept>| {
            all.len() > CURVES || all.values().map(|kept| kept.steps).sum::<usize>() > STEPS
        };
        while all.len() > 1 && too_many(&all) {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.asked);
            let Some(oldest) = oldest.map(|(number, _)| *number) else {
                return;
            };
            all.remove(&oldest);
        }
    }
}
