//! `fovea export`: a trained model for other programs.

use std::path::{Path, PathBuf};

use fovea_core::ids::RunId;
use fovea_export::{Model, onnx, safetensors};
use fovea_judging::{Which, choose};

use super::checkpoints::fetch_with_bar;
use super::export_args::Export;
use super::format::bytes;
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::receive::{check_target, write_whole};

/// The largest file that is read: a hundred times a checkpoint.
const MOST_BYTES: u64 = 8 << 30;

/// The format of an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Onnx,
    Safetensors,
}

impl Format {
    /// The format that a file's name asks for.
    fn of(file: &Path) -> Result<Self, Error> {
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("onnx") => Ok(Self::Onnx),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => Err(Error::Usage(format!(
                "{}: the name says the format; end it in .onnx or .safetensors",
                file.display()
            ))),
        }
    }
}

/// Where the model comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file that is here.
    File(PathBuf),
    /// A run of the coordinator.
    Run(String),
}

impl Origin {
    /// What is named like a file is one; anything else is a run's id.
    pub fn of(model: &str) -> Self {
        if model.contains(std::path::MAIN_SEPARATOR) || model.ends_with(".safetensors") {
            Self::File(model.into())
        } else {
            Self::Run(model.to_owned())
        }
    }

    /// The file to write, where none is named.
    fn default_file(&self) -> PathBuf {
        match self {
            Self::File(file) => file.with_extension("onnx"),
            Self::Run(run) => format!("{run}.onnx").into(),
        }
    }
}

/// Exports a model. `connect` is called for a run only.
pub async fn run(
    connect: impl AsyncFnOnce() -> Result<Client, Error>,
    command: &Export,
    output: &Output,
) -> Result<(), Error> {
    let origin = Origin::of(&command.model);
    let file = command.out.clone().unwrap_or_else(|| origin.default_file());
    let format = Format::of(&file)?;
    check_target(&file, command.overwrite)?;
    check_origin(&origin, &file)?;
    let (what, content) = match &origin {
        Origin::File(path) => {
            if command.checkpoint.is_some() {
                return Err(Error::Usage(
                    "--checkpoint chooses one of a run; a file is one already".into(),
                ));
            }
            (path.display().to_string(), read(path)?)
        }
        Origin::Run(run) => fetched(&connect().await?, run, command, output).await?,
    };
    let model =
        Model::read(&content).map_err(|problem| Error::Weights(format!("{what}: {problem}")))?;
    drop(content);
    let written = match format {
        Format::Onnx => onnx(&model),
        Format::Safetensors => safetensors(&model),
    };
    let written = written.map_err(|error| Error::Weights(format!("{what}: {error}")))?;
    write_whole(&file, command.overwrite, &written)?;
    output.record(&Record::Export {
        model: &command.model,
        path: &file,
        bytes: written.len() as u64,
        classes: &model.class_names(),
    });
    output.line(format!(
        "{}: {what}, {}; outputs: {}",
        file.display(),
        bytes(written.len() as u64),
        model.class_names().join(", ")
    ));
    Ok(())
}

/// Refuses a file that is taken for a run's id, and to write over the model itself.
fn check_origin(origin: &Origin, target: &Path) -> Result<(), Error> {
    match origin {
        Origin::Run(model) => {
            let is_id = RunId::new(model.as_str()).is_ok_and(|id| id.number().is_some());
            if !is_id && Path::new(model).is_file() {
                return Err(Error::Usage(format!(
                    "{model} is a file here, and no model: give a file that ends in .safetensors, or a run's id, such as dr-1"
                )));
            }
        }
        Origin::File(model) => {
            let same = model.canonicalize().ok().zip(target.canonicalize().ok());
            if same.is_some_and(|(model, target)| model == target) {
                return Err(Error::Usage(format!(
                    "{} is the model itself: name another file to write",
                    target.display()
                )));
            }
        }
    }
    Ok(())
}

/// The content of a run's checkpoint, and what it is.
async fn fetched(
    client: &Client,
    run: &str,
    command: &Export,
    output: &Output,
) -> Result<(String, Vec<u8>), Error> {
    let info = client.run(run).await?;
    if let Some(evaluate) = &info.spec.evaluate {
        return Err(Error::Usage(format!(
            "{run} is an evaluation and has no model of its own; export that of its run: `fovea export {} --checkpoint {}`",
            evaluate.run, evaluate.step
        )));
    }
    let which = command.checkpoint.map_or(Which::Best, |which| which.0);
    let chosen = choose(&info, which)?;
    let folder = tempfile::tempdir().map_err(|error| Error::io(std::env::temp_dir(), error))?;
    let file = folder.path().join("checkpoint.safetensors");
    fetch_with_bar(client, run, Some(chosen.step), &file, false, output).await?;
    let what = format!("checkpoint {} of run {run} ({})", chosen.step, chosen.why);
    Ok((what, read(&file)?))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::io(path, error);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(Error::Weights(format!(
            "{}: it is no checkpoint of Fovea: not a file of at most {}",
            path.display(),
            bytes(MOST_BYTES)
        )));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_another_file_nor_the_model_itself() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("m.safetensors"), "m").unwrap();
        let file = Origin::File(at("m.safetensors"));
        let twisted = folder.path().join(".").join("m.safetensors");
        let text = check_origin(&file, &twisted).unwrap_err().to_string();
        assert!(text.contains("is the model itself"), "{text}");
        assert!(check_origin(&file, &at("other.safetensors")).is_ok());
        // Tests run in the package's folder.
        let manifest = Origin::Run("Cargo.toml".into());
        let text = check_origin(&manifest, &at("m.onnx"))
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("Cargo.toml is a file here, and no model"),
            "{text}"
        );
        assert!(check_origin(&Origin::Run("dr-1".into()), &at("m.onnx")).is_ok());
    }

    #[test]
    fn a_name_says_what_is_meant() {
        for (model, origin, file) in [
            ("dr-1", Origin::Run("dr-1".into()), "dr-1.onnx"),
            (
                "dr.safetensors",
                Origin::File("dr.safetensors".into()),
                "dr.onnx",
            ),
            (
                "runs/dr-1/model",
                Origin::File("runs/dr-1/model".into()),
                "runs/dr-1/model.onnx",
            ),
        ] {
            assert_eq!(Origin::of(model), origin);
            assert_eq!(origin.default_file(), Path::new(file));
        }
        assert_eq!(Format::of(Path::new("a.b/c.onnx")).unwrap(), Format::Onnx);
        for file in ["c", "c.pt", "onnx"] {
            let text = Format::of(Path::new(file)).unwrap_err().to_string();
            assert!(text.contains("end it in .onnx or .safetensors"), "{text}");
        }
    }
}
