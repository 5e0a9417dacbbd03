//! `fovea-worker features`: what the frozen network puts out before its classifier, for classical classifiers.
//!
//! One safetensors file with the tensor `features`, f32 `[photographs, 1024]`, in the order of the dataset's index (training,
//! validation, test). Its metadata: `fovea_features` (the version, 1), `dataset_digest`, `layer`, `weights_sha256`. `fovea
//! baseline --features cnn` reads it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fovea_core::count::count;
use fovea_core::googlenet::{FlatLayout, HEAD, ParamSpec, param_specs};
use fovea_core::pipeline::Pipeline;
use fovea_core::spec::Part;
use fovea_dataset::{Dataset, DatasetError};
use fovea_predict::files::{self, FileError};
use fovea_weights::{Source, WeightsError, load};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::device::MEANS;
use crate::model::{Net, channels_last};

/// The layer whose output the classifier gets.
pub const LAYER: &str = "pool5/7x7_s1";

/// The arguments of `fovea-worker features`.
#[derive(Debug, Clone, clap::Args)]
pub struct Features {
    /// The folder of a prepared dataset
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,
    /// The network's weights: .caffemodel or .safetensors
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// The file to write, ending in .safetensors
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub overwrite: bool,
}

/// Why there are no features.
#[derive(Debug, thiserror::Error)]
pub enum FeaturesError {
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file to write.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// What should be the folder of a dataset is a file.
    #[error("{}: it is a file; give the folder of a prepared dataset", path.display())]
    DatasetFile { path: PathBuf },
    /// The file's name does not say what is in it.
    #[error("{}: what is written is safetensors: give a name that ends in .safetensors", path.display())]
    Ending { path: PathBuf },
    /// The network would see photographs that were made in another way.
    #[error(
        "weights {} were learnt from photographs prepared as {then}, and dataset {} has them as {now}: prepare it again in the same \
         way, or take other weights",
        weights.display(), dataset.display()
    )]
    Pipeline {
        weights: PathBuf,
        then: String,
        dataset: PathBuf,
        now: String,
    },
    /// The network or the header could not be made.
    #[error("{0}")]
    Internal(String),
}

/// Computes the features of all photographs of a dataset and writes them; says on standard error what it wrote. `done` is told how
/// many of how many there are.
///
/// # Errors
/// Dataset or weights cannot be used, or the file not be written; then there is none.
pub fn write(
    of: &Features,
    device: Device,
    done: &mut dyn FnMut(usize, usize),
) -> Result<(), FeaturesError> {
    check(of)?;
    let mut source = Source::open(&of.weights)?;
    let dataset = Dataset::open(&of.dataset)?;
    let sha256 = digest(&of.weights).map_err(|e| io_error(&of.weights, e))?;
    let (net, pipeline) = network(&mut source, device)?;
    let manifest = dataset.manifest();
    let now = manifest.pipeline();
    if let Some(then) = pipeline.filter(|then| !then.continues_on(&now)) {
        return Err(FeaturesError::Pipeline {
            weights: of.weights.clone(),
            then: then.to_string(),
            dataset: of.dataset.clone(),
            now: now.to_string(),
        });
    }
    dataset.verify()?;
    let size = i64::from(manifest.image_size);
    let means = Tensor::from_slice(&MEANS).to_device(device);
    let packs = (0..manifest.packs.len())
        .map(|pack| dataset.open_pack(pack))
        .collect::<Result<Vec<_>, _>>()
        .map_err(DatasetError::from)?;
    let part = dataset.index().part(Part::All);
    let mut record = vec![0; manifest.record_bytes as usize];
    let mut values: Vec<u8> = Vec::new();
    for (number, sample) in part.iter().enumerate() {
        packs[sample.pack as usize]
            .read(sample.record, &mut record)
            .map_err(DatasetError::from)?;
        // One at a time: what a photograph gives does not depend on its neighbours.
        let pixels = Tensor::from_slice(&record).view([1, size, size, 3]);
        let input = (pixels.to_device(device).to_kind(Kind::Float) - &means).permute([0, 3, 1, 2]);
        let features = observed(&net, &channels_last(&input))?;
        values.extend(features.iter().flat_map(|v| v.to_le_bytes()));
        done(number + 1, part.len());
    }
    let metadata = BTreeMap::from([
        ("fovea_features", "1".to_owned()),
        ("dataset_digest", manifest.digest.clone()),
        ("layer", LAYER.to_owned()),
        ("weights_sha256", sha256),
    ]);
    let rows = part.len();
    let shape = [rows, values.len() / 4 / rows.max(1)];
    let header = fovea_weights::header(&metadata, [("features", &shape[..])])
        .map_err(|e| FeaturesError::Internal(e.to_string()))?;
    files::write_whole(&of.out, of.overwrite, &[header, values].concat())?;
    eprintln!(
        "{}: {} numbers for each of {}, of layer {LAYER}",
        of.out.display(),
        shape[1],
        count(rows, "photograph", "photographs")
    );
    Ok(())
}

