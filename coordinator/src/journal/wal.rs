//! Whether SQLite would apply the write-ahead log as a whole.
//!
//! SQLite takes a log up to the first frame whose checksum is wrong, and ignores the rest silently. It ignores the
//! whole log when the header's checksum is wrong, and deletes it when the database is empty. What it ignores is overwritten
//! or deleted soon after. So the log is read here first, before SQLite opens or changes anything:
//!
//! ```text
//!  no log, or one without a frame ──> nothing to lose
//!  header wrong ──> refused; but a header that was half written over a log whose pages are all in the database is harmless
//!  database missing or empty, and a commit in the log ──> refused
//!  frame k wrong ──> a transaction begins after the one of frame k?  yes: refused
//!                                                                    no: the end of an unfinished write, cut off
//! ```
//!
//! Each commit is on disk before the next begins, so an interrupted write damages the last transaction only. A later one is
//! recognized by a frame that follows a commit and continues its checksum. Frames that a failed write has left beyond the
//! last commit never do: they were chained to frames that are overwritten by now. So a kill never leads to a refusal.
//!
//! What cannot be detected: damage within the last transaction looks like an interrupted write of it, so that transaction is cut
//! off (some of it looks like a lost mark of a commit and is refused); and damage of several frames that reaches from the last
//! but one transaction into the last looks the same.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use fovea_core::count::count;
use tracing::info;

use super::error::JournalError;
use super::filesystem::log_of;

const HEADER: usize = 32;
const FRAME: usize = 24;
/// With the lowest bit set, checksums are of big-endian words.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;
/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;

/// Refuses a log of which SQLite would ignore something that was acknowledged. Reads only.
///
/// # Errors
/// [`JournalError::DamagedLog`]; or a file cannot be read.
pub(super) fn check(path: &Path) -> Result<(), JournalError> {
    let log = log_of(path);
    let file = match File::open(&log) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(JournalError::cannot("open", &log, error)),
    };
    let refuse = |problem: String| {
        Err(JournalError::DamagedLog {
            path: path.to_owned(),
            problem,
        })
    };
    let found = examine(BufReader::with_capacity(BUFFER, file), || {
        File::open(path).map(|file| BufReader::with_capacity(BUFFER, file))
    });
    match found.map_err(|error| JournalError::cannot("read", &log, error))? {
        Found::Nothing => Ok(()),
        Found::Damaged(problem) => refuse(problem),
        Found::Usable { committed, cut } => {
            if committed > 0 && is_empty(path)? {
                return refuse(format!("{} is missing or empty", path.display()));
            }
            if cut > 0 {
                info!(
                    "journal.cut: the last transaction in {} is not complete; its {} ignored, as after a kill during a write",
                    log.display(),
                    count(cut, "frame is", "frames are")
                );
            }
            Ok(())
        }
    }
}

