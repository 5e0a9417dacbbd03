//! Caffe's binary `NetParameter` (.caffemodel), read layer by layer.
//!
//! Field numbers are those of BVLC/caffe `src/caffe/proto/caffe.proto`. Both generations of layers are
//! read: V1 (`layers = 2`: bottom 2, top 3, name 4, blobs 6) and V2 (`layer = 100`: name 1, type 2, bottom 3, top 4,
//! blobs 7); other fields are skipped. The blobs themselves are decoded by prost, which takes packed and unpacked runs and runs
//! in several pieces. NVIDIA's Caffe, which DIGITS uses, keeps a blob's numbers in `raw_data` (12) of the type
//! `raw_data_type` (10: 0 double, 1 float, 2 half precision).

use std::io::{Read, Seek, SeekFrom};

use half::f16;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::error::{LayerProblem, Problem};
use super::source::{Blob, Head, Visit};

/// The longest layer that is read. GoogLeNet's takes 8 MiB; others are read so that an error can say what is missing.
const LONGEST_LAYER: u64 = 256 << 20;
/// The most blobs that a layer may have; no layer of Caffe has more than five.
const MOST_BLOBS: usize = 8;
/// The most inputs or outputs of a layer; GoogLeNet's have four.
const MOST_NAMES: usize = 256;
/// The most bytes that a blob's shape may take: 32 dimensions are Caffe's limit.
const LONGEST_SHAPE: usize = 512;

/// Streams the blobs of the file in `reader`, which is `size` bytes long.
pub(super) fn read<R: Read + Seek>(
    reader: &mut R,
    size: u64,
    visit: &mut dyn Visit,
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
    visit: &mut dyn Visit,
) -> Result<String, Problem> {
    let named = find_name(bytes, generation);
    let name = named.unwrap_or_else(|| format!("number {number}, unnamed"));
    let result = Parts::of(bytes, generation).and_then(|parts| {
        let head = Head {
            layer: &name,
            kind: &parts.kind,
            bottoms: &parts.bottoms,
            tops: &parts.tops,
            blobs: parts.blobs.len(),
        };
        if !visit.head(head)? {
            return Ok(());
        }
        for (index, bytes) in parts.blobs.into_iter().enumerate() {
            let (shape, values) = blob(index, bytes)?;
            visit.blob(Blob {
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

    /// Fields of the kind, the inputs, the outputs and the blobs.
    fn fields(self) -> (u32, u32, u32, u32) {
        match self {
            Generation::V1 => (5, 2, 3, 6),
            Generation::V2 => (2, 3, 4, 7),
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

/// The parts of a layer but its name.
#[derive(Default)]
struct Parts<'a> {
    kind: String,
    bottoms: Vec<String>,
    tops: Vec<String>,
    blobs: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8], generation: Generation) -> Result<Self, LayerProblem> {
        let (kind, bottoms, tops, blobs) = generation.fields();
        let text =
            |value: &[u8]| String::from_utf8_lossy(&value[..value.len().min(256)]).into_owned();
        let mut parts = Self::default();
        let mut rest = bytes;
        while let Some((field, wire_type, value)) = next_field(&mut rest)? {
            if field == kind && wire_type == WireType::Varint {
                let mut value = value;
                parts.kind = kind_of_v1(decode_varint(&mut value).map_err(malformed)?).into();
            }
            if wire_type != WireType::LengthDelimited {
                continue;
            }
            if field == kind {
                parts.kind = text(value);
            } else if field == bottoms || field == tops {
                let names = match field == bottoms {
                    true => &mut parts.bottoms,
                    false => &mut parts.tops,
                };
                if names.len() == MOST_NAMES {
                    return Err(LayerProblem::Malformed {
                        reason: format!("it has more than {MOST_NAMES} inputs or outputs"),
                    });
                }
                names.push(text(value));
            } else if field == blobs {
                if parts.blobs.len() == MOST_BLOBS {
                    return Err(LayerProblem::ExtraBlob { index: MOST_BLOBS });
                }
                parts.blobs.push(value);
            }
        }
        Ok(parts)
    }
}

/// The name in V2 of the kinds of V1 (`V1LayerParameter.LayerType`) that change what others compute; "" for all others.
fn kind_of_v1(number: u64) -> &'static str {
    match number {
        2 => "BNLL",
        19 => "Sigmoid",
        23 => "TanH",
        25 => "Eltwise",
        26 => "Power",
        34 => "MVN",
        35 => "AbsVal",
        38 => "Exp",
        _ => "",
    }
}

/// Number, wire type, and the value: of a length-delimited one its content, of another its bytes.
type Field<'a> = (u32, WireType, &'a [u8]);

/// Takes one field off `rest`.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<Field<'a>>, LayerProblem> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (field, wire_type) = decode_key(rest).map_err(malformed)?;
    if wire_type != WireType::LengthDelimited {
        let whole = *rest;
        skip_field(wire_type, field, rest, DecodeContext::default()).map_err(malformed)?;
        let (value, _) = whole.split_at(whole.len() - rest.len());
        return Ok(Some((field, wire_type, value)));
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
    let values = if !blob.double_data.is_empty() {
        blob.double_data.iter().map(|&value| value as f32).collect()
    } else if let Some(raw) = &blob.raw_data {
        raw_values(index, blob.raw_data_type.unwrap_or(0), raw)?
    } else {
        blob.data
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

/// The numbers of NVIDIA's Caffe.
fn raw_values(index: usize, kind: i32, raw: &[u8]) -> Result<Vec<f32>, LayerProblem> {
    let (values, left): (Vec<f32>, &[u8]) = match kind {
        0 => {
            let (eight, left) = raw.as_chunks::<8>();
            (
                eight
                    .iter()
                    .map(|&b| f64::from_le_bytes(b) as f32)
                    .collect(),
                left,
            )
        }
        1 => {
            let (four, left) = raw.as_chunks::<4>();
            (four.iter().map(|&b| f32::from_le_bytes(b)).collect(), left)
        }
        2 => {
            let (two, left) = raw.as_chunks::<2>();
            (
                two.iter()
                    .map(|&b| f16::from_le_bytes(b).to_f32())
                    .collect(),
                left,
            )
        }
        other => {
            return Err(LayerProblem::OtherType {
                dtype: format!("{other} of NVIDIA's Caffe"),
            });
        }
    };
    match left {
        [] => Ok(values),
        left => Err(LayerProblem::Malformed {
            reason: format!("blob {index} ends {} bytes after a number", left.len()),
        }),
    }
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
    #[prost(int32, optional, tag = "10")]
    raw_data_type: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "12")]
    raw_data: Option<Vec<u8>>,
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
