//! Flipping a bit in the memory of another process.

use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memchr::memmem::Finder;

/// Shorter patterns could be found where they only happen to be.
const SHORTEST: usize = 32;
const CHUNK: usize = 16 << 20;
/// The smallest page size: memory that cannot be read is skipped in steps of this size.
const PAGE: u64 = 4096;

/// Flips the lowest bit of the first byte wherever `pattern` (at least 32 bytes) occurs in the writable private memory of a
/// process, and returns in how many places.
///
/// The process runs meanwhile. A place whose bytes have changed since they were found is not changed and not counted; what
/// the process copies during the search can be missed. Stop the process before if that matters.
///
/// # Errors
/// If the process is not there, may not be touched, or ends meanwhile.
pub fn flip_bit(pid: u32, pattern: &[u8]) -> io::Result<usize> {
    if pattern.len() < SHORTEST {
        let problem = format!("a pattern takes {SHORTEST} bytes, not {}", pattern.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let mut search = Search::new(pattern, CHUNK);
    for range in writable_private(&maps) {
        search.range(range, |buffer, at| memory.read_at(buffer, at))?;
    }
    let mut now = vec![0; pattern.len()];
    let mut flipped = 0;
    for place in search.found {
        let stands = memory.read_exact_at(&mut now, place).is_ok() && now == pattern;
        if stands && memory.write_all_at(&[pattern[0] ^ 1], place).is_ok() {
            flipped += 1;
        }
    }
    Ok(flipped)
}

/// The address ranges of writable private mappings. Neighbours are joined: one buffer can lie in two.
fn writable_private(maps: &str) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(addresses), Some(rights)) = (words.next(), words.next()) else {
            continue;
        };
        if !rights.starts_with("rw") || !rights.ends_with('p') {
            continue;
        }
        let Some((start, end)) = addresses.split_once('-') else {
            continue;
        };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        else {
            continue;
        };
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

/// A search through more than fits into one buffer.
struct Search<'a> {
    finder: Finder<'a>,
    chunk: usize,
    buffer: Vec<u8>,
    found: Vec<u64>,
}

impl<'a> Search<'a> {
    fn new(pattern: &'a [u8], chunk: usize) -> Self {
        Self {
            finder: Finder::new(pattern),
            chunk,
            buffer: vec![0; chunk + pattern.len()],
            found: Vec::new(),
        }
    }

    fn range(
        &mut self,
        range: Range<u64>,
        read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut at = range.start;
        // So many bytes before `at` stand at the buffer's start: a place may begin in them.
        let mut kept = 0;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let wanted = self.chunk.min(left);
            match read(&mut self.buffer[kept..kept + wanted], at) {
                Ok(0) => {
                    let problem = "the process has ended";
                    return Err(io::Error::new(io::ErrorKind::NotFound, problem));
                }
                Ok(length) => {
                    let filled = kept + length;
                    let start = at - kept as u64;
                    let places = self.finder.find_iter(&self.buffer[..filled]);
                    self.found.extend(places.map(|place| start + place as u64));
                    // One byte less than the pattern, so that nothing is found twice.
                    kept = filled.min(self.finder.needle().len() - 1);
                    self.buffer.copy_within(filled - kept..filled, 0);
                    at += length as u64;
                }
                // Unmapped since, or a guard within the mapping.
                Err(_) => {
                    kept = 0;
                    at = (at / PAGE + 1) * PAGE;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_across_chunks_are_found_once() {
        let pattern: Vec<u8> = (1..=40).collect();
        let mut memory = vec![0; 4000];
        let places = [0, 70, 981, 1500, 3960];
        for place in places {
            memory[place..place + 40].copy_from_slice(&pattern);
        }
        for chunk in [41, 64, 100, 1000, 5000] {
            let mut search = Search::new(&pattern, chunk);
            let read = |buffer: &mut [u8], at: u64| {
                // Short reads happen at the end of what can be read.
                let length = buffer.len().min(77);
                let at = at as usize - 0x10_0000;
                buffer[..length].copy_from_slice(&memory[at..at + length]);
                Ok(length)
            };
            search.range(0x10_0000..0x10_0000 + 4000, read).unwrap();
            let found: Vec<usize> = search.found.iter().map(|at| *at as usize).collect();
            assert_eq!(found, places.map(|place| 0x10_0000 + place), "{chunk}");
        }
    }

    #[test]
    fn memory_that_cannot_be_read_is_skipped() {
        let pattern = [7; SHORTEST];
        let read = |buffer: &mut [u8], at: u64| {
            if at < 2 * PAGE {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            buffer.fill(0);
            buffer[..SHORTEST].copy_from_slice(&pattern);
            Ok(buffer.len())
        };
        let mut search = Search::new(&pattern, CHUNK);
        search.range(0..4 * PAGE, read).unwrap();
        assert_eq!(search.found, [2 * PAGE]);
    }

    #[test]
    fn only_writable_private_mappings() {
        let maps = "1000-2000 r-xp 00000000 08:01 42 /bin/true\n\
                    2000-3000 rw-p 00001000 08:01 42 /bin/true\n\
                    3000-5000 rw-p 00000000 00:00 0 [heap]\n\
                    6000-7000 rw-s 00000000 00:05 7 /dev/shm/x\n\
                    8000-9000 rwxp 00000000 00:00 0\n";
        assert_eq!(writable_private(maps), [0x2000..0x5000, 0x8000..0x9000]);
    }
}
