//! Rows of a block of memory by number.

use super::{Address, Call, arguments};

/// Bytes that a row's length must be a multiple of.
pub const WORD: usize = 16;

/// Words that a block copies at most at once.
const AT_ONCE: usize = 1024;

fn words(bytes: usize) -> usize {
    assert!(
        bytes.is_multiple_of(WORD),
        "a row of {bytes} bytes: a multiple of {WORD} is needed"
    );
    bytes / WORD
}

fn grid(words: usize, rows: usize) -> [usize; 2] {
    [words.div_ceil(AT_ONCE), rows]
}

/// `out[i]` becomes `held[place[i]]`, or `fresh[-1 - place[i]]` where the place is negative. Rows are of `bytes`, `place` is i32
/// `[count]`.
///
/// # Panics
/// If `bytes` is not a multiple of [`WORD`].
pub fn pick_rows(
    [held, fresh]: [Address; 2],
    place: Address,
    out: Address,
    count: usize,
    bytes: usize,
) -> Call {
    let words = words(bytes);
    let arguments = arguments![held, fresh, place, out, words];
    Call::new("pick_rows", grid(words, count), [256, 1], arguments)
}

/// `held[to[i]]` becomes `fresh[from[i]]`; both i32 `[count]`.
///
/// # Panics
/// As [`pick_rows`].
pub fn keep_rows(
    fresh: Address,
    [from, to]: [Address; 2],
    held: Address,
    count: usize,
    bytes: usize,
) -> Call {
    let words = words(bytes);
    let arguments = arguments![fresh, from, to, held, words];
    Call::new("keep_rows", grid(words, count), [256, 1], arguments)
}
