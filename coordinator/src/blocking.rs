//! Work that waits for the disk or computes for long, on a thread for that.

/// The work panicked: a defect of the program. The panic's text is on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("work on a blocking thread panicked; this is a defect in fovea, and its log shows where")]
pub struct Panicked;

/// Does `work` on a thread that may wait, and returns its result.
///
/// # Errors
/// `work` panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => Err(Panicked),
        // The runtime ends, and with it whoever waits here.
        Err(_) => std::future::pending().await,
    }
}

/// The same; `held` is let go of when the work has ended, even if nobody waits for its result any more. Such work goes on
/// after a caller that went away, so a limit that it counts for must hold as long as the work does.
///
/// # Errors
/// `work` panicked.
pub(crate) async fn blocking_with<H: Send + 'static, T: Send + 'static>(
    held: H,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    blocking(move || {
        let _held = held;
        work()
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use tokio::sync::{Semaphore, oneshot};
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    /// The longest wait for anything.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_caller() {
        assert_eq!(blocking(|| 3).await, Ok(3));
        assert_eq!(
            blocking(|| -> u32 { panic!("on purpose") }).await,
            Err(Panicked)
        );
    }
    /// As an upload whose client goes away while it is verified: the next one is not verified beside it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_turn_ends_with_the_work_and_not_with_the_caller() {
        let turns = Arc::new(Semaphore::new(1));
        let under_way = Arc::new(AtomicUsize::new(0));
        let in_turn = |goes_on: mpsc::Receiver<()>, began: oneshot::Sender<()>| {
            let (turns, under_way) = (Arc::clone(&turns), Arc::clone(&under_way));
            tokio::spawn(async move {
                let turn = turns.acquire_owned().await;
                blocking_with(turn, move || {
                    let others = under_way.fetch_add(1, Ordering::SeqCst);
                    let _ = began.send(());
                    // Until it is let go on, or given up.
                    let _ = goes_on.recv();
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    others
                })
                .await
            })
        };
        let (first_may_end, goes_on) = mpsc::channel();
        let (began, first_began) = oneshot::channel();
        let first = in_turn(goes_on, began);
        timeout(PATIENCE, first_began).await.unwrap().unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        // The caller is gone and the work is not.
        assert_eq!(turns.available_permits(), 0);
        assert_eq!(under_way.load(Ordering::SeqCst), 1);
        let (second_may_end, goes_on) = mpsc::channel();
        let (began, second_began) = oneshot::channel();
        let second = in_turn(goes_on, began);
        first_may_end.send(()).unwrap();
        timeout(PATIENCE, second_began).await.unwrap().unwrap();
        second_may_end.send(()).unwrap();
        let beside_it = timeout(PATIENCE, second).await.unwrap().unwrap();
        assert_eq!(beside_it, Ok(0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_held_bounds_how_much_is_done_at_once() {
        const MOST: usize = 2;
        let turns = Arc::new(Semaphore::new(MOST));
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let (turns, under_way, most) = (
                Arc::clone(&turns),
                Arc::clone(&under_way),
                Arc::clone(&most),
            );
            callers.spawn(async move {
                let turn = turns.acquire_owned().await;
                blocking_with(turn, move || {
                    let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    under_way.fetch_sub(1, Ordering::SeqCst);
                })
                .await
            });
        }
        let results = timeout(PATIENCE, callers.join_all()).await.unwrap();
        assert_eq!(results.len(), 50);
        assert!(most.load(Ordering::SeqCst) <= MOST);
        // A panic gives its turn back, too.
        let turn = Arc::clone(&turns).acquire_owned().await;
        let panicked = blocking_with(turn, || panic!("on purpose")).await;
        assert_eq!(panicked, Err::<(), _>(Panicked));
        assert_eq!(turns.available_permits(), MOST);
    }
}
