//! Safetensors, read tensor by tensor: `<layer>.weight` and `<layer>.bias` of F64, F32, F16 or BF16.
//!
//! Fovea's own checkpoints are such files, so a run may start from another run's checkpoint; the
//! velocities in it have other names and are passed over, as is any other tensor, whatever its type.

use std::io::{Read, Seek, SeekFrom};

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::error::{LayerProblem, Problem};
use super::source::{Blob, Head, Visit};

/// The longest table of contents that is read. GoogLeNet's takes 12 kB.
const LONGEST_HEADER: u64 = 16 << 20;

/// Streams the tensors of the file in `reader`, which is `size` bytes long.
pub(super) fn read<R: Read + Seek>(
    reader: &mut R,
    size: u64,
    visit: &mut dyn Visit,
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
    if let Some(said) = metadata.metadata() {
        visit.metadata(said);
    }
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets.0);
    let start = 8 + length;
    let mut bytes = Vec::new();
    let mut values = Vec::new();
    for (name, info) in tensors {
        let (layer, kind) = name.rsplit_once('.').unwrap_or((&name, ""));
        let index = match kind {
            "weight" => Some(0),
            "bias" => Some(1),
            _ => None,
        };
        let problem = |problem| Problem::Layer(layer.to_string(), problem);
        let head = Head {
            layer,
            kind: if index.is_some() { "" } else { kind },
            bottoms: &[],
            tops: &[],
            blobs: usize::from(index.is_some()),
        };
        let wanted = visit.head(head).map_err(problem)?;
        let Some(index) = index.filter(|_| wanted) else {
            continue;
        };
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
        let blob = Blob {
            layer,
            index,
            shape: &info.shape,
            values: &values,
        };
        visit.blob(blob).map_err(problem)?;
    }
    Ok(())
}

fn not_safetensors(reason: String) -> Problem {
    Problem::Format(".safetensors file", reason)
}

fn decode(
    index: usize,
    info: &TensorInfo,
    bytes: &[u8],
    values: &mut Vec<f32>,
) -> Result<(), LayerProblem> {
    values.clear();
    let width = match info.dtype {
        Dtype::F64 => {
            let eight = bytes.as_chunks::<8>().0;
            values.extend(eight.iter().map(|&b| f64::from_le_bytes(b) as f32));
            8
        }
        Dtype::F32 => {
            let four = bytes.as_chunks::<4>().0;
            values.extend(four.iter().map(|&b| f32::from_le_bytes(b)));
            4
        }
        Dtype::F16 => {
            let two = bytes.as_chunks::<2>().0;
            values.extend(two.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
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
