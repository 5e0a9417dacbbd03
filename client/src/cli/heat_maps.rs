//! Heat maps of the photographs about which a model is most wrong: the cluster computes them, of the images in a prepared dataset.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use fovea_core::spec::Part;
use fovea_dataset::{Dataset, Recipe, Sample, write_ungraded};
use fovea_predict::pair;
use fovea_report::WorstErrors;
use image::{ImageFormat, RgbImage};

use super::evaluate::computed;
use super::output::Output;
use super::predict::{check_maps, dataset_name, temporary_folder};
use super::sent::Sent;
use super::stoppable::stoppable;
use crate::client::Client;
use crate::error::Error;
use crate::evaluations::Views;
use crate::local::Signals;
use crate::view::RunInfo;

/// An image of the prepared dataset, as the network sees it.
type Record = Vec<u8>;

/// Adds a heat map to each of the `worst` errors. `folder` holds the dataset with this `digest`, which they are of.
///
/// # Errors
/// The folder holds another dataset, or it cannot be read; the cluster does not score the images.
pub async fn add(
    client: &Client,
    (run, step): (&RunInfo, u64),
    (folder, digest): (&Path, &str),
    worst: &mut WorstErrors,
    output: &Output,
) -> Result<(), Error> {
    if worst.all.is_empty() {
        return Ok(());
    }
    let (from, digest) = (folder.to_owned(), digest.to_owned());
    let wanted: Vec<String> = worst.all.iter().map(|error| error.image.clone()).collect();
    let (recipe, records) = computed(move || read(&from, &digest, &wanted)).await?;
    check_maps(&run.spec.model, records.len(), recipe.size())?;
    let name = dataset_name();
    // From here on, so that no signal leaves the folder there.
    let mut signals = Signals::listen()?;
    let temporary = temporary_folder()?;
    let set = temporary.path().join(name.as_str());
    let (made, to, with, of) = (name.clone(), set.clone(), recipe.clone(), records.clone());
    stoppable(&mut signals, output, move |_| {
        let written = write_ungraded(&to, made, &with, of);
        written.map(drop).map_err(|e| Error::Dataset(e.to_string()))
    })
    .await?;
    let sent = Sent {
        client,
        run,
        step,
        dataset: &name,
    };
    let views = Views {
        rotations: false,
        maps: true,
    };
    let (_, scores) = sent
        .score(&set, views, false, (&mut signals, output))
        .await?;
    for (at, (error, record)) in worst.all.iter_mut().zip(&records).enumerate() {
        let map = scores.map(at).ok_or_else(|| {
            Error::Protocol(format!("the heat map of {} is missing", error.image))
        })?;
        let photograph = photograph(record, recipe.size());
        let mut png = Cursor::new(Vec::new());
        pair(&photograph, &map)
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| Error::Dataset(format!("{}: {e}", error.image)))?;
        error.heat_map = Some(png.into_inner());
    }
    Ok(())
}

/// The images of the dataset in `folder` with these names, in this order.
fn read(folder: &Path, digest: &str, wanted: &[String]) -> Result<(Recipe, Vec<Record>), Error> {
    let fail =
        |problem: String| Error::Dataset(format!("--photographs {}: {problem}", folder.display()));
    let dataset = Dataset::open(folder).map_err(|e| Error::Dataset(e.to_string()))?;
    let manifest = dataset.manifest();
    if manifest.digest != digest {
        return Err(fail(format!(
            "it holds dataset {} ({}), and the photographs are of the one with digest {}: give the folder that was added",
            manifest.name,
            short(&manifest.digest),
            short(digest)
        )));
    }
    let recipe = Recipe::of(&manifest.pipeline(), None).map_err(|e| fail(e.to_string()))?;
    let by_name: HashMap<&str, &Sample> = dataset
        .index()
        .part(Part::All)
        .iter()
        .map(|sample| (sample.image.as_str(), sample))
        .collect();
    let records = wanted
        .iter()
        .map(|image| {
            let sample = by_name.get(image.as_str());
            let sample = sample.ok_or_else(|| fail(format!("it has no image {image}")))?;
            let pack = dataset.open_pack(sample.pack as usize);
            let pack = pack.map_err(|e| Error::Dataset(e.to_string()))?;
            let mut record = vec![0; manifest.record_bytes as usize];
            let read = pack.read(sample.record, &mut record);
            read.map_err(|e| Error::Dataset(e.to_string()))?;
            Ok(record)
        })
        .collect::<Result<_, Error>>()?;
    Ok((recipe, records))
}

/// An image as people see it: a record is blue, green, red.
fn photograph(record: &[u8], size: u32) -> RgbImage {
    let rgb = record
        .chunks_exact(3)
        .flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]);
    RgbImage::from_raw(size, size, rgb.collect()).expect("a record has three bytes for each pixel")
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
