//! The entropy-coded data of a JPEG, checked for what no encoder writes.
//!
//! libjpeg-turbo warns when the data of a scan end early or late. Huffman codes, however, fall into step again
//! within some dozen symbols, and if about as many blocks come out of overwritten bytes as went in, it has
//! nothing to say: of photographs of which 512 random bytes were overwritten, it took one in ten. What such
//! bytes do leave is a coefficient beyond the last of its block, or, as each block's mean is coded as the
//! difference from the one before, a mean that no picture has. Here these are looked for, in sequential files; a
//! progressive one is left to libjpeg-turbo's warnings.

use super::huffman::{Huffman, LOOK};
use super::segments::{Found, Segment, marker, next};

/// What no encoder writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Implausible {
    /// A run of zeros leads beyond the 64 coefficients of a block.
    #[error("a block of 8 x 8 pixels has more than 64 coefficients")]
    Coefficients,
    /// A mean that 8-bit samples cannot have.
    #[error("a block of 8 x 8 pixels is brighter or darker than any can be")]
    Mean,
    /// A bit sequence without a meaning.
    #[error("a Huffman code that its table does not have")]
    Code,
    /// The data end before the picture does.
    #[error("the data of a scan end before the picture does")]
    Early,
}

/// Checks all scans of a sequential Huffman-coded JPEG. Other kinds, and headers that make no sense, are left to the
/// decoder, which reports them.
pub(super) fn check(bytes: &[u8]) -> Result<(), Implausible> {
    let mut tables = Tables::default();
    let mut at = 2;
    while let Found::Segment(segment) = next(bytes, at) {
        at = segment.end;
        let content = &bytes[segment.start..segment.end];
        let known = match segment.marker {
            marker::QUANTIZATION => tables.quantization(content),
            marker::HUFFMAN => tables.huffman(content),
            marker::RESTART_INTERVAL => tables.restart_interval(content),
            code if marker::SEQUENTIAL.contains(&code) => tables.frame(content),
            // Progressive, lossless, arithmetic and hierarchical frames.
            0xc2..=0xcf => None,
            marker::START_OF_SCAN => match tables.scan(content) {
                Some(scan) => {
                    at = scan.check(bytes, segment)?;
                    Some(())
                }
                None => None,
            },
            _ => Some(()),
        };
        if known.is_none() {
            return Ok(());
        }
    }
    Ok(())
}

/// What the headers say so far.
#[derive(Default)]
struct Tables {
    /// The first entry of each quantization table: the one of the mean.
    quantization: [Option<i32>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart_interval: u32,
    frame: Option<Frame>,
}

struct Frame {
    width: u32,
    height: u32,
    components: Vec<Component>,
}

#[derive(Clone, Copy)]
struct Component {
    id: u8,
    /// Blocks of an interleaved unit, across and down.
    across: u32,
    down: u32,
    table: usize,
}

impl Tables {
    fn quantization(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = content.split_first() {
            let wide = kind >> 4 == 1;
            let slot = self.quantization.get_mut(usize::from(kind & 15))?;
            let (first, length) = match (wide, rest) {
                (false, [value, ..]) => (i32::from(*value), 64),
                (true, [high, low, ..]) => (i32::from(u16::from_be_bytes([*high, *low])), 128),
                _ => return None,
            };
            *slot = Some(first);
            content = rest.get(length..)?;
        }
        Some(())
    }

    fn huffman(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = content.split_first() {
            let (counts, rest) = rest.split_at_checked(16)?;
            let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let class = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *class.get_mut(usize::from(kind & 15))? = Some(Huffman::new(counts, symbols)?);
            content = rest;
        }
        Some(())
    }

    fn restart_interval(&mut self, content: &[u8]) -> Option<()> {
        let &[high, low, ..] = content else {
            return None;
        };
        self.restart_interval = u32::from(u16::from_be_bytes([high, low]));
        Some(())
    }

