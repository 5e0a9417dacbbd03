//! A gradient and its trailer, cut into buckets.

use std::ops::Range;

use fovea_core::googlenet::FlatLayout;

use super::Buffer;
use crate::gpu::stream::Event;

/// 32-bit floats in one row, cut into the buckets of [`FlatLayout::buckets`]: the last one continues with the trailer.
#[derive(Debug, Default)]
pub struct Flat(Vec<Buffer>);

impl Flat {
    /// A gradient laid out by `layout` and `behind` more elements, all from buffers that `make` gives for a length.
    pub fn new(layout: &FlatLayout, behind: usize, make: impl Fn(usize) -> Buffer) -> Self {
        let lens = layout.buckets().map(|range| range.len());
        let len = |(number, len): (usize, usize)| match number {
            FlatLayout::OTHERS => len + behind,
            _ => len,
        };
        let lens = lens.into_iter().enumerate().map(len);
        Self(lens.map(make).collect())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.iter().map(Buffer::len).sum()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buckets, in the order of the row.
    pub fn buckets(&self) -> &[Buffer] {
        &self.0
    }

    /// The buckets, to be changed or taken out for a while.
    pub fn buckets_mut(&mut self) -> &mut Vec<Buffer> {
        &mut self.0
    }

    /// A copy of a range.
    ///
    /// # Panics
    /// If the range reaches beyond the end.
    pub fn read(&self, range: Range<usize>) -> Vec<f32> {
        assert!(range.end <= self.len(), "{range:?} of {}", self.len());
        let mut values = Vec::with_capacity(range.len());
        let mut start = 0;
        for bucket in &self.0 {
            let within = clip(&range, start, bucket.len());
            if !within.is_empty() {
                values.extend(bucket.read(within));
            }
            start += bucket.len();
        }
        values
    }

    /// Overwrites the elements from `at` on.
    ///
    /// # Panics
    /// If they reach beyond the end.
    pub fn write(&mut self, at: usize, values: &[f32]) {
        let range = at..at + values.len();
        assert!(range.end <= self.len(), "{range:?} of {}", self.len());
        let mut start = 0;
        for bucket in &mut self.0 {
            let within = clip(&range, start, bucket.len());
            if !within.is_empty() {
                let from = start + within.start - at;
                bucket.write(within.start, &values[from..from + within.len()]);
            }
            start += bucket.len();
        }
    }

    /// Sets the elements of `range` to zero.
    pub fn clear(&mut self, range: Range<usize>) {
        let mut start = 0;
        for bucket in &mut self.0 {
            let within = clip(&range, start, bucket.len());
            if !within.is_empty() {
                bucket.clear(within);
            }
            start += bucket.len();
        }
    }
}

impl Buckets for Flat {
    fn bucket(&mut self, number: usize) -> &mut Buffer {
        &mut self.0[number]
    }

    fn finished(&mut self, _: usize, _: Ready) {}
}

/// When a finished bucket is complete: once the GPU has reached that point. None: once it has done all work queued by
/// then; on the CPU at once.
pub type Ready = Option<Event>;

/// Receives a gradient.
pub trait Buckets {
    /// A bucket that is not finished.
    fn bucket(&mut self, number: usize) -> &mut Buffer;

    /// A bucket holds all that belongs into it. Each is finished once, in the order of
    /// [`Sink::finished`](crate::model::Sink::finished).
    fn finished(&mut self, number: usize, ready: Ready);
}

/// Those of a row's `range` that lie in its part of `len` from `start` on, counted from there.
fn clip(range: &Range<usize>, start: usize, len: usize) -> Range<usize> {
    let at = |place: usize| place.saturating_sub(start).min(len);
    at(range.start)..at(range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_one_row() {
        let layout = FlatLayout::new(2, &["conv1/7x7_s2"]).unwrap();
        let mut flat = Flat::new(&layout, 3, |len| vec![0.0; len].into());
        let len = layout.trainable_len() + 3;
        assert_eq!((flat.len(), flat.is_empty()), (len, false));
        let lens: Vec<usize> = flat.buckets().iter().map(Buffer::len).collect();
        let mut expected = layout.buckets().map(|range| range.len());
        expected[4] += 3;
        assert_eq!(lens, expected);
        // Over all borders at once.
        let row: Vec<f32> = (0..len).map(|i| i as f32).collect();
        flat.write(0, &row);
        assert!(flat.read(0..len) == row);
        let border = layout.buckets()[2].start;
        assert_eq!(
            flat.read(border - 1..border + 1),
            row[border - 1..border + 1]
        );
        assert_eq!(flat.bucket(2).read(0..1), [border as f32]);
        flat.clear(border - 1..border + 2);
        assert_eq!(
            flat.read(border - 2..border + 3),
            [row[border - 2], 0.0, 0.0, 0.0, row[border + 2]]
        );
        flat.write(border, &[7.0]);
        assert_eq!(flat.read(border..border + 1), [7.0]);
        assert!(flat.read(len..len).is_empty());
    }
}
