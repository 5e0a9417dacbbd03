//! Crafted safetensors files.

use std::io::Write;
use std::path::Path;

use fovea_core::googlenet::{Network, ParamSpec, param_specs};
use tempfile::NamedTempFile;

use super::*;
use crate::testing::googlenet;

fn open(path: &Path) -> Result<Source, WeightsError> {
    Source::open(path)
}

fn specs() -> Vec<ParamSpec> {
    param_specs(2).into_iter().filter(|s| s.head).collect()
}

/// A file with this table of contents and these data.
fn file(header: &str, data: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(data).unwrap();
    file
}

fn head(dtype: &str, width: usize) -> String {
    let weight = 2048 * width;
    format!(
        r#"{{"loss3/classifier.weight":{{"dtype":"{dtype}","shape":[2,1024],"data_offsets":[0,{weight}]}},
        "loss3/classifier.bias":{{"dtype":"{dtype}","shape":[2],"data_offsets":[{weight},{}]}}}}"#,
        weight + 2 * width
    )
}

fn loaded(file: &NamedTempFile) -> Result<Vec<Vec<f32>>, String> {
    let mut set = Vec::new();
    load(
        &mut open(file.path()).unwrap(),
        &specs(),
        &[],
        &mut |_, values| set.push(values.to_vec()),
    )
    .map_err(|error| error.to_string())?;
    Ok(set)
}

/// Most files have none of the auxiliary heads' layers; one that is there is whole.
#[test]
fn layers_of_auxiliary_heads_are_optional() {
    let network = Network {
        auxiliary: true,
        ..Network::trunk(2)
    };
    let specs = param_specs(network);
    let classifiers = ["loss1/classifier", "loss2/classifier", "loss3/classifier"];
    let copied = |more: &[(&str, &[usize])]| {
        let bytes = googlenet(&[], |shapes| {
            shapes.extend(
                more.iter()
                    .map(|(name, shape)| ((*name).to_owned(), shape.to_vec())),
            );
        });
        let mut kept = NamedTempFile::new().unwrap();
        kept.write_all(&bytes).unwrap();
        load(
            &mut open(kept.path()).unwrap(),
            &specs,
            &classifiers,
            &mut |_, _| {},
        )
        .map(|loaded| loaded.copied)
        .map_err(|error| error.to_string())
    };
    let weight: (&str, &[usize]) = ("loss1/conv.weight", &[128, 512, 1, 1]);
    let bias: (&str, &[usize]) = ("loss1/conv.bias", &[128]);
    assert_eq!(copied(&[]).unwrap().len(), 57);
    let with_one = copied(&[weight, bias]).unwrap();
    assert_eq!(with_one.len(), 58);
    assert!(with_one.contains(&"loss1/conv".to_owned()));
    let error = copied(&[weight]).unwrap_err();
    assert!(error.contains("loss1/conv"), "{error}");
    let error = copied(&[("loss1/conv.weight", &[128, 513, 1, 1]), bias]).unwrap_err();
    assert!(error.contains("loss1/conv"), "{error}");
}

#[test]
fn double_single_half_and_brain_floats() {
    let expected = |i: usize| [0.0, 1.0, -2.5, 0.125][i % 4];
    type Encode = fn(f32) -> Vec<u8>;
    let encodings: [(&str, usize, Encode); 4] = [
        ("F64", 8, |v| f64::from(v).to_le_bytes().to_vec()),
        ("F32", 4, |v| v.to_le_bytes().to_vec()),
        ("BF16", 2, |v| v.to_le_bytes()[2..].to_vec()),
        ("F16", 2, |v| {
            let half: u16 = match v {
                0.0 => 0,
                1.0 => 0x3c00,
                -2.5 => 0xc100,
                _ => 0x3000,
            };
            half.to_le_bytes().to_vec()
        }),
    ];
    for (dtype, width, encode) in encodings {
        let data: Vec<u8> = (0..2050).flat_map(|i| encode(expected(i))).collect();
        let set = loaded(&file(&head(dtype, width), &data)).unwrap();
        let all: Vec<f32> = set.concat();
        assert_eq!(all, (0..2050).map(expected).collect::<Vec<_>>(), "{dtype}");
    }
}

