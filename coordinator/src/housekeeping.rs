//! Looking after the stores: free room, availability, the trash.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::blocking::blocking;
use crate::store::CheckpointStore;

/// How often the stores are looked at.
const LOOK: Duration = Duration::from_secs(5);
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
    min_free_bytes: u64,
    closing: CancellationToken,
) -> (watch::Receiver<Room>, tokio::task::JoinHandle<()>) {
    let (shown, room) = watch::channel(Room::default());
    let task = async move {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut emptied: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = look.tick() => {}
            }
            let looked = store.clone();
            let free = blocking(move || looked.check().and_then(|()| looked.free_bytes())).await;
            // The store has logged why not.
            let Ok(Ok(free)) = free else { continue };
            let short = free < min_free_bytes;
            let due = emptied.is_none_or(|at| at.elapsed() >= TRASH);
            if short || due {
                emptied = Some(tokio::time::Instant::now());
                let store = store.clone();
                match blocking(move || store.empty_trash(SystemTime::now())).await {
                    Ok(Ok(bytes)) if bytes > 0 => {
                        info!(bytes, "store.trash_emptied: {} MiB freed", bytes >> 20);
                    }
                    Ok(Err(error)) => warn!(%error, "store.trash_kept: {error}"),
                    Ok(Ok(_)) | Err(_) => {}
                }
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
