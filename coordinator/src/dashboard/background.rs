//! Values that take a while to compute: each is computed once, one at a time, and kept while there is room.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::store::lower_priority;

/// Computes on one thread of low priority: the coordinator leaves the other processors to those who train.
pub(super) fn on_one_thread<T: Send>(
    compute: impl FnOnce() -> T + Send,
) -> Result<T, rayon::ThreadPoolBuildError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .start_handler(|_| lower_priority())
        .build()?;
    Ok(pool.install(compute))
}

/// Kept values by their keys. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Kept<K, V>(Arc<Inner<K, V>>);

#[derive(Debug)]
struct Inner<K, V> {
    entries: Mutex<HashMap<K, Entry<V>>>,
    most: usize,
    turn: Arc<Semaphore>,
}

#[derive(Debug)]
struct Entry<V> {
    value: watch::Receiver<Option<V>>,
    /// When it was asked for, by the count of questions.
    asked: u64,
}

impl<K, V> Kept<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Keeps at most `most` values, those that were asked for last.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            entries: Mutex::default(),
            most,
            turn: Arc::new(Semaphore::new(1)),
        }))
    }

    /// The value, if it is known.
    pub(super) fn known(&self, key: &K) -> Option<V> {
        let entries = self
            .0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        entries
            .get(key)
            .and_then(|entry| entry.value.borrow().clone())
    }

    /// The value; computed if it is not known, in a task of its own. None if that takes longer than `patience`: it will be
    /// known later.
    pub(super) async fn get<F>(
        &self,
        key: &K,
        tasks: &TaskTracker,
        patience: Duration,
        compute: impl FnOnce() -> F,
    ) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut value = self.receiver(key, tasks, compute);
        let known = timeout(patience, value.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone()
    }

    /// Forgets a value, so that it is computed anew.
    pub(super) fn forget(&self, key: &K) {
        let mut entries = self
            .0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // One that is being computed is new enough.
        if entries
            .get(key)
            .is_some_and(|entry| entry.value.borrow().is_some())
        {
            entries.remove(key);
        }
    }

    fn receiver<F>(
        &self,
        key: &K,
        tasks: &TaskTracker,
        compute: impl FnOnce() -> F,
    ) -> watch::Receiver<Option<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut entries = self
            .0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let asked = entries.values().map(|entry| entry.asked).max().unwrap_or(0) + 1;
        if let Some(entry) = entries.get_mut(key) {
            // One whose task has gone without a value is computed again.
            if entry.value.borrow().is_some() || entry.value.has_changed().is_ok() {
                entry.asked = asked;
                return entry.value.clone();
            }
        }
        if entries.len() >= self.0.most && !entries.contains_key(key) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.asked);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                entries.remove(&oldest);
            }
        }
        let (known, value) = watch::channel(None);
        let (turn, computing) = (Arc::clone(&self.0.turn), compute());
        tasks.spawn(async move {
            let _turn = turn.acquire().await;
            known.send_replace(Some(computing.await));
        });
        let entry = Entry {
            value: value.clone(),
            asked,
        };
        entries.insert(key.clone(), entry);
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_value_is_computed_once_and_the_least_asked_for_is_forgotten() {
        let (kept, tasks) = (Kept::<u32, u32>::new(2), TaskTracker::new());
        let times = Arc::new(AtomicU32::new(0));
        let get = |key: u32| {
            let (kept, tasks, times) = (kept.clone(), tasks.clone(), Arc::clone(&times));
            async move {
                let compute = || async move {
                    times.fetch_add(1, Ordering::Relaxed);
                    key * 10
                };
                kept.get(&key, &tasks, LONG, compute).await
            }
        };
        assert_eq!(get(1).await, Some(10));
        assert_eq!((get(1).await, get(2).await), (Some(10), Some(20)));
        assert_eq!(times.load(Ordering::Relaxed), 2);
        assert_eq!((get(1).await, get(3).await), (Some(10), Some(30)));
        assert_eq!((kept.known(&1), kept.known(&2)), (Some(10), None));
        kept.forget(&1);
        assert_eq!(get(1).await, Some(10));
        assert_eq!(times.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn who_has_no_patience_gets_it_later() {
        let (kept, tasks) = (Kept::<u32, u32>::new(2), TaskTracker::new());
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let compute = || async move {
            let _ = wait.await;
            7
        };
        assert_eq!(kept.get(&1, &tasks, Duration::ZERO, compute).await, None);
        go.send(()).unwrap();
        let never = || async { unreachable!("it is being computed") };
        assert_eq!(kept.get(&1, &tasks, LONG, never).await, Some(7));
    }
}
