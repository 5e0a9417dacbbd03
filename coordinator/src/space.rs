//! The room on the checkpoint store's disk: one task looks at it, and all who want to know read what it saw last.
//!
//! A mount that hangs holds the thread that looks for as long as it hangs. So nobody else looks: requests that come meanwhile,
//! however many, would take one thread each, until there is none left for other work on files.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::store::CheckpointStore;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What was seen longer ago says nothing: the disk does not answer any more.
const OLDEST: Duration = Duration::from_secs(15);
/// How long who asks waits for the first look.
const FIRST: Duration = Duration::from_secs(2);

/// Room on a disk, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// What can still be written.
    pub free: u64,
    /// What there is in all.
    pub total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// None: the store is away, or its disk cannot be read.
    space: Option<Space>,
}

/// What is known of the room. Clones know the same.
#[derive(Debug, Clone)]
pub(crate) struct DiskSpace(watch::Receiver<Option<Look>>);

impl DiskSpace {
    /// Looks at the disk of `store` until `closing`.
    pub(crate) fn watch(
        store: CheckpointStore,
        closing: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let look = move || {
            // The store logs why it cannot be used.
            let (free, total) = store.check().and_then(|()| store.space()).ok()?;
            Some(Space { free, total })
        };
        Self::looking(look, closing)
    }

    fn looking(
        look: impl Fn() -> Option<Space> + Clone + Send + 'static,
        closing: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (shown, looks) = watch::channel(None);
        let task = async move {
            loop {
                let space = tokio::select! {
                    () = closing.cancelled() => return,
                    space = blocking(look.clone()) => space.unwrap_or(None),
                };
                let at = Instant::now();
                shown.send_replace(Some(Look { at, space }));
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = sleep(LOOK) => {}
                }
            }
        };
        (Self(looks), tokio::spawn(task))
    }

    /// The room as it was seen last, at most 15 s ago. None: the store is away, or its disk cannot be read or does not answer.
    pub(crate) async fn known(&self) -> Option<Space> {
        let mut looks = self.0.clone();
        let first = timeout(FIRST, looks.wait_for(Option::is_some)).await;
        let Look { at, space } = (*first.ok()?.ok()?)?;
        space.filter(|_| at.elapsed() <= OLDEST)
    }

    /// Waits for the next look.
    pub(crate) async fn next(&mut self) -> Option<Space> {
        match self.0.changed().await {
            Ok(()) => self.0.borrow_and_update().and_then(|look| look.space),
            // The coordinator stops.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};

    use super::*;

    const SPACE: Space = Space { free: 1, total: 2 };

    /// A disk that does not answer before it is mended.
    #[derive(Default)]
    struct Disk {
        looks: Mutex<u32>,
        mended: Mutex<bool>,
        changed: Condvar,
    }

    impl Disk {
        fn look(&self) -> Option<Space> {
            *self.looks.lock().unwrap() += 1;
            let mended = self.mended.lock().unwrap();
            drop(self.changed.wait_while(mended, |mended| !*mended).unwrap());
            Some(SPACE)
        }
    }

    /// Mends it, also when the test fails: its runtime waits for the thread that looks.
    struct Mend(Arc<Disk>);

    impl Drop for Mend {
        fn drop(&mut self) {
            *self.0.mended.lock().unwrap() = true;
            self.0.changed.notify_all();
        }
    }

    #[test]
    fn a_disk_that_hangs_holds_one_thread_however_many_ask() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(2)
            .build()
            .unwrap();
        runtime.block_on(async {
            let disk = Arc::<Disk>::default();
            let mend = Mend(Arc::clone(&disk));
            let (looked, closing) = (Arc::clone(&disk), CancellationToken::new());
            let (space, task) = DiskSpace::looking(move || looked.look(), closing.clone());
            let asked: Vec<_> = (0..100)
                .map(|_| {
                    let space = space.clone();
                    tokio::spawn(async move { space.known().await })
                })
                .collect();
            for answer in asked {
                assert_eq!(answer.await.unwrap(), None);
            }
            assert_eq!(*disk.looks.lock().unwrap(), 1);
            let other = timeout(Duration::from_secs(60), blocking(|| 3)).await;
            assert_eq!(other.expect("a thread is free"), Ok(3));

            let mut looks = space.clone();
            drop(mend);
            assert_eq!(looks.next().await, Some(SPACE));
            assert_eq!(space.known().await, Some(SPACE));
            closing.cancel();
            task.await.unwrap();
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_long_ago_is_not_known_any_more() {
        let look = Look {
            at: Instant::now(),
            space: Some(SPACE),
        };
        let (_shown, looks) = watch::channel(Some(look));
        let space = DiskSpace(looks);
        tokio::time::advance(OLDEST).await;
        assert_eq!(space.known().await, Some(SPACE));
        tokio::time::advance(LOOK).await;
        assert_eq!(space.known().await, None);
    }
}