#[test]
fn halves_at_the_edges() {
    for (half, value) in [
        (0x0001u16, 2f32.powi(-24)),
        (0x03ff, 1023.0 * 2f32.powi(-24)),
        (0x0400, 2f32.powi(-14)),
        (0x7bff, 65504.0),
        (0x8000, 0.0),
    ] {
        let mut data = half.to_le_bytes().repeat(2050);
        assert_eq!(loaded(&file(&head("F16", 2), &data)).unwrap()[0][0], value);
        data[0..2].copy_from_slice(&0x7c00u16.to_le_bytes());
        let error = loaded(&file(&head("F16", 2), &data)).unwrap_err();
        assert!(error.contains("not finite"), "{error}");
    }
}

#[test]
fn other_tensors_are_passed_over() {
    let header = head("F32", 4).replacen(
        '{',
        r#"{"other.weight":{"dtype":"I64","shape":[1],"data_offsets":[8216,8224]},
        "mine.bias":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[8224,8232]},
        "__metadata__":{"step":"7"},"optimizer/velocity/loss3/classifier.bias":
        {"dtype":"F32","shape":[2],"data_offsets":[8200,8208]},"step":
        {"dtype":"I64","shape":[],"data_offsets":[8208,8216]},"#,
        1,
    );
    let set = loaded(&file(&header, &[0; 8232])).unwrap();
    assert_eq!(set.len(), 2);
}

#[test]
fn tensors_of_normalisation_are_refused() {
    for name in [
        "features.bn.running_var",
        "loss3/classifier.norm.weight",
        "x.gamma",
    ] {
        let header = head("F32", 4).replacen(
            '{',
            &format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[8200,8208]}},"#),
            1,
        );
        let error = loaded(&file(&header, &[0; 8208])).unwrap_err();
        assert!(
            error.contains("BVLC GoogLeNet has no such layer"),
            "{error}"
        );
    }
}

#[test]
fn damage_is_named() {
    let cases = [
        (
            file(&head("I32", 4), &[0; 8200]),
            "layer loss3/classifier: its numbers are of type I32",
        ),
        (
            file(&head("F32", 4), &[0; 8000]),
            "layer loss3/classifier: it declares 8192 bytes",
        ),
        (
            file(&head("F32", 4).replace("[2,1024]", "[2,1023]"), &[0; 8200]),
            "table of contents is damaged",
        ),
        (
            file(&head("F32", 4).replace("[2,1024]", "[1024,2]"), &[0; 8200]),
            "its weight has the shape [1024, 2]",
        ),
        (
            file(
                &head("F32", 4).replace("classifier.bias", "classifier.offset"),
                &[0; 8200],
            ),
            "has no bias of layer loss3/classifier",
        ),
        (file("{\"a\":", &[]), "table of contents is damaged"),
        (
            file(
                &head("F32", 4).replace("8192", "18446744073709551615"),
                &[0; 8200],
            ),
            "",
        ),
    ];
    for (file, expected) in cases {
        let error = loaded(&file).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let mut lying = NamedTempFile::new().unwrap();
    lying.write_all(&u64::MAX.to_le_bytes()).unwrap();
    lying.write_all(b"{}").unwrap();
    let error = loaded(&lying).unwrap_err();
    assert!(error.contains("table of contents declares"), "{error}");
}

#[test]
fn what_is_no_regular_file_is_refused_by_name_and_never_waited_for() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo.safetensors");
    let name = std::ffi::CString::new(fifo.as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string that lives.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, said) in [
        (fifo.as_path(), "is a FIFO, not a regular file"),
        (dir.path(), "is a folder"),
        (Path::new("/dev/null"), "is a device"),
    ] {
        let error = open(path).unwrap_err();
        assert!(matches!(error, WeightsError::NotRegular { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(said) && text.contains(path.to_str().unwrap()),
            "{text}"
        );
    }
    // The system itself does not open a socket.
    assert!(open(&socket).is_err());
}