    fn frame(&mut self, content: &[u8]) -> Option<()> {
        // Precision, height, width, number of components; three bytes for each.
        let &[8, h1, h0, w1, w0, n, ref rest @ ..] = content else {
            return None;
        };
        let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
        let components: Vec<Component> = rest
            .chunks_exact(3)
            .take(usize::from(n))
            .map(|c| Component {
                id: c[0],
                across: u32::from(c[1] >> 4),
                down: u32::from(c[1] & 15),
                table: usize::from(c[2]),
            })
            .collect();
        let sane = |c: &Component| (1..=4).contains(&c.across) && (1..=4).contains(&c.down);
        // A height of 0 is told after the first scan, which hardly any program writes.
        let good = height > 0
            && width > 0
            && (1..=4).contains(&n)
            && components.len() == usize::from(n)
            && components.iter().all(sane);
        self.frame = good.then_some(Frame {
            width: width.into(),
            height: height.into(),
            components,
        });
        good.then_some(())
    }

    fn scan(&self, content: &[u8]) -> Option<Scan<'_>> {
        let frame = self.frame.as_ref()?;
        let (&n, rest) = content.split_first()?;
        let mut parts = Vec::new();
        for chosen in rest.chunks_exact(2).take(usize::from(n)) {
            let component = *frame.components.iter().find(|c| c.id == chosen[0])?;
            parts.push(Part {
                component,
                dc: self.dc.get(usize::from(chosen[1] >> 4))?.as_ref()?,
                ac: self.ac.get(usize::from(chosen[1] & 15))?.as_ref()?,
                step: (*self.quantization.get(component.table)?)?.max(1),
            });
        }
        let most = |of: fn(&Component) -> u32| frame.components.iter().map(of).max().unwrap_or(1);
        let (across, down) = (most(|c| c.across), most(|c| c.down));
        let units = match parts.as_mut_slice() {
            [] => return None,
            // Alone, a component's blocks come row by row, without those that only pad a unit.
            [only] => {
                let c = &mut only.component;
                let side =
                    |length: u32, own: u32, most: u32| (length * own).div_ceil(most).div_ceil(8);
                let units = side(frame.width, c.across, across) * side(frame.height, c.down, down);
                (c.across, c.down) = (1, 1);
                units
            }
            _ => frame.width.div_ceil(8 * across) * frame.height.div_ceil(8 * down),
        };
        Some(Scan {
            parts,
            units,
            restart_interval: self.restart_interval,
        })
    }
}

/// One scan: which components with which tables, and how many units of blocks.
struct Scan<'a> {
    parts: Vec<Part<'a>>,
    units: u32,
    restart_interval: u32,
}

struct Part<'a> {
    component: Component,
    dc: &'a Huffman,
    ac: &'a Huffman,
    /// Quantization step of the mean.
    step: i32,
}

impl Scan<'_> {
    /// Reads the scan behind its header; returns where its data end.
    fn check(&self, bytes: &[u8], header: Segment) -> Result<usize, Implausible> {
        let mut bits = Bits::new(bytes, header.end);
        let mut means = [0i32; 4];
        for unit in 0..self.units {
            if self.restart_interval > 0 && unit > 0 && unit % self.restart_interval == 0 {
                if !bits.restart() {
                    // Not where it belongs: libjpeg-turbo warns of that.
                    return Ok(bits.at);
                }
                means = [0; 4];
            }
            for (part, mean) in self.parts.iter().zip(&mut means) {
                for _ in 0..part.component.across * part.component.down {
                    bits.block(part, mean)?;
                }
            }
            if bits.exhausted() {
                return Err(Implausible::Early);
            }
        }
        Ok(bits.at)
    }
}

