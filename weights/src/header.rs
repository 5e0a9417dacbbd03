//! The header of a safetensors file, in a fixed order: the library's own writer shuffles the metadata, and equal content
//! must give equal files.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorInfo};

/// The first bytes of the file: the header's length (8 bytes, little-endian), then the header, padded so that the data is
/// aligned to 8 bytes. `tensors` are name and shape of 32-bit floats, in the order of the data, without gaps.
///
/// # Errors
/// A text cannot be written as JSON.
pub fn header<'a>(
    metadata: &BTreeMap<&str, String>,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> serde_json::Result<Vec<u8>> {
    let mut json = String::from("{\"__metadata__\":");
    json.push_str(&serde_json::to_string(metadata)?);
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data_offsets: (begin, end),
        };
        json.push_str(&format!(
            ",{}:{}",
            serde_json::to_string(name)?,
            serde_json::to_string(&info)?
        ));
    }
    json.push('}');
    let mut json = json.into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok(bytes)
}
