//! Caffe's binary `NetParameter` (.caffemodel), read layer by layer.
//!
//! Field numbers are those of BVLC/caffe `src/caffe/proto/caffe.proto`. Both generations of layers are
//! read: V1 (`layers = 2`: name 4, blobs 6) and V2 (`layer = 100`: name 1, blobs 7); everything that is
//! not a layer's name or blob is skipped. The blobs themselves are decoded by prost, which takes packed
//! and unpacked runs and runs in several pieces.

use std::io::{Read, Seek, SeekFrom};

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::error::{LayerProblem, Problem};
use super::source::Blob;

/// The longest layer that is read. GoogLeNet's takes 8 MiB; others are read so that an error can say what is missing.
const LONGEST_LAYER: u64 = 256 << 20;
/// The most blobs that a layer may have; no layer of Caffe has more than five.
const MOST_BLOBS: usize = 8;
/// The most bytes that a blob's shape may take: 32 dimensions are Caffe's limit.
const LONGEST_SHAPE: usize = 512;

/// Streams the blobs of the file in `reader`, which is `size` bytes long.
pub(super) fn read<R: Read + Seek>(
    reader: &mut R,
    size: u64,
    visit: &mut dyn FnMut(Blob) -> Result<(), LayerProblem>,
) -> Result<(), Problem> {
    let mut file = Wire {
        reader,
        position: 0,
        size,
    };
    let mut bytes = Vec::new();
    let mut layers = 0;
    let mut previous = String::new();
    while let Some((field, wire_type)) = file.key(&previous)? {
        let Some(generation) = Generation::of(field, wire_type) else {
            file.skip(wire_type, &previous)?;
            continue;
        };
        file.message(&mut bytes, generation, &previous)?;
        previous = layer(&bytes, generation, layers, visit)?;
        layers += 1;
    }
    if layers == 0 {
        return Err(not_caffe("it holds no layer".to_owned()));
    }
    Ok(())
}

/// Reads one layer and returns its name.
fn layer(
    bytes: &[u8],
    generation: Generation,
    number: usize,
    visit: &mut dyn FnMut(Blob) -> Result<(), LayerProblem>,
) -> Result<String, Problem> {
    let name = find_name(bytes, generation).unwrap_or_else(|| format!("number {number}, unnamed"));
    let result = blobs(bytes, generation).and_then(|blobs| {
        for (index, bytes) in blobs.into_iter().enumerate() {
            let (shape, values) = blob(index, bytes)?;
            visit(Blob {
                layer: &name,
                index,
                shape: &shape,
                values: &values,
            })?;
        }
        Ok(())
    });
    match result {
        Ok(()) => Ok(name),
        Err(problem) => Err(Problem::Layer(name, problem)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    V1,
    V2,
}

impl Generation {
    fn of(field: u32, wire_type: WireType) -> Option<Generation> {
        match (field, wire_type) {
            (2, WireType::LengthDelimited) => Some(Generation::V1),
            (100, WireType::LengthDelimited) => Some(Generation::V2),
            _ => None,
        }
    }

    fn name_field(self) -> u32 {
        match self {
            Generation::V1 => 4,
            Generation::V2 => 1,
        }
    }

    fn blobs_field(self) -> u32 {
        match self {
            Generation::V1 => 6,
            Generation::V2 => 7,
        }
    }
}

/// A layer's name, from all of its bytes or from the first of them.
fn find_name(bytes: &[u8], generation: Generation) -> Option<String> {
    let mut rest = bytes;
    let mut name = None;
    while let Ok(Some((field, wire_type, value))) = next_field(&mut rest) {
        if field == generation.name_field() && wire_type == WireType::LengthDelimited {
            // Shown to people: a hostile name should not fill their screen.
            name = Some(String::from_utf8_lossy(&value[..value.len().min(256)]).into_owned());
        }
    }
    name
}

/// The bytes of a layer's blobs.
fn blobs(bytes: &[u8], generation: Generation) -> Result<Vec<&[u8]>, LayerProblem> {
    let mut rest = bytes;
    let mut blobs = Vec::new();
    while let Some((field, wire_type, value)) = next_field(&mut rest)? {
        if field == generation.blobs_field() && wire_type == WireType::LengthDelimited {
            if blobs.len() == MOST_BLOBS {
                return Err(LayerProblem::ExtraBlob { index: MOST_BLOBS });
            }
            blobs.push(value);
        }
    }
    Ok(blobs)
}

/// Number, wire type, and, of a length-delimited one, the value.
type Field<'a> = (u32, WireType, &'a [u8]);

/// Takes one field off `rest`.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<Field<'a>>, LayerProblem> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (field, wire_type) = decode_key(rest).map_err(malformed)?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, field, rest, DecodeContext::default()).map_err(malformed)?;
        return Ok(Some((field, wire_type, &[])));
    }
    let declared = decode_varint(rest).map_err(malformed)?;
    let left = rest.len() as u64;
    if declared > left {
        return Err(LayerProblem::Malformed {
            reason: format!("field {field} declares {declared} bytes, and {left} are left"),
        });
    }
    let (value, after) = rest.split_at(declared as usize);
    *rest = after;
    Ok(Some((field, wire_type, value)))
}

fn malformed(error: prost::DecodeError) -> LayerProblem {
    LayerProblem::Malformed {
        reason: error.to_string(),
    }
}

