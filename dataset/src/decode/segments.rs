//! The segments of a JPEG file (ITU-T T.81, annex B): where each lies, and what the headers say.

use memchr::memchr;

/// Markers, the second byte after 0xff.
pub(super) mod marker {
    pub const START_OF_IMAGE: u8 = 0xd8;
    pub const END_OF_IMAGE: u8 = 0xd9;
    pub const START_OF_SCAN: u8 = 0xda;
    pub const QUANTIZATION: u8 = 0xdb;
    pub const RESTART_INTERVAL: u8 = 0xdd;
    pub const HUFFMAN: u8 = 0xc4;
    /// Baseline and extended sequential frames with Huffman codes.
    pub const SEQUENTIAL: [u8; 2] = [0xc0, 0xc1];
    pub const APP0: u8 = 0xe0;
    pub const APP1: u8 = 0xe1;
    pub const APP2: u8 = 0xe2;
    pub const ADOBE: u8 = 0xee;
    pub const COMMENT: u8 = 0xfe;
}

/// A segment with a length: its marker and where its content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub marker: u8,
    /// Position of the first byte after the length.
    pub start: usize,
    /// Position of the first byte after the content.
    pub end: usize,
}

/// What a walk through a file finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Segment(Segment),
    /// The end-of-image marker.
    End,
    /// The file ends before.
    Cut,
}

/// The next segment from `at`, skipping the data of a scan, fill bytes, restarts and other markers without a
/// length, as decoders do. `at` must lie behind the start-of-image marker.
pub(super) fn next(bytes: &[u8], mut at: usize) -> Found {
    while let Some(&[lead, code]) = bytes.get(at..at + 2) {
        match (lead, code) {
            (0xff, marker::END_OF_IMAGE) => return Found::End,
            // Fill bytes before a marker; 0x00 is an escaped 0xff inside a scan.
            (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd7 | marker::START_OF_IMAGE) => at += 2,
            (0xff, code) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return Found::Cut;
                };
                let length = usize::from(u16::from_be_bytes([high, low])).max(2);
                let end = at + 2 + length;
                if end > bytes.len() {
                    return Found::Cut;
                }
                return Found::Segment(Segment {
                    marker: code,
                    start: at + 4,
                    end,
                });
            }
            // The data of a scan.
            _ => {
                let lead = bytes.get(at..).and_then(|rest| memchr(0xff, rest));
                at = lead.map_or(bytes.len(), |skipped| at + skipped);
            }
        }
    }
    Found::Cut
}

/// Whether a JPEG has its end-of-image marker. A search for the marker's bytes would find the one of an
/// embedded thumbnail.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        match next(bytes, at) {
            Found::Segment(segment) => at = segment.end,
            Found::End => return true,
            Found::Cut => return false,
        }
    }
}

/// The segments up to the first scan's, that included.
pub(super) fn headers(bytes: &[u8]) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut at = 2;
    while let Found::Segment(segment) = next(bytes, at) {
        at = segment.end;
        found.push(segment);
        if segment.marker == marker::START_OF_SCAN {
            break;
        }
    }
    found
}