/// The bits of a scan, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next `count` bits, from the top. What stands below them is what comes next, or 0.
    next: u64,
    count: u32,
    /// How many of them are no data but stand behind its end.
    padding: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            next: 0,
            count: 0,
            padding: 0,
        }
    }

    /// Whether bits behind the end of the data were used.
    fn exhausted(&self) -> bool {
        self.padding > self.count
    }

    /// Makes at least 32 bits ready: enough for any code and what follows it.
    #[inline(always)]
    fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if let Some(eight) = rest.first_chunk() {
            let word = u64::from_be_bytes(*eight);
            // No byte is 0xff: none of the inverted bytes is zero.
            let inverted = !word;
            let low = inverted.wrapping_sub(0x0101_0101_0101_0101);
            if low & !inverted & 0x8080_8080_8080_8080 == 0 {
                self.next |= word >> self.count;
                let taken = (63 - self.count) / 8;
                self.at = self.at.wrapping_add(taken as usize);
                self.count |= 56;
                return;
            }
        }
        self.refill_bytewise();
    }

    #[cold]
    fn refill_bytewise(&mut self) {
        while self.count <= 56 {
            let (byte, length) = match self.bytes.get(self.at..).unwrap_or_default() {
                [0xff, 0x00, ..] => (0xff, 2),
                [0xff, ..] | [] => {
                    self.padding += 8;
                    (0, 0)
                }
                [byte, ..] => (*byte, 1),
            };
            self.next |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.at += length;
        }
    }

    /// Goes on by at most 32 bits that are ready. Nothing can overflow, and the checks would take a tenth of the time.
    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.next = self.next.wrapping_shl(bits);
        self.count = self.count.wrapping_sub(bits);
    }

    /// The next symbol. At least 16 bits must be ready.
    #[inline(always)]
    fn symbol(&mut self, table: &Huffman) -> Result<u8, Implausible> {
        let (length, symbol) = table.short[(self.next >> (64 - LOOK)) as usize];
        if length > 0 {
            self.skip(length.into());
            return Ok(symbol);
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Huffman) -> Result<u8, Implausible> {
        let code = (self.next >> 48) as u32;
        for length in LOOK + 1..=16 {
            let (beyond, offset) = table.long[length as usize];
            if code < beyond {
                let position = (code >> (16 - length)) as i32 + offset;
                let symbol = usize::try_from(position).ok();
                let symbol = symbol.and_then(|at| table.symbols.get(at));
                self.skip(length);
                return symbol.copied().ok_or(Implausible::Code);
            }
        }
        Err(Implausible::Code)
    }

    /// Reads a block of 64 coefficients; `mean` is that of the component's block before.
    #[inline(always)]
    fn block(&mut self, part: &Part, mean: &mut i32) -> Result<(), Implausible> {
        self.refill();
        let size = u32::from(self.symbol(part.dc)?);
        if size > 15 {
            return Err(Implausible::Mean);
        }
        if size > 0 {
            let value = (self.next >> (64 - size)) as i32;
            // The upper half of the values is positive, the lower half negative (T.81, F.2.2.1).
            let difference = if value < 1 << (size - 1) {
                value - (1 << size) + 1
            } else {
                value
            };
            self.skip(size);
            *mean += difference;
            // The mean of 64 samples from -128 to 127, times 8; a quarter more for encoders that overshoot, and
            // what rounding adds.
            if (i64::from(*mean) * i64::from(part.step)).abs() > 1280 + i64::from(part.step) {
                return Err(Implausible::Mean);
            }
        }
        let mut position = 1u32;
        while position < 64 {
            self.refill();
            let step = part.ac.steps[(self.next >> (64 - LOOK)) as usize];
            let behind = position.wrapping_add(step.advance.into());
            // Where the block may end within the step, only its first symbol is known to belong to the block.
            if step.bits == 0 || behind > 64 {
                match self.coefficient(part.ac)? {
                    Some(advance) => position += advance,
                    None => return Ok(()),
                }
                continue;
            }
            self.skip(step.bits.into());
            if step.ends {
                return Ok(());
            }
            position = behind;
        }
        if position > 64 {
            return Err(Implausible::Coefficients);
        }
        Ok(())
    }

    /// Reads one symbol of coefficients and its value; how many coefficients it stands for, or `None` for the block's end.
    #[inline(never)]
    fn coefficient(&mut self, table: &Huffman) -> Result<Option<u32>, Implausible> {
        let symbol = u32::from(self.symbol(table)?);
        let (run, size) = (symbol >> 4, symbol & 15);
        self.skip(size);
        Ok(match (run, size) {
            (15, 0) => Some(16),
            (_, 0) => None,
            _ => Some(run + 1),
        })
    }

    /// Goes behind the restart marker that must come next; whether it does.
    fn restart(&mut self) -> bool {
        let behind_padding = self.count.saturating_sub(self.padding) < 8;
        let marker = self.bytes.get(self.at..self.at + 2);
        let found = behind_padding && matches!(marker, Some([0xff, 0xd0..=0xd7]));
        if found {
            *self = Self::new(self.bytes, self.at + 2);
        }
        found
    }
}

#[cfg(test)]
mod tests;