/// Decodes one blob: its shape and its numbers.
fn blob(index: usize, bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), LayerProblem> {
    // A dimension takes one byte in the file and many in memory, so these are looked at first.
    let mut rest = bytes;
    let mut shape_bytes = 0;
    while let Some((field, _, value)) = next_field(&mut rest)? {
        if field == 7 {
            shape_bytes += value.len();
        }
    }
    if shape_bytes > LONGEST_SHAPE {
        return Err(LayerProblem::Malformed {
            reason: format!("the shape of blob {index} takes {shape_bytes} bytes"),
        });
    }
    let blob = BlobProto::decode(bytes).map_err(malformed)?;
    let legacy = [blob.num, blob.channels, blob.height, blob.width];
    let dimensions: Vec<i64> = if legacy.iter().any(Option::is_some) {
        legacy.iter().map(|n| n.unwrap_or(0).into()).collect()
    } else {
        blob.shape.unwrap_or_default().dim
    };
    let values = if blob.double_data.is_empty() {
        blob.data
    } else {
        blob.double_data.iter().map(|&value| value as f32).collect()
    };
    let mut shape = Vec::with_capacity(dimensions.len());
    let mut product = Some(1usize);
    for &n in &dimensions {
        let n = usize::try_from(n).map_err(|_| LayerProblem::Malformed {
            reason: format!("blob {index} has a dimension of {n}"),
        })?;
        product = product.and_then(|product| product.checked_mul(n));
        shape.push(n);
    }
    if product != Some(values.len()) {
        return Err(LayerProblem::OtherCount {
            index,
            shape,
            count: values.len(),
        });
    }
    Ok((shape, values))
}

#[derive(Clone, PartialEq, Message)]
struct BlobProto {
    // The shape as Caffe wrote it before 2014: four dimensions, whatever the blob.
    #[prost(int32, optional, tag = "1")]
    num: Option<i32>,
    #[prost(int32, optional, tag = "2")]
    channels: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    height: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    width: Option<i32>,
    #[prost(float, repeated, tag = "5")]
    data: Vec<f32>,
    #[prost(message, optional, tag = "7")]
    shape: Option<BlobShape>,
    #[prost(double, repeated, tag = "8")]
    double_data: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BlobShape {
    #[prost(int64, repeated, tag = "1")]
    dim: Vec<i64>,
}

/// The outermost message, read from the file as it goes.
struct Wire<'a, R> {
    reader: &'a mut R,
    position: u64,
    size: u64,
}

impl<R: Read + Seek> Wire<'_, R> {
    /// The next field's number and wire type, or None at the end of the file.
    fn key(&mut self, previous: &str) -> Result<Option<(u32, WireType)>, Problem> {
        if self.position == self.size {
            return Ok(None);
        }
        let key = self.varint(previous)?;
        let wire_type = WireType::try_from(key & 7);
        match (u32::try_from(key >> 3), wire_type) {
            (Ok(field), Ok(wire_type)) if field > 0 && field < 1 << 29 => {
                Ok(Some((field, wire_type)))
            }
            _ => Err(self.damaged(previous, "no field of a protobuf message begins")),
        }
    }

    fn varint(&mut self, previous: &str) -> Result<u64, Problem> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.position == self.size {
                return Err(self.damaged(previous, "the file ends in the middle of a field"));
            }
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged(previous, "a number is longer than 64 bits"))
    }

    fn skip(&mut self, wire_type: WireType, previous: &str) -> Result<(), Problem> {
        let length = match wire_type {
            WireType::Varint => return self.varint(previous).map(|_| ()),
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => self.varint(previous)?,
            WireType::StartGroup | WireType::EndGroup => {
                return Err(self.damaged(
                    previous,
                    "a protobuf group begins, which Caffe does not use",
                ));
            }
        };
        if length > self.size - self.position {
            return Err(self.damaged(previous, "the file ends in the middle of a field"));
        }
        self.position += length;
        self.reader.seek(SeekFrom::Start(self.position))?;
        Ok(())
    }

    /// Reads one layer into `bytes`, which is never made longer than what the file really holds.
    fn message(
        &mut self,
        bytes: &mut Vec<u8>,
        generation: Generation,
        previous: &str,
    ) -> Result<(), Problem> {
        let declared = self.varint(previous)?;
        let left = self.size - self.position;
        let read = declared.min(left).min(LONGEST_LAYER);
        bytes.clear();
        let problem = if declared > left {
            Some(LayerProblem::Truncated { declared, left })
        } else if declared > LONGEST_LAYER {
            Some(LayerProblem::TooLong {
                declared,
                limit: LONGEST_LAYER,
            })
        } else {
            None
        };
        if let Some(problem) = problem {
            // Enough to find its name, which stands before the blobs.
            self.reader.take(read.min(1 << 16)).read_to_end(bytes)?;
            return Err(match find_name(bytes, generation) {
                Some(name) => Problem::Layer(name, problem),
                None if previous.is_empty() => {
                    not_caffe(format!("its first layer has no name, and {problem}"))
                }
                None => Problem::Layer(format!("after {previous}"), problem),
            });
        }
        self.reader.take(read).read_to_end(bytes)?;
        if bytes.len() as u64 != read {
            return Err(self.damaged(previous, "the file became shorter while it was read"));
        }
        self.position += read;
        Ok(())
    }

    /// What the file is when `what` was found after the layer `previous`, which is empty before the first one.
    fn damaged(&self, previous: &str, what: &str) -> Problem {
        let reason = format!("at byte {}, {what}", self.position);
        match previous.is_empty() {
            true => not_caffe(reason),
            false => Problem::Damaged(previous.to_owned(), reason),
        }
    }
}

fn not_caffe(reason: String) -> Problem {
    Problem::Format(".caffemodel", reason)
}