/// Refuses, before any work, a dataset that is a file, and a file that could not be written in the end.
fn check(of: &Features) -> Result<(), FeaturesError> {
    let ending = of.out.extension();
    if ending.is_none_or(|ending| ending != "safetensors") {
        let path = of.out.clone();
        return Err(FeaturesError::Ending { path });
    }
    files::check(Some(&of.out), None, of.overwrite)?;
    files::check_inputs(Some(&of.out), None, &[], [of.weights.as_path()].into_iter())?;
    if of.dataset.is_file() {
        let path = of.dataset.clone();
        return Err(FeaturesError::DatasetFile { path });
    }
    Ok(())
}

/// The output of [`LAYER`] for one photograph.
fn observed(net: &Net, input: &Tensor) -> Result<Vec<f32>, FeaturesError> {
    let mut features = None;
    let _ = net.forward_observed(input, &mut |name, output| {
        if name == LAYER {
            features = Some(
                output
                    .to_device(Device::Cpu)
                    .to_kind(Kind::Float)
                    .contiguous(),
            );
        }
    });
    let features = features.ok_or_else(|| format!("the network has no layer {LAYER}"));
    features
        .and_then(|f| Vec::<f32>::try_from(f.view([-1])).map_err(|e| e.to_string()))
        .map_err(FeaturesError::Internal)
}

