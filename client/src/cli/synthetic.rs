//! `fovea synthetic`.

use fovea_dataset::synthetic::{SyntheticError, SyntheticOptions, generate};

use super::args::Synthetic;
use super::output::Output;
use super::record::Record;
use crate::error::Error;

/// Draws photographs and states that they are synthetic.
pub fn run(command: Synthetic, output: &Output) -> Result<(), Error> {
    let images = u64::from(command.patients) * 2;
    let bar = output.count_bar(images, "drawing");
    let options = SyntheticOptions {
        patients: command.patients,
        size: command.size,
        seed: command.seed,
        ..SyntheticOptions::default()
    };
    let drawn = generate(&command.out, &options, &|n| bar.inc(n as u64));
    bar.finish_and_clear();
    drawn.map_err(|e| match e {
        SyntheticError::Option { .. } => Error::Usage(e.to_string()),
        _ => Error::Dataset(e.to_string()),
    })?;
    output.record(&Record::Synthetic {
        dir: &command.out,
        patients: command.patients,
        images,
    });
    output.line(format!(
        "drew {images} SYNTHETIC photographs of {} invented patients into {}",
        command.patients,
        command.out.display()
    ));
    Ok(())
}
