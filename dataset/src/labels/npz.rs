//! RetinaMNIST: labels and pictures in one archive of NumPy arrays.
//!
//! The arrays are `{train,val,test}_images` (N x S x S x 3 bytes, red first) and `..._labels` (N x 1). Images
//! get the names `train_0000`, `val_0000`, `test_0000`. They come from DeepDRiD: four of a patient, who
//! is not told, and `train` and `val` were cut apart by image, so that patients are in both. Only `test` has other
//! patients: it is held out, and the others are trained on.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use image::RgbImage;
use npyz::{NpyFile, Order};
use zip::ZipArchive;

use crate::Split;
use crate::crop::{self, MIN_SIDE};

/// An archive of which the labels were read.
pub(crate) struct Archive {
    /// The images in order: name, label, side.
    pub images: Vec<(String, String, Split)>,
    parts: Vec<Part>,
    zip: ZipArchive<BufReader<File>>,
}

struct Part {
    name: &'static str,
    images: usize,
}

/// The parts, and on which side of the split they are.
const PARTS: [(&str, Split); 3] = [
    ("train", Split::Train),
    ("val", Split::Train),
    ("test", Split::Validation),
];
/// Side that very small pictures are enlarged to, in pixels.
const ENLARGED: u32 = 224;
/// Largest array that is read, in bytes: RetinaMNIST at 224 px has 163 MB.
const MAX_BYTES: u64 = 1 << 30;

impl Archive {
    /// Opens the archive at `path` and reads its labels.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut zip = ZipArchive::new(BufReader::new(File::open(path)?)).map_err(invalid)?;
        let (mut images, mut parts) = (Vec::new(), Vec::new());
        for (name, split) in PARTS {
            let array = format!("{name}_labels");
            let (shape, labels) = bytes(&mut zip, &array)?;
            if shape.len() > 2 || shape.get(1).is_some_and(|n| *n != 1) {
                return Err(invalid(format!(
                    "{array} has the shape {shape:?}; expected N x 1"
                )));
            }
            parts.push(Part {
                name,
                images: labels.len(),
            });
            let named = labels
                .iter()
                .enumerate()
                .map(|(i, label)| (format!("{name}_{i:04}"), label.to_string(), split));
            images.extend(named);
        }
        Ok(Self { images, parts, zip })
    }

    /// Passes every picture with its name to `write`. Those that are smaller than any photograph that is read, as the edition of
    /// 28 pixels has them, are enlarged bilinearly; then their size is returned.
    pub fn pictures<E: From<io::Error>>(
        &mut self,
        mut write: impl FnMut(&str, RgbImage) -> Result<(), E>,
    ) -> Result<Option<[u32; 2]>, E> {
        let mut enlarged = None;
        for part in &self.parts {
            let array = format!("{}_images", part.name);
            let (shape, pixels) = bytes(&mut self.zip, &array)?;
            let [count, height, width, 3] = shape[..] else {
                return Err(invalid(format!(
                    "{array} has the shape {shape:?}; expected N x S x S x 3"
                ))
                .into());
            };
            if count != part.images as u64 {
                let labels = part.images;
                return Err(
                    invalid(format!("{array} has {count} pictures for {labels} labels")).into(),
                );
            }
            let small = width.min(height) < u64::from(MIN_SIDE);
            if small {
                enlarged = Some([width as u32, height as u32]);
            }
            let size = (width * height * 3) as usize;
            for (i, picture) in pixels.chunks_exact(size).enumerate() {
                let picture = RgbImage::from_raw(width as u32, height as u32, picture.to_vec());
                let picture = picture.ok_or_else(|| invalid("a picture is incomplete"))?;
                let picture = if small { enlarge(&picture) } else { picture };
                write(&format!("{}_{i:04}", part.name), picture)?;
            }
        }
        Ok(enlarged)
    }
}

/// A picture enlarged by a whole number, so that it has [`ENLARGED`] pixels a side or a little more.
fn enlarge(picture: &RgbImage) -> RgbImage {
    let frame = crop::frame(picture.width(), picture.height());
    let side = frame.side.max(1);
    crop::extract(picture, &frame, side * ENLARGED.div_ceil(side))
}

/// The shape and the values of an array of bytes.
fn bytes(zip: &mut ZipArchive<BufReader<File>>, array: &str) -> io::Result<(Vec<u64>, Vec<u8>)> {
    let fail = |problem: String| invalid(format!("{array}: {problem}"));
    let file = zip
        .by_name(&format!("{array}.npy"))
        .map_err(|e| fail(e.to_string()))?;
    let npy = NpyFile::new(file).map_err(|e| fail(e.to_string()))?;
    let shape = npy.shape().to_vec();
    let size = shape.iter().try_fold(1u64, |size, n| size.checked_mul(*n));
    if size.is_none_or(|size| size == 0 || size > MAX_BYTES) {
        return Err(fail(format!("the shape {shape:?} is empty or too large")));
    }
    if npy.order() != Order::C || npy.dtype().descr() != "'|u1'" {
        let kind = npy.dtype().descr();
        return Err(fail(format!(
            "it holds {kind}; expected bytes ('|u1') in C order"
        )));
    }
    let mut values = Vec::new();
    let size = size.unwrap_or_default();
    npy.into_inner().take(size).read_to_end(&mut values)?;
    if values.len() as u64 != size {
        return Err(fail("it ends early".to_owned()));
    }
    Ok((shape, values))
}

fn invalid(problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
