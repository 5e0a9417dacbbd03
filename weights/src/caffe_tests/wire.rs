//! Writing the wire format of protobuf, field by field.

/// A protobuf message under construction.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn varint(mut self, mut value: u64) -> Bytes {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub fn int(self, field: u64, value: i64) -> Bytes {
        self.varint(field << 3).varint(value as u64)
    }

    pub fn bytes(self, field: u64, value: &[u8]) -> Bytes {
        let mut out = self.varint(field << 3 | 2).varint(value.len() as u64);
        out.0.extend(value);
        out
    }

    pub fn packed(self, field: u64, values: &[f32]) -> Bytes {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(field, &raw)
    }

    pub fn unpacked(mut self, field: u64, values: &[f32]) -> Bytes {
        for value in values {
            self = self.varint(field << 3 | 5);
            self.0.extend(value.to_le_bytes());
        }
        self
    }

    pub fn doubles(self, field: u64, values: &[f32]) -> Bytes {
        let raw = values.iter().flat_map(|&v| f64::from(v).to_le_bytes());
        self.bytes(field, &raw.collect::<Vec<u8>>())
    }

    pub fn shape(self, dims: &[i64]) -> Bytes {
        let run = dims
            .iter()
            .fold(Bytes::default(), |b, &n| b.varint(n as u64));
        self.bytes(7, &Bytes::default().bytes(1, &run.0).0)
    }

    pub fn legacy(self, [n, c, h, w]: [i64; 4]) -> Bytes {
        self.int(1, n).int(2, c).int(3, h).int(4, w)
    }
}

pub fn v1(name: &str, blobs: &[Bytes]) -> Bytes {
    // With the fields that real files have around the ones of interest.
    let layer = Bytes::default()
        .bytes(2, b"bottom")
        .bytes(3, b"top")
        .bytes(4, name.as_bytes())
        .int(5, 4);
    let layer = blobs
        .iter()
        .fold(layer, |layer, blob| layer.bytes(6, &blob.0));
    layer.unpacked(7, &[1.0, 2.0]).unpacked(8, &[1.0, 0.0])
}

pub fn v2(name: &str, blobs: &[Bytes]) -> Bytes {
    let layer = Bytes::default()
        .bytes(1, name.as_bytes())
        .bytes(2, b"Convolution")
        .bytes(3, b"bottom")
        .bytes(106, &[8, 64, 18, 0]);
    blobs
        .iter()
        .fold(layer, |layer, blob| layer.bytes(7, &blob.0))
}
