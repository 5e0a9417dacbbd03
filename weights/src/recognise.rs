//! Files that people take for weights, told by their first bytes.

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

/// How many bytes are looked at.
pub(super) const START: u64 = 4096;

/// What a file is and what to do, by its first bytes; None if it may be a `.caffemodel` or `.safetensors`.
pub(super) fn other_kind(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let by_magic = MAGIC.iter().find(|kind| {
        let at = start.get(kind.at..).unwrap_or_default();
        at.starts_with(kind.magic)
    });
    let named = |kind: &Kind| (kind.name, kind.advice);
    by_magic
        .map(named)
        .or_else(|| text(start))
        .or_else(|| protobuf(start))
}

struct Kind {
    at: usize,
    magic: &'static [u8],
    name: &'static str,
    advice: &'static str,
}

const fn kind(at: usize, magic: &'static [u8], name: &'static str, advice: &'static str) -> Kind {
    Kind {
        at,
        magic,
        name,
        advice,
    }
}

const UNPACK: &str = "unpack it and give the .caffemodel or .safetensors file in it";
const CONVERT: &str = "save its tensors as .safetensors, named LAYER.weight and LAYER.bias with Caffe's names of layers";

const MAGIC: [Kind; 15] = [
    kind(
        0,
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, such as Caffe's .caffemodel.h5",
        "save it as .caffemodel: load it in Caffe and call `net.save(\"weights.caffemodel\")`",
    ),
    kind(
        0,
        b"PK\x03\x04",
        "a zip archive; PyTorch's .pt and .pth files and NumPy's .npz are such, too",
        "unpack it if a .caffemodel or .safetensors file is in it; else save the tensors as .safetensors, named LAYER.weight and \
         LAYER.bias with Caffe's names of layers",
    ),
    kind(0, b"\x1f\x8b", "a gzip archive", UNPACK),
    kind(0, b"BZh", "a bzip2 archive", UNPACK),
    kind(0, b"\xfd7zXZ\0", "an xz archive", UNPACK),
    kind(0, b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    kind(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    kind(0, b"Rar!", "a RAR archive", UNPACK),
    kind(257, b"ustar", "a tar archive", UNPACK),
    kind(
        0,
        b"\x80\x02",
        "a Python pickle, such as old .pth files",
        CONVERT,
    ),
    kind(0, b"\x80\x03", "a Python pickle", CONVERT),
    kind(0, b"\x80\x04", "a Python pickle", CONVERT),
    kind(0, b"\x93NUMPY", "a NumPy array", CONVERT),
    kind(0, b"\x89PNG", "a picture", "give the network's weights"),
    kind(
        0,
        b"\xff\xd8\xff",
        "a picture",
        "give the network's weights",
    ),
];

fn text(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    if text.is_empty() || !text.chars().all(printable) {
        return None;
    }
    let first = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |with: &str| {
        first
            .get(..with.len())
            .is_some_and(|f| f.eq_ignore_ascii_case(with))
    };
    if begins("version https://git-lfs") {
        Some((
            "a pointer of Git LFS",
            "fetch the file itself with `git lfs pull`",
        ))
    } else if begins("<!doctype") || begins("<html") || begins("<?xml") {
        Some((
            "a web page",
            "the download gave a page instead of the file; download it again",
        ))
    } else if ["layer", "layers"].iter().any(|word| {
        text.lines().any(|line| {
            line.trim_start()
                .strip_prefix(word)
                .is_some_and(|l| l.trim_start().starts_with('{'))
        })
    }) || begins("name:")
        || begins("net:")
    {
        Some((
            "a .prototxt: the text that describes a network, without its weights",
            "give the .caffemodel that belongs to it",
        ))
    } else {
        Some((
            "a text file",
            "give a .caffemodel (binary) or a .safetensors file",
        ))
    }
}

/// Other messages of Caffe, and ONNX: they, too, are protobuf.
fn protobuf(start: &[u8]) -> Option<(&'static str, &'static str)> {
    use Value::{Bytes, Number};
    let mut fields = Fields { rest: start };
    match (fields.next()?, fields.next()?) {
        // BlobProto: num, channels, ..., data.
        ((1, Number(_)), (2, Number(_))) => Some((
            "a single array of Caffe, such as a mean image (.binaryproto)",
            "give the .caffemodel: Fovea subtracts BVLC GoogLeNet's own mean",
        )),
        // SolverState: iter, learned_net.
        ((1, Number(_)), (2, Bytes(path)))
            if path.ends_with(b".caffemodel") || path.ends_with(b".h5") =>
        {
            Some((
                "a .solverstate of Caffe: the solver's history, without the weights",
                "give the .caffemodel that was saved with it",
            ))
        }
        // ModelProto: ir_version, producer_name or a later field.
        ((1, Number(1..=64)), (2..=8, Bytes(_))) => Some(("an ONNX file", CONVERT)),
        _ => None,
    }
}

enum Value<'a> {
    Number(u64),
    /// As many as are at hand.
    Bytes(&'a [u8]),
}

/// The fields of a message whose end may be cut off.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (field, wire_type) = decode_key(&mut self.rest).ok()?;
        match wire_type {
            WireType::Varint => Some((field, Value::Number(decode_varint(&mut self.rest).ok()?))),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.rest).ok()?;
                let length = usize::try_from(length).ok()?.min(self.rest.len());
                let value = &self.rest[..length];
                self.rest.advance(length);
                Some((field, Value::Bytes(value)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(start: &[u8]) -> &'static str {
        other_kind(start).map_or("", |(name, _)| name)
    }

    #[test]
    fn each_is_named_for_what_it_is() {
        let mut tar = vec![b'a'; 600];
        tar[10] = 0;
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], &str); 19] = [
            (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
            (b"PK\x03\x04\x14\0", "zip"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\xfd7zXZ\0\0", "xz"),
            (&tar, "tar"),
            (b"\x80\x02\x8a\nl\xfc\x9c", "pickle"),
            (b"\x93NUMPY\x01\0v\0", "NumPy"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "picture"),
            (b"name: \"GoogleNet\"\nlayer {", "prototxt"),
            (b"# the solver\nnet: \"train.prototxt\"", "text"),
            (b"# mine\nlayers {\n", "prototxt"),
            (b"net: \"train_val.prototxt\"\nbase_lr: 0.01", "prototxt"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"\r\n<!DOCTYPE html><html>", "web page"),
            (b"image,level\n", "text"),
            ("Gewichte f\u{fc}r".as_bytes(), "text"),
            // num 1, channels 3, height 2, width 2, data
            (
                b"\x08\x01\x10\x03\x18\x02\x20\x02\x2a\x30\0\0\0\0",
                "mean image",
            ),
            (b"\x08\xe8\x07\x12\x0c1.caffemodel\x1a\0", "solverstate"),
            (b"\x08\x07\x12\x07pytorch\x1a\x032.1:", "ONNX"),
        ];
        for (start, expected) in cases {
            assert!(
                name(start).contains(expected),
                "{expected}: {}",
                name(start)
            );
        }
    }

    #[test]
    fn weights_and_garbage_are_left_to_their_readers() {
        let cases: [&[u8]; 5] = [
            b"",
            b"\n\tGoogleNet\x12\xbc\xa8\x02\x1a\x0cconv1/7x7_s2",
            b"\x40\0\0\0\0\0\0\0{\"a\":1}",
            &[0xff; 64],
            b"\x12\x64, not",
        ];
        for start in cases {
            assert_eq!(other_kind(start), None, "{start:?}");
        }
    }
}