/// The network with the weights of a file, and how the photographs were prepared that they were learnt from, if the file says. Its
/// classifier is zero and not used.
fn network(weights: &mut Source, device: Device) -> Result<(Net, Option<Pipeline>), FeaturesError> {
    let layout =
        FlatLayout::new(2, &[] as &[&str]).map_err(|e| FeaturesError::Internal(e.to_string()))?;
    let net = Net::new(&layout, device);
    let mut set = |param: &ParamSpec, values: &[f32]| net.set_param(&param.name, values);
    let specs = param_specs(layout.network());
    let loaded = load(weights, &specs, &[HEAD], &mut set)?;
    Ok((net, loaded.pipeline))
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn io_error(path: &Path, source: io::Error) -> FeaturesError {
    FeaturesError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::ids::DatasetName;
    use fovea_core::spec::Init;
    use fovea_dataset::synthetic::{SyntheticOptions, generate};
    use fovea_dataset::{PrepareOptions, prepare};
    use safetensors::SafeTensors;

    /// A file of weights that are drawn at random.
    fn weights(file: &Path) {
        weights_with(file, &BTreeMap::new());
    }

    fn weights_with(file: &Path, metadata: &BTreeMap<&str, String>) {
        let specs = param_specs(2);
        let tensors = specs
            .iter()
            .map(|spec| (spec.name.as_str(), &spec.shape[..]));
        let mut bytes = fovea_weights::header(metadata, tensors).unwrap();
        for spec in &specs {
            let mut values = vec![0.0; spec.len()];
            fovea_core::googlenet::fill(spec, Init::Xavier, 3, &mut values);
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        std::fs::write(file, bytes).unwrap();
    }

    #[test]
    fn each_photograph_has_the_networks_features_in_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let options = SyntheticOptions {
            patients: 6,
            size: 64,
            ..SyntheticOptions::default()
        };
        generate(&at("drawings"), &options, &|_| {}).unwrap();
        let mut options = PrepareOptions::new(
            at("drawings/trainLabels.csv"),
            at("drawings/images"),
            at("set"),
            DatasetName::new("set").unwrap(),
        );
        options.image_size = 48;
        prepare(&options, &()).unwrap();
        weights(&at("weights.safetensors"));
        let mut of = Features {
            dataset: at("set"),
            weights: at("weights.safetensors"),
            out: at("features.safetensors"),
            overwrite: false,
        };
        let mut counted = Vec::new();
        write(&of, Device::Cpu, &mut |number, all| {
            counted.push((number, all))
        })
        .unwrap();
        assert_eq!(counted.last(), Some(&(12, 12)));
        let bytes = std::fs::read(&of.out).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let dataset = Dataset::open(&of.dataset).unwrap();
        let metadata = header.metadata().clone().unwrap();
        assert_eq!(metadata["dataset_digest"], dataset.manifest().digest);
        assert_eq!(
            (&*metadata["fovea_features"], &*metadata["layer"]),
            ("1", LAYER)
        );
        assert_eq!(metadata["weights_sha256"], digest(&of.weights).unwrap());
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("features").unwrap();
        assert_eq!(tensor.shape(), [12, 1024]);
        // The last photograph of the index, computed here.
        let sample = dataset.index().part(Part::All).iter().last().unwrap();
        let mut record = vec![0; 48 * 48 * 3];
        let pack = dataset.open_pack(sample.pack as usize).unwrap();
        pack.read(sample.record, &mut record).unwrap();
        let centred: Vec<f32> = record
            .iter()
            .enumerate()
            .map(|(at, v)| f32::from(*v) - MEANS[at % 3])
            .collect();
        let input = Tensor::from_slice(&centred)
            .view([1, 48, 48, 3])
            .permute([0, 3, 1, 2]);
        let expected = observed(
            &network(&mut Source::open(&of.weights).unwrap(), Device::Cpu)
                .unwrap()
                .0,
            &input,
        )
        .unwrap();
        assert!(expected.iter().any(|v| *v > 0.0));
        let found: Vec<f32> = tensor.data()[11 * 4096..]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < 1e-3 * (1.0 + expected.abs()),
                "{found}, {expected}"
            );
        }
        let again = write(&of, Device::Cpu, &mut |_, _| {}).unwrap_err();
        assert!(again.to_string().contains("the file is there"), "{again}");
        (of.overwrite, of.weights) = (true, at("set/manifest.json"));
        assert!(write(&of, Device::Cpu, &mut |_, _| {}).is_err());
        assert_eq!(
            std::fs::read(&of.out).unwrap(),
            bytes,
            "what was there stays"
        );

        // Weights that were learnt from photographs of another kind.
        of.weights = at("weights.safetensors");
        let mut learnt = dataset.manifest().pipeline();
        let learnt_on = |pipeline: &Pipeline| {
            let json = serde_json::to_string(pipeline).unwrap();
            weights_with(&of.weights, &BTreeMap::from([(Pipeline::KEY, json)]));
            write(&of, Device::Cpu, &mut |_, _| {})
        };
        learnt.size = 224;
        learnt_on(&learnt).unwrap();
        learnt.steps += ", and otherwise";
        let refused = learnt_on(&learnt).unwrap_err().to_string();
        assert!(refused.contains("otherwise"), "{refused}");
        assert!(
            refused.contains("weights.safetensors were learnt from"),
            "{refused}"
        );
    }

    #[test]
    fn what_cannot_be_read_or_written_is_refused_before_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("folder.safetensors")).unwrap();
        std::fs::write(at("manifest.json"), "{}").unwrap();
        let refused = |dataset: &str, out: &str, said: &str| {
            let of = Features {
                dataset: at(dataset),
                weights: dir.path().to_owned(),
                out: at(out),
                overwrite: true,
            };
            let error = write(&of, Device::Cpu, &mut |_, _| {}).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        };
        let good = "features.safetensors";
        refused("set", "features.csv", "a name that ends in .safetensors");
        refused("set", "folder.safetensors", "it is a folder; name a file");
        refused(
            "set",
            "nowhere/x.safetensors",
            "its folder is not there; make it first",
        );
        // Nothing can be made there, whoever asks.
        refused("set", "/proc/x.safetensors", "/proc: ");
        refused(
            "manifest.json",
            good,
            "it is a file; give the folder of a prepared dataset",
        );
        refused(
            "set",
            good,
            "is a folder, not a regular file; name a .caffemodel or .safetensors",
        );
        assert!(!at(good).exists());
    }
}
