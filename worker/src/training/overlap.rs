//! The reduction of a step, bucket by bucket, during the last part's backward pass.
//!
//! A backward pass starts at the last layers, where most of the parameters are. Their gradients are reduced while the
//! device computes the rest, as in PyTorch's DistributedDataParallel. All workers reduce the same buckets in the same
//! order, whichever worker computed them, and each element is added as it would be without buckets: no bit depends on it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use fovea_core::googlenet::FlatLayout;

use crate::collective::{Collective, CollectiveError};
use crate::device::{Buckets, Buffer, Flat, Ready};

/// One bucket of every part, and of their sum.
struct Column {
    number: usize,
    parts: Vec<Buffer>,
    sum: Buffer,
    /// Of the part that was computed last.
    ready: Ready,
}

/// Reduces `parts` into `sum`. `compute` fills the last of them, and finishes its buckets; those of the others must be
/// full. Right before the bucket of everything but weights is reduced, `vote` may write into it, that of all parts.
///
/// With `overlap` each bucket is reduced as soon as it is finished, otherwise all are reduced afterwards. The buffers are
/// returned to their places, also after an error.
pub fn reduce_while<T>(
    collective: &mut dyn Collective,
    overlap: bool,
    parts: &mut [Flat],
    sum: &mut Flat,
    vote: &mut dyn FnMut(&mut [Buffer]),
    compute: impl FnOnce(&mut dyn Buckets) -> T,
) -> (T, Result<(), CollectiveError>) {
    let (ready, columns) = channel();
    let mut handing = HandingOver {
        columns: taken_out(parts, sum).into_iter().map(Some).collect(),
        vote,
        ready,
    };
    let (computed, (done, reduced), rest) = if overlap {
        thread::scope(|scope| {
            let reducer = scope.spawn(move || reduce_all(collective, columns));
            let computed = compute(&mut handing);
            let rest = handing.end();
            match reducer.join() {
                Ok(reduced) => (computed, reduced, rest),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    } else {
        let computed = compute(&mut handing);
        let rest = handing.end();
        (computed, reduce_all(collective, columns), rest)
    };
    put_back(rest.into_iter().chain(done), parts, sum);
    (computed, reduced)
}

/// Reduces what is ready until no more arrives; after an error only receives it.
fn reduce_all(
    collective: &mut dyn Collective,
    columns: Receiver<Column>,
) -> (Vec<Column>, Result<(), CollectiveError>) {
    let mut done = Vec::new();
    let mut result = Ok(());
    for mut column in columns {
        // An empty one is empty on all workers.
        if result.is_ok() && !column.sum.is_empty() {
            result = collective.reduce(&column.parts, &mut column.sum, column.ready.take());
        }
        done.push(column);
    }
    (done, result)
}

/// Gives the buckets of the part that is computed to the device, and hands over those that are finished.
struct HandingOver<'a> {
    /// By their numbers; those that are finished have gone.
    columns: Vec<Option<Column>>,
    vote: &'a mut dyn FnMut(&mut [Buffer]),
    ready: Sender<Column>,
}

impl HandingOver<'_> {
    /// No more are handed over. Returns those that have not been.
    fn end(self) -> Vec<Column> {
        self.columns.into_iter().flatten().collect()
    }
}

impl Buckets for HandingOver<'_> {
    fn bucket(&mut self, number: usize) -> &mut Buffer {
        let column = self.columns[number].as_mut();
        let parts = &mut column.expect("a bucket that is not finished").parts;
        parts.last_mut().expect("a part")
    }

    fn finished(&mut self, number: usize, ready: Ready) {
        let mut column = self.columns[number].take().expect("finished once");
        column.ready = ready;
        if number == FlatLayout::OTHERS {
            (self.vote)(&mut column.parts);
            // Votes come behind that point.
            column.ready = None;
        }
        // Who reduces takes all that come.
        let _ = self.ready.send(column);
    }
}

/// The buckets of all parts and the sum, by their numbers, out of their places.
fn taken_out(parts: &mut [Flat], sum: &mut Flat) -> Vec<Column> {
    let sums = std::mem::take(sum.buckets_mut());
    let mut columns: Vec<Column> = sums
        .into_iter()
        .enumerate()
        .map(|(number, sum)| Column {
            number,
            parts: Vec::with_capacity(parts.len()),
            sum,
            ready: None,
        })
        .collect();
    for part in parts {
        for (column, bucket) in columns.iter_mut().zip(part.buckets_mut().drain(..)) {
            column.parts.push(bucket);
        }
    }
    columns
}

