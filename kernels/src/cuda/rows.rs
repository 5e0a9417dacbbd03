//! Rows in blocks of memory by number.

use super::gradient::pair;
use super::{Address, Argument, Call, arguments};

/// Blocks that hold rows, at most.
pub const MOST_BLOCKS: usize = 256;

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

/// Rows that are held: row r is the one with the number r % `rows` of block r / `rows`.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The blocks.
    pub blocks: &'a [Address],
    /// Rows of each.
    pub rows: usize,
}

/// `out[i]` becomes row `place[i]` of `held`, or `fresh[-1 - place[i]]` where the place is negative. Rows are of `bytes`, `place` is
/// i32 `[count]`.
///
/// # Panics
/// If `bytes` is not a multiple of [`WORD`], or if there are more blocks than [`MOST_BLOCKS`].
pub fn pick_rows(
    held: Held<'_>,
    fresh: Address,
    place: Address,
    out: Address,
    count: usize,
    bytes: usize,
) -> Call {
    let Held { blocks, rows } = held;
    assert!(blocks.len() <= MOST_BLOCKS, "{} blocks", blocks.len());
    // As `struct Blocks` of the source.
    let mut table: Vec<u64> = blocks.iter().map(|block| block.0).collect();
    table.resize(MOST_BLOCKS, 0);
    table.push(pair(super::size(rows) as u32, 0));
    let words = words(bytes);
    let table = Argument::Table(table.into());
    let arguments = arguments![table, fresh, place, out, words];
    Call::new("pick_rows", grid(words, count), [256, 1], arguments)
}

/// Row `to[i]` of a block becomes `fresh[from[i]]`; both i32 `[count]`.
///
/// # Panics
/// As [`pick_rows`].
pub fn keep_rows(
    fresh: Address,
    [from, to]: [Address; 2],
    block: Address,
    count: usize,
    bytes: usize,
) -> Call {
    let words = words(bytes);
    let arguments = arguments![fresh, from, to, block, words];
    Call::new("keep_rows", grid(words, count), [256, 1], arguments)
}
