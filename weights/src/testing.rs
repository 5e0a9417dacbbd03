//! Crafted files of GoogLeNet's weights. Tests of other crates include this file, too.

use fovea_core::googlenet::{HEAD, param_specs};

/// The bytes of a `.safetensors` file of zeros in bfloat16, 12 MB, with every layer of the network but the classifier, and
/// `more` layers of two numbers each. `change` is given the names and shapes before they are written.
pub fn googlenet(more: &[&str], change: impl FnOnce(&mut Vec<(String, Vec<usize>)>)) -> Vec<u8> {
    let mut shapes: Vec<(String, Vec<usize>)> = param_specs(2)
        .into_iter()
        .filter(|spec| spec.layer != HEAD)
        .map(|spec| (spec.name, spec.shape))
        .collect();
    shapes.extend(more.iter().map(|layer| (format!("{layer}.bias"), vec![2])));
    change(&mut shapes);
    let mut entries = Vec::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        entries.push(format!(
            r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + end, 0);
    bytes
}

/// The same file with metadata in its header.
#[allow(dead_code)]
pub fn with_metadata(file: &[u8], metadata: &[(&str, &str)]) -> Vec<u8> {
    let (length, rest) = file.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = std::str::from_utf8(header).expect("UTF-8");
    let said: Vec<String> = metadata
        .iter()
        .map(|(key, value)| format!("{key:?}:{value:?}"))
        .collect();
    let header = format!("{{\"__metadata__\":{{{}}},{}", said.join(","), &header[1..]);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}