fn is_empty(path: &Path) -> Result<bool, JournalError> {
    match path.metadata() {
        Ok(found) => Ok(found.len() == 0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(JournalError::cannot("examine", path, error)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// No frame, or none that is not in the database as well.
    Nothing,
    /// Frames up to the last commit, and those of an unfinished transaction after it.
    Usable { committed: usize, cut: usize },
    /// Something acknowledged would be ignored. For people.
    Damaged(String),
}

/// `database` opens the database; it is needed only if the header was half written.
fn examine<D: Read + Seek>(
    mut log: impl Read + Seek,
    database: impl FnOnce() -> io::Result<D>,
) -> io::Result<Found> {
    let mut bytes = [0; HEADER];
    if !fill(&mut log, &mut bytes)? {
        return Ok(Found::Nothing);
    }
    let header = match Header::read(&bytes) {
        Ok(header) => header,
        Err(problem) => {
            return Ok(match replaced(&bytes, &mut log)? {
                Some(old) if is_merged(&old, &mut log, database)? => Found::Nothing,
                Some(_) | None => Found::Damaged(problem),
            });
        }
    };
    let walk = Walk::over(&header, &mut log)?;
    Ok(match walk.wrong {
        Some(frame) if walk.later => Found::Damaged(format!(
            "frame {frame} does not match its checksum, and later transactions follow it"
        )),
        Some(_) | None => Found::Usable {
            committed: walk.committed,
            cut: walk.unfinished,
        },
    })
}

/// SQLite's checksum, which continues from one frame to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum(u32, u32);

impl Sum {
    fn read(bytes: &[u8]) -> Self {
        Self(number(bytes, 0), number(bytes, 4))
    }

    fn over(self, bytes: &[u8], big_endian: bool) -> Self {
        let Self(mut a, mut b) = self;
        for pair in bytes.chunks_exact(8) {
            let (one, two) = words(pair, big_endian);
            a = a.wrapping_add(one).wrapping_add(b);
            b = b.wrapping_add(two).wrapping_add(a);
        }
        Self(a, b)
    }

    /// The checksum before `bytes`, if this is the one after them.
    fn before(self, bytes: &[u8], big_endian: bool) -> Self {
        let Self(mut a, mut b) = self;
        for pair in bytes.rchunks_exact(8) {
            let (one, two) = words(pair, big_endian);
            b = b.wrapping_sub(two).wrapping_sub(a);
            a = a.wrapping_sub(one).wrapping_sub(b);
        }
        Self(a, b)
    }
}

fn words(pair: &[u8], big_endian: bool) -> (u32, u32) {
    let (one, two) = (number(pair, 0), number(pair, 4));
    if big_endian {
        (one, two)
    } else {
        (one.swap_bytes(), two.swap_bytes())
    }
}

/// The big-endian number at `at`.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[derive(Debug, Clone, Copy)]
struct Header {
    big_endian: bool,
    page_bytes: usize,
    salts: [u8; 8],
    sum: Sum,
}

impl Header {
    fn read(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let header = Self::unverified(bytes)?;
        if Sum::read(&bytes[24..]) != header.sum {
            return Err("its header does not match its checksum".into());
        }
        let version = number(bytes, 4);
        if version != VERSION {
            return Err(format!("its header has version {version}, not {VERSION}"));
        }
        Ok(header)
    }

    /// With the checksum that it should have.
    fn unverified(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let (magic, page_bytes) = (number(bytes, 0), number(bytes, 8));
        if magic & !1 != MAGIC {
            return Err("it does not begin as a write-ahead log does".into());
        }
        if !page_bytes.is_power_of_two() || !(512..=65_536).contains(&page_bytes) {
            return Err(format!("its header has pages of {page_bytes} bytes"));
        }
        let big_endian = magic & 1 == 1;
        let mut salts = [0; 8];
        salts.copy_from_slice(&bytes[16..24]);
        Ok(Self {
            big_endian,
            page_bytes: page_bytes as usize,
            salts,
            sum: Sum(0, 0).over(&bytes[..24], big_endian),
        })
    }
}

/// What the frames of a log say.
#[derive(Debug, Default)]
struct Walk {
    /// Frames up to the last commit before a wrong frame.
    committed: usize,
    /// Frames of this log after them.
    unfinished: usize,
    /// The first that is wrong, from 1; also where frames of an earlier log begin.
    wrong: Option<usize>,
    /// A transaction begins after that of the wrong frame.
    later: bool,
    /// The newest committed frame of each page.
    pages: BTreeMap<u32, usize>,
}

impl Walk {
    /// Reads frames up to the end of `log`, which is after its header.
    fn over(header: &Header, log: &mut impl Read) -> io::Result<Self> {
        let mut walk = Self::default();
        let mut pending = Vec::new();
        let (mut head, mut page) = ([0; FRAME], vec![0; header.page_bytes]);
        // Of the frame before: the checksum that it holds, the one that it should hold, whether it is a commit.
        let (mut held, mut computed, mut commit) = (header.sum, header.sum, false);
        let mut index = 0;
        while fill(log, &mut head)? && fill(log, &mut page)? {
            index += 1;
            let own = head[8..16] == header.salts;
            let chained = |from: Sum| {
                from.over(&head[..8], header.big_endian)
                    .over(&page, header.big_endian)
            };
            let sum = Sum::read(&head[16..]);
            let expected = chained(held);
            let number_of_page = number(&head, 0);
            let marked = number(&head, 4) != 0;
            if own && index == walk.committed + walk.unfinished + 1 {
                walk.unfinished += 1;
            }
            if walk.wrong.is_none() && own && number_of_page != 0 && expected == sum {
                pending.push((number_of_page, index));
                if marked {
                    walk.committed = index;
                    walk.unfinished = 0;
                    walk.pages.extend(pending.drain(..));
                }
                (held, computed, commit) = (sum, sum, marked);
                continue;
            }
            if walk.wrong.is_none() {
                walk.wrong = Some(index);
                let erased = own && is_mark_erased(held, &head, &page, sum, header.big_endian);
                commit = marked || erased;
            } else {
                if own && commit && (expected == sum || chained(computed) == sum) {
                    walk.later = true;
                    return Ok(walk);
                }
                commit = marked;
            }
            (held, computed) = (sum, expected);
        }
        Ok(walk)
    }
}

/// Whether the frame is right but for the mark of a commit, which is 0 and was not. The checksum can be solved for the
/// eight bytes before the page.
fn is_mark_erased(
    before: Sum,
    head: &[u8; FRAME],
    page: &[u8],
    sum: Sum,
    big_endian: bool,
) -> bool {
    let after = sum.before(page, big_endian);
    let one = after.0.wrapping_sub(before.0).wrapping_sub(before.1);
    let mark = after.1.wrapping_sub(before.1).wrapping_sub(after.0);
    let (number_of_page, _) = words(head, big_endian);
    number(head, 4) == 0 && one == number_of_page && mark != 0
}

/// The header that was there before `bytes` were half written over it, if that explains them: a new log has the next sequence
/// number, and the frames are still those of the log before.
fn replaced(bytes: &[u8; HEADER], log: &mut (impl Read + Seek)) -> io::Result<Option<Header>> {
    let mut head = [0; FRAME];
    log.seek(SeekFrom::Start(HEADER as u64))?;
    if !fill(log, &mut head)? {
        return Ok(None);
    }
    let mut old = *bytes;
    old[12..16].copy_from_slice(&number(bytes, 12).wrapping_sub(1).to_be_bytes());
    old[16..24].copy_from_slice(&head[8..16]);
    Ok(Header::unverified(&old).ok())
}

/// Whether the log with this header has commits and all their pages are in the database.
fn is_merged<D: Read + Seek>(
    header: &Header,
    log: &mut (impl Read + Seek),
    database: impl FnOnce() -> io::Result<D>,
) -> io::Result<bool> {
    log.seek(SeekFrom::Start(HEADER as u64))?;
    let walk = Walk::over(header, log)?;
    if walk.committed == 0 || walk.later {
        return Ok(false);
    }
    let mut database = match database() {
        Ok(database) => database,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let bytes = header.page_bytes;
    let (mut one, mut other) = (vec![0; bytes], vec![0; bytes]);
    for (page, frame) in walk.pages {
        let at = HEADER + (frame - 1) * (FRAME + bytes) + FRAME;
        log.seek(SeekFrom::Start(at as u64))?;
        database.seek(SeekFrom::Start(u64::from(page - 1) * bytes as u64))?;
        if !fill(log, &mut one)? || !fill(&mut database, &mut other)? || one != other {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fills `bytes`. False at the end of the file, also where it ends within them.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const PAGE: usize = 512;

    /// A log whose frames have these pages, with `true` where a transaction ends.
    fn log(big_endian: bool, salt: u8, frames: &[(u32, bool)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC | u32::from(big_endian), VERSION, PAGE as u32, 3] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend([salt; 8]);
        let mut sum = Sum(0, 0).over(&bytes, big_endian);
        let put = |bytes: &mut Vec<u8>, Sum(a, b): Sum| {
            bytes.extend([a, b].map(u32::to_be_bytes).concat());
        };
        put(&mut bytes, sum);
        for (index, &(page, commit)) in frames.iter().enumerate() {
            let head = [page, 9 * u32::from(commit)].map(u32::to_be_bytes).concat();
            let content = [page as u8 ^ index as u8; PAGE];
            sum = sum.over(&head, big_endian).over(&content, big_endian);
            bytes.extend(head);
            bytes.extend([salt; 8]);
            put(&mut bytes, sum);
            bytes.extend(content);
        }
        bytes
    }

    fn found(log: &[u8]) -> Found {
        let none = || Err::<Cursor<Vec<u8>>, _>(io::Error::from(ErrorKind::NotFound));
        examine(Cursor::new(log), none).unwrap()
    }

    fn usable(committed: usize, cut: usize) -> Found {
        Found::Usable { committed, cut }
    }

    const THREE: [(u32, bool); 6] = [
        (1, false),
        (2, true),
        (3, false),
        (1, true),
        (2, false),
        (4, true),
    ];

    fn at(frame: usize) -> usize {
        HEADER + (frame - 1) * (FRAME + PAGE)
    }

    #[test]
    fn every_byte_of_three_transactions() {
        for big_endian in [false, true] {
            let whole = log(big_endian, 7, &THREE);
            assert_eq!(found(&whole), usable(6, 0));
            for position in 0..whole.len() {
                let mut flipped = whole.clone();
                flipped[position] ^= 0x11;
                let found = found(&flipped);
                let damaged = matches!(found, Found::Damaged(_));
                // Not needed, but not wrong: a mark in the midst of the last transaction makes two of it.
                let marked = (at(5) + 4..at(5) + 8).contains(&position);
                assert_eq!(
                    damaged,
                    position < at(5) || marked,
                    "byte {position}: {found:?}"
                );
            }
            for end in 0..whole.len() {
                let damaged = matches!(found(&whole[..end]), Found::Damaged(_));
                assert!(!damaged, "cut at {end}");
            }
        }
    }

    #[test]
    fn a_mark_that_was_erased_is_seen() {
        let mut erased = log(false, 7, &THREE);
        erased[at(4) + 4..at(4) + 8].fill(0);
        assert!(matches!(found(&erased), Found::Damaged(_)));
        let mut last = log(false, 7, &THREE);
        last[at(6) + 4..at(6) + 8].fill(0);
        assert_eq!(found(&last), usable(4, 2));
    }

    /// Failed writes leave frames beyond the last commit, also commits whose fsync failed; they are overwritten in part.
    #[test]
    fn what_failed_writes_have_left_is_no_later_transaction() {
        let failed = [
            (1, true),
            (5, false),
            (6, false),
            (7, true),
            (8, false),
            (9, true),
        ];
        let longer = log(
            false,
            7,
            &[&failed[..3], &[(1, false); 9], &[(2, true)]].concat(),
        );
        let shorter = log(false, 7, &failed[..4]);
        let last = log(false, 7, &[(1, true), (2, true)]);
        let over = |under: &[u8], top: &[u8]| [top, &under[top.len()..]].concat();
        assert_eq!(found(&over(&shorter, &last)), usable(2, 2));
        assert_eq!(found(&over(&over(&longer, &shorter), &last)), usable(2, 11));
    }

    #[test]
    fn frames_of_the_log_before_are_not_of_this_one() {
        let (old, new) = (log(false, 7, &THREE), log(false, 8, &THREE[..2]));
        let both = [&new[..], &old[new.len()..]].concat();
        assert_eq!(found(&both), usable(2, 0));
        let header_only = [&new[..HEADER], &old[HEADER..]].concat();
        assert_eq!(found(&header_only), usable(0, 0));
    }
}
