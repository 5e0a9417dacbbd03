//! Records: length, masked CRC of the length, data, masked CRC of the data, all little-endian.
//!
//! Source: tensorflow/core/lib/io/record_writer.h and core/lib/hash/crc32c.h.

use prost::Message;

use crate::event::Event;

/// Bytes before the data of a record, and after them.
const HEAD: usize = 12;
const FOOT: usize = 4;

/// A CRC-32C that data may hold which are themselves checked by one.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Appends an event as a record.
pub fn append(event: &Event, to: &mut Vec<u8>) {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    to.extend(length);
    to.extend(masked(&length).to_le_bytes());
    to.extend(&data);
    to.extend(masked(&data).to_le_bytes());
}

/// The records of a file, up to its end or to the first that is not whole: a writer that was killed leaves such a one.
#[derive(Debug, Clone)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Those of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(HEAD)?;
        let (length, crc) = head.split_at(8);
        if masked(length).to_le_bytes() != crc {
            return None;
        }
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let (data, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let (crc, rest) = rest.split_at_checked(FOOT)?;
        if masked(data).to_le_bytes() != crc {
            return None;
        }
        self.0 = rest;
        Some(data)
    }
}

/// The events of a file, up to its end or to the first that is not whole.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = Event> {
    Records::new(bytes).map_while(|data| Event::decode(data).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{scalar, version};

    #[test]
    fn records_are_tensorflows() {
        let mut bytes = Vec::new();
        append(&version(1.5), &mut bytes);
        // As TensorFlow's own writer has it: 24 bytes of data.
        assert_eq!(bytes[..8], 24u64.to_le_bytes());
        assert_eq!(bytes.len(), 8 + 4 + 24 + 4);
        // Of LevelDB's and TensorFlow's tests: 32 zeros have the CRC-32C 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let unmasked = masked(&[0; 32]).wrapping_sub(0xa282_ead8);
        assert_eq!(unmasked.rotate_right(17), 0x8a91_36aa);
    }

    #[test]
    fn a_torn_or_flipped_record_ends_the_file() {
        let mut bytes = Vec::new();
        let all = [version(1.0), scalar(1, 2.0, &[("a", 0.5)])];
        for event in &all {
            append(event, &mut bytes);
        }
        assert_eq!(events(&bytes).collect::<Vec<_>>(), all);
        for len in 0..bytes.len() {
            assert!(events(&bytes[..len]).count() < 2, "{len}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(events(&flipped).count() < 2, "{at}");
        }
    }
}
