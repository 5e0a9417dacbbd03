//! What tests of several files need.

/// A square picture of one channel, turned by 90 degrees counter-clockwise.
pub(crate) fn turned(values: &[u8], size: usize) -> Vec<u8> {
    (0..size * size)
        .map(|at| values[(at % size) * size + size - 1 - at / size])
        .collect()
}
