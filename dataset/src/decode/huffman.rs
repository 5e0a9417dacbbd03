//! Huffman codes of a JPEG, looked up several at once.

/// A table of Huffman codes.
pub(super) struct Huffman {
    /// By the next [`LOOK`] bits: length of the code, and the symbol; length 0 for a longer code.
    pub short: Box<[(u8, u8); 1 << LOOK]>,
    /// The same for the coefficients behind the mean: all symbols that those bits hold at once.
    pub steps: Box<[Step; 1 << LOOK]>,
    /// For each length: the first code that is longer, aligned to 16 bits, and what to add to a code for its
    /// position in `symbols`.
    pub long: [(u32, i32); 17],
    pub symbols: Vec<u8>,
}

/// Several symbols of coefficients and the bits of their values. What the values are does not matter here, so they may
/// lie beyond the bits that were looked at.
#[derive(Clone, Copy, Default)]
pub(super) struct Step {
    /// Bits of it; 0 if the first code is longer than what was looked at.
    pub bits: u8,
    /// Coefficients, and one more if the block ends: that is told only where there is room for another.
    pub advance: u8,
    pub ends: bool,
}

/// Bits of which the symbol is looked up at once.
pub(super) const LOOK: u32 = 12;

impl Huffman {
    /// `None` if the counts do not make a code.
    pub fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let mut short = Box::new([(0, 0); 1 << LOOK]);
        let mut long = [(0, 0); 17];
        let (mut code, mut position) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            long[length as usize].1 = position as i32 - code as i32;
            for _ in 0..count {
                if code >= 1 << length {
                    return None;
                }
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    short[first..first + (1 << (LOOK - length))]
                        .fill((length as u8, symbols[position]));
                }
                code += 1;
                position += 1;
            }
            long[length as usize].0 = code << (16 - length);
            code <<= 1;
        }
        let mut steps = Box::new([Step::default(); 1 << LOOK]);
        for (seen, step) in (0u32..).zip(steps.iter_mut()) {
            *step = Step::of(seen, &short);
        }
        Some(Self {
            short,
            steps,
            long,
            symbols: symbols.to_vec(),
        })
    }
}

impl Step {
    /// What the [`LOOK`] bits `seen` hold.
    fn of(seen: u32, short: &[(u8, u8); 1 << LOOK]) -> Self {
        let mut step = Self::default();
        while u32::from(step.bits) < LOOK {
            let left = LOOK - u32::from(step.bits);
            let next = (seen << step.bits) & ((1 << LOOK) - 1);
            let (length, symbol) = short[next as usize];
            if length == 0 || u32::from(length) > left {
                break;
            }
            let (run, size) = (symbol >> 4, symbol & 15);
            step.bits += length + size;
            if size > 0 {
                step.advance += run + 1;
            } else if run == 15 {
                step.advance += 16;
            } else {
                step.advance += 1;
                step.ends = true;
                break;
            }
        }
        step
    }
}
