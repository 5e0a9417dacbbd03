//! Checks at the edge of the crate: one comparison a call, in release builds too.

use crate::Shape;

/// Refuses a dense batch whose length is not that of `images` images of `shape`.
#[track_caller]
pub fn dense(kernel: &str, name: &str, len: usize, images: usize, shape: Shape) {
    assert!(
        images.checked_mul(shape.len()) == Some(len),
        "{kernel}: {name} holds {len} values, expected {images} images of {shape}",
    );
}

/// How many images of `shape` there are in a dense batch of `len` values.
#[track_caller]
pub fn images(kernel: &str, name: &str, len: usize, shape: Shape) -> usize {
    let images = len.checked_div(shape.len()).unwrap_or(0);
    assert!(
        shape.len() > 0 && len.is_multiple_of(shape.len()),
        "{kernel}: {name} holds {len} values, expected a multiple of one image of {shape}",
    );
    images
}

/// Refuses an array whose length is not `expected`, which `of` describes.
#[track_caller]
pub fn length(kernel: &str, name: &str, len: usize, expected: usize, of: &str) {
    assert!(
        len == expected,
        "{kernel}: {name} holds {len} values, expected {expected} ({of})",
    );
}

/// Refuses a second batch that is not of the first one's number and shape.
#[track_caller]
pub fn same(kernel: &str, first: (&str, usize, Shape), second: (&str, usize, Shape)) {
    assert!(
        (first.1, first.2) == (second.1, second.2),
        "{kernel}: {} is {} images of {}, but {} is {} images of {}",
        second.0,
        second.1,
        second.2,
        first.0,
        first.1,
        first.2,
    );
}
