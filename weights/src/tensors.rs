//! Safetensors, read tensor by tensor: `<layer>.weight` and `<layer>.bias` of F32, F16 or BF16.
//!
//! Fovea's own checkpoints are such files, so a run may start from another run's checkpoint; the
//! velocities in it have other names and are passed over.

use std::io::{Read, Seek, SeekFrom};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::error::{LayerProblem, Problem};
use super::source::Blob;

/// The longest table of contents that is read. GoogLeNet's takes 12 kB.
const LONGEST_HEADER: u64 = 16 << 20;

/// Streams the tensors of the file in `reader`, which is `size` bytes long.
pub(super) fn read<R: Read + Seek>(
    reader: &mut R,
    size: u64,
    visit: &mut dyn FnMut(Blob) -> Result<(), LayerProblem>,
) -> Result<(), Problem> {
    let mut length = [0; 8];
    reader.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > size - 8 {
        return Err(not_safetensors(format!(
            "its table of contents declares {length} bytes, in a file of {size}"
        )));
    }
    let mut header = Vec::new();
    reader.take(length).read_to_end(&mut header)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| not_safetensors(format!("its table of contents is damaged: {error}")))?;
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets.0);
    let start = 8 + length;
    let mut bytes = Vec::new();
    let mut values = Vec::new();
    for (name, info) in tensors {
        let Some((layer, index)) = layer_and_blob(&name) else {
            continue;
        };
        let problem = |problem| Problem::Layer(layer.to_string(), problem);
        let (begin, end) = info.data_offsets;
        let (begin, end) = (begin as u64, end as u64);
        let left = (size - start).saturating_sub(begin);
        if end < begin || end - begin > left {
            return Err(problem(LayerProblem::Truncated {
                declared: end.saturating_sub(begin),
                left,
            }));
        }
        reader.seek(SeekFrom::Start(start + begin))?;
        bytes.clear();
        reader.take(end - begin).read_to_end(&mut bytes)?;
        decode(index, info, &bytes, &mut values).map_err(problem)?;
        visit(Blob {
            layer,
            index,
            shape: &info.shape,
            values: &values,
        })
        .map_err(problem)?;
    }
    Ok(())
}

fn not_safetensors(reason: String) -> Problem {
    Problem::Format(".safetensors file", reason)
}

fn layer_and_blob(name: &str) -> Option<(&str, usize)> {
    match name.rsplit_once('.') {
        Some((layer, "weight")) => Some((layer, 0)),
        Some((layer, "bias")) => Some((layer, 1)),
        _ => None,
    }
}

fn decode(
    index: usize,
    info: &TensorInfo,
    bytes: &[u8],
    values: &mut Vec<f32>,
) -> Result<(), LayerProblem> {
    values.clear();
    let width = match info.dtype {
        Dtype::F32 => {
            let four = bytes.as_chunks::<4>().0;
            values.extend(four.iter().map(|&b| f32::from_le_bytes(b)));
            4
        }
        Dtype::F16 => {
            let two = bytes.as_chunks::<2>().0;
            values.extend(two.iter().map(|&b| from_half(u16::from_le_bytes(b))));
            2
        }
        Dtype::BF16 => {
            let two = bytes.as_chunks::<2>().0;
            let widened = two.iter().map(|&b| u32::from(u16::from_le_bytes(b)) << 16);
            values.extend(widened.map(f32::from_bits));
            2
        }
        other => {
            return Err(LayerProblem::OtherType {
                dtype: format!("{other:?}"),
            });
        }
    };
    let product = info.shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
    let count = bytes.len() / width;
    if product != Some(count) || !bytes.len().is_multiple_of(width) {
        return Err(LayerProblem::OtherCount {
            index,
            shape: info.shape.clone(),
            count,
        });
    }
    Ok(())
}

/// IEEE 754 binary16 to binary32, exactly.
fn from_half(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(half >> 10 & 0x1f);
    let fraction = f32::from(half & 0x3ff);
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}
