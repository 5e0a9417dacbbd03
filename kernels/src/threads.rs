//! How many threads a kernel may use, and how it divides its work among them.

use std::num::NonZeroUsize;

/// The number of threads that a kernel may use. No result depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// The calling thread alone.
    pub const ONE: Self = Self(NonZeroUsize::MIN);

    /// So many threads, the calling one included; 0 counts as 1.
    pub fn new(threads: usize) -> Self {
        Self(NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN))
    }

    /// The number.
    pub fn get(self) -> usize {
        self.0.get()
    }
}

/// Does all of `work`, item by item, on at most `threads` threads. Items are independent of each other: each owns what it
/// writes to, so the borrow checker sees that they are disjoint.
pub fn share_out<T: Send>(
    threads: Threads,
    work: impl Iterator<Item = T>,
    each: impl Fn(T) + Sync,
) {
    if threads == Threads::ONE {
        return work.for_each(each);
    }
    let work: Vec<T> = work.collect();
    let threads = threads.get().min(work.len());
    if threads <= 1 {
        return work.into_iter().for_each(each);
    }
    let mut shares: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    for (i, item) in work.into_iter().enumerate() {
        shares[i % threads].push(item);
    }
    let own = shares.pop().expect("at least two shares");
    std::thread::scope(|scope| {
        for share in shares {
            scope.spawn(|| share.into_iter().for_each(&each));
        }
        own.into_iter().for_each(&each);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_item_is_done_once_on_any_number_of_threads() {
        for threads in [0, 1, 2, 3, 7, 20] {
            for items in [0, 1, 2, 7, 20] {
                let done = Mutex::new(Vec::new());
                share_out(Threads::new(threads), 0..items, |item| {
                    done.lock().unwrap().push(item)
                });
                let mut done = done.into_inner().unwrap();
                done.sort_unstable();
                assert_eq!(done, (0..items).collect::<Vec<_>>(), "{threads} threads");
            }
        }
    }
}