/// The other way.
fn put_back(columns: impl Iterator<Item = Column>, parts: &mut [Flat], sum: &mut Flat) {
    let mut columns: Vec<Column> = columns.collect();
    columns.sort_by_key(|column| column.number);
    for column in columns {
        sum.buckets_mut().push(column.sum);
        for (part, bucket) in parts.iter_mut().zip(column.parts) {
            part.buckets_mut().push(bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::testing::PATIENCE;

    /// Adds up, and records the length of each call.
    struct Adding {
        calls: Sender<usize>,
        fails_at: Option<usize>,
    }

    impl Collective for Adding {
        fn reduce(
            &mut self,
            parts: &[Buffer],
            sum: &mut Buffer,
            _: Ready,
        ) -> Result<(), CollectiveError> {
            let len = sum.len();
            let _ = self.calls.send(len);
            if self.fails_at == Some(len) {
                return Err(CollectiveError::Aborted);
            }
            let add = |i: usize| parts.iter().map(|part| part.read(i..i + 1)[0]).sum();
            sum.write(0, &(0..len).map(add).collect::<Vec<f32>>());
            Ok(())
        }

        fn gather(&mut self, _: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
            unreachable!("nothing is gathered here")
        }

        fn gather_patiently(&mut self, _: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
            unreachable!("nothing is gathered here")
        }

        fn broadcast(
            &mut self,
            _: usize,
            _: &[usize],
            _: &mut [f32],
        ) -> Result<(), CollectiveError> {
            unreachable!("nothing is broadcast here")
        }
    }

    /// Buckets of 1, 2, 3, 0 and 4 elements, all `value`.
    fn flat(value: f32) -> Flat {
        let mut flat = Flat::default();
        let buckets = [1, 2, 3, 0, 4].map(|len| vec![value; len].into());
        flat.buckets_mut().extend(buckets);
        flat
    }

    #[test]
    fn a_finished_bucket_is_reduced_while_the_next_is_computed() {
        for overlap in [true, false] {
            let (calls, called) = channel();
            let mut collective = Adding {
                calls,
                fails_at: None,
            };
            let (mut parts, mut sum) = ([flat(1.0), flat(9.0)], flat(f32::NAN));
            let mut votes = 0;
            let mut vote = |parts: &mut [Buffer]| {
                votes += 1;
                parts[0].write(3, &[5.0]);
            };
            let (seen, reduced) = reduce_while(
                &mut collective,
                overlap,
                &mut parts,
                &mut sum,
                &mut vote,
                |buckets| {
                    let mut seen = Vec::new();
                    for number in FlatLayout::BUCKET_ORDER {
                        let bucket = buckets.bucket(number);
                        let len = bucket.len();
                        bucket.write(0, &vec![number as f32; len]);
                        buckets.finished(number, None);
                        if overlap && len > 0 {
                            // While this thread has not come to the next one.
                            seen.push(called.recv_timeout(PATIENCE).unwrap());
                        }
                    }
                    seen
                },
            );
            reduced.unwrap();
            let all: Vec<usize> = seen.into_iter().chain(called.try_iter()).collect();
            assert_eq!(all, [3, 2, 1, 4], "{overlap}");
            assert_eq!(votes, 1);
            assert_eq!(sum.read(0..10), [1.0, 2., 2., 3., 3., 3., 5., 5., 5., 9.]);
            assert_eq!(
                parts[1].read(0..10),
                [0.0, 1., 1., 2., 2., 2., 4., 4., 4., 4.]
            );
        }
    }

    /// What another generation needs of this one is all there.
    #[test]
    fn after_an_error_everything_is_in_its_place() {
        let (calls, called) = channel();
        let mut collective = Adding {
            calls,
            fails_at: Some(2),
        };
        let (mut parts, mut sum) = ([flat(1.0), flat(2.0)], flat(0.0));
        let (stopped, reduced) = reduce_while(
            &mut collective,
            true,
            &mut parts,
            &mut sum,
            &mut |_| panic!("never came so far"),
            |buckets| {
                for number in [3, 2, 1] {
                    buckets.finished(number, None);
                }
                "a device's error"
            },
        );
        assert_eq!(stopped, "a device's error");
        assert!(matches!(reduced, Err(CollectiveError::Aborted)));
        assert_eq!(called.try_iter().collect::<Vec<_>>(), [3, 2]);
        assert_eq!(parts[0].read(0..10), [1.0; 10]);
        assert_eq!(parts[1].read(0..10), [2.0; 10]);
        let lens: Vec<usize> = sum.buckets().iter().map(Buffer::len).collect();
        assert_eq!(lens, [1, 2, 3, 0, 4]);
    }

    #[test]
    fn a_panic_of_the_device_does_not_hang() {
        let (unwound, ended) = sync_channel::<()>(1);
        let (calls, _called) = channel();
        let mut collective = Adding {
            calls,
            fails_at: None,
        };
        let compute = std::thread::spawn(move || {
            let (mut parts, mut sum) = ([flat(1.0)], flat(0.0));
            let _unwound = unwound;
            reduce_while(
                &mut collective,
                true,
                &mut parts,
                &mut sum,
                &mut |_| {},
                |_| panic!("out of memory"),
            )
        });
        // Closed when the thread has unwound.
        assert!(ended.recv_timeout(PATIENCE).is_err());
        assert!(compute.join().is_err());
    }
}
