//! Looking after the stores: whether there is enough room, and the trash.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::blocking::blocking;
use crate::clock::Clock;
use crate::space::{DiskSpace, Space};
use crate::store::{CheckpointStore, Moment, Purged, TrashAges};

/// How often the trash is emptied of what is old.
const TRASH: Duration = Duration::from_secs(3600);

/// Whether the disk has room for new runs and uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Room {
    /// Bytes free and wanted, while there are too few.
    short: Option<(u64, u64)>,
}

impl Room {
    /// Why no new run may start; None if one may.
    pub(crate) fn too_little(self) -> Option<String> {
        let (free, wanted) = self.short?;
        let mib = |bytes: u64| bytes >> 20;
        Some(format!(
            "the coordinator's disk has {} MiB free and min_free_mib is {}: no new run starts before there is more room",
            mib(free),
            mib(wanted)
        ))
    }
}

/// Watches the room on the store's disk and empties the trash, until `closing`.
pub(crate) fn start(
    store: CheckpointStore,
    mut space: DiskSpace,
    min_free_bytes: u64,
    clock: Clock,
    closing: CancellationToken,
) -> (watch::Receiver<Room>, tokio::task::JoinHandle<()>) {
    let (shown, room) = watch::channel(Room::default());
    let task = async move {
        let mut emptied: Option<tokio::time::Instant> = None;
        let mut trash = Trash::default();
        loop {
            let looked = tokio::select! {
                () = closing.cancelled() => return,
                looked = space.next() => looked,
            };
            let Some(Space { free, .. }) = looked else {
                continue;
            };
            let short = free < min_free_bytes;
            let due = emptied.is_none_or(|at| at.elapsed() >= TRASH);
            if short || due {
                emptied = Some(tokio::time::Instant::now());
                trash.empty(store.clone(), clock).await;
            }
            let now = Room {
                short: short.then_some((free, min_free_bytes)),
            };
            // Figures change all the time; only the change between enough and too little is news.
            let before = shown.borrow().short.is_some();
            if before != short {
                if let Some(problem) = now.too_little() {
                    warn!("store.low_space: {problem}");
                } else {
                    info!("store.enough_space: {} MiB are free again", free >> 20);
                }
                shown.send_replace(now);
            }
        }
    };
    (room, tokio::spawn(task))
}

/// What is known of the trash between two passes.
#[derive(Debug, Default)]
struct Trash {
    ages: TrashAges,
    /// The last pass could not remove all that it should.
    failed: bool,
}

impl Trash {
    async fn empty(&mut self, store: CheckpointStore, clock: Clock) {
        let mut ages = std::mem::take(&mut self.ages);
        let pass = move || {
            let now = Moment {
                wall: SystemTime::now(),
                running: Duration::from_millis(clock.now()),
            };
            (store.empty_trash(&mut ages, now), ages)
        };
        // A panic is on standard error, and the ages are counted anew.
        let Ok((Purged { freed, problem }, ages)) = blocking(pass).await else {
            return;
        };
        self.ages = ages;
        if freed > 0 {
            info!(
                bytes = freed,
                "store.trash_emptied: {} MiB freed",
                freed >> 20
            );
        }
        let failed_before = std::mem::replace(&mut self.failed, problem.is_some());
        if let Some(error) = problem.filter(|_| !failed_before) {
            warn!(%error, "store.trash_kept: {error}");
        }
    }
}
