//! `fovea-worker predict`: scores photographs with a model's file, without a coordinator.
//!
//! The photographs go through the same code as in training and evaluation: the model's recipe prepares them, and [`Device`]
//! scores them in batches of the run's size. So on one machine the scores are those of `fovea evaluate` to the bit where the
//! batches hold as many photographs.

mod args;
mod error;
mod model;

use std::io::Write;
use std::path::{Path, PathBuf};

use fovea_core::googlenet::FlatLayout;
use fovea_core::metrics::Score;
use fovea_core::spec::RunSpec;
use fovea_dataset::{Recipe, photographs, rotate90};
use fovea_predict::files::{self, FileError, Maps};
use fovea_predict::patients;
use fovea_predict::{
    Bar, Outcome, Photograph, Picture, Readable, Row, Scored, Table, draw, read_ahead,
};

use crate::device::{Batch, Device, Pixels, TorchDevice};

pub use args::Predict;
pub use error::PredictError;

/// Scores what the command asks for on `place`, and writes table and pictures. Returns how many photographs could not be
/// read.
///
/// # Errors
/// Nothing was scored, or the table was not written.
pub fn run(command: &Predict, place: tch::Device) -> Result<usize, PredictError> {
    let wanted = &command.wanted;
    files::check(
        wanted.out.as_deref(),
        wanted.maps.as_deref(),
        wanted.overwrite,
    )?;
    let found = photographs(&wanted.paths, wanted.patient_pattern.as_ref())?;
    let read = found.iter().map(|found| found.path.as_path());
    files::check_inputs(
        wanted.out.as_deref(),
        wanted.maps.as_deref(),
        &wanted.paths,
        read.chain([command.model.as_path()]),
    )?;
    if wanted.fuse_eyes
        && let Some(note) = patients::check(&found).map_err(FileError::from)?
    {
        let _ = writeln!(std::io::stderr(), "note: {note}");
    }
    let model::Loaded {
        mut spec,
        recipe,
        state,
        layout,
    } = model::load(&command.model, wanted.preprocess.as_ref(), command.size)?;
    if let Some(threads) = command.threads {
        spec.train.threads = threads;
    }
    let batch = command.batch.unwrap_or(spec.train.batch) as usize;
    let of = (&*command.model, &spec, &layout);
    let mut scorer = Scorer::new(of, &state, &recipe, place)?;
    scorer.turns = if wanted.rotations {
        &[0, 1, 2, 3]
    } else {
        &[0]
    };
    scorer.maps = wanted.maps.is_some();
    let mut maps = (wanted.maps.clone()).map(|folder| Maps::new(folder, wanted.overwrite));
    let mut table = Table::new(&spec, wanted.fuse_eyes, maps.is_some());
    let mut bar = Bar::new(found.len() as u64, "scored");
    let photographs = read_ahead(found, recipe, maps.is_some());
    let mut waiting = Waiting::default();
    for photograph in photographs {
        if waiting.push(photograph) == batch {
            let done = waiting.finish(&mut scorer, &mut maps, &mut table)?;
            bar.advance(done);
        }
    }
    bar.advance(waiting.finish(&mut scorer, &mut maps, &mut table)?);
    drop(bar);
    write(&table, wanted.out.as_deref(), wanted.overwrite)?;
    if let Some(problem) = waiting.unwritten {
        let text = "the table has all scores; its column map is empty where there is no map";
        let _ = writeln!(std::io::stderr(), "{text}");
        return Err(problem.into());
    }
    let place = match &wanted.out {
        Some(file) => format!("{}: ", file.display()),
        None => String::new(),
    };
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "{place}{}", table.summary());
    Ok(table.unreadable())
}

fn write(table: &Table, out: Option<&Path>, overwrite: bool) -> Result<(), PredictError> {
    let csv = table.csv()?;
    match out {
        Some(file) => files::write_whole(file, overwrite, &csv)?,
        None => std::io::stdout()
            .write_all(&csv)
            .map_err(|source| PredictError::Io {
                path: PathBuf::from("standard output"),
                source,
            })?,
    }
    Ok(())
}

/// Photographs that wait for a full batch, with those between them that cannot be read.
#[derive(Default)]
struct Waiting {
    photographs: Vec<Photograph>,
    readable: usize,
    /// Why no more maps are drawn.
    unwritten: Option<FileError>,
}

impl Waiting {
    /// Adds one. Returns how many that can be read are waiting.
    fn push(&mut self, photograph: Photograph) -> usize {
        self.readable += usize::from(photograph.read.is_ok());
        self.photographs.push(photograph);
        self.readable
    }

    /// Scores all of them into the table, in their order, and draws their pictures. Returns how many they were.
    fn finish(
        &mut self,
        scorer: &mut Scorer,
        maps: &mut Option<Maps>,
        table: &mut Table,
    ) -> Result<u64, PredictError> {
        let photographs = std::mem::take(&mut self.photographs);
        self.readable = 0;
        let readable = photographs.iter().filter_map(|one| one.read.as_ref().ok());
        let mut scores = scorer.score(&readable.collect::<Vec<_>>())?.into_iter();
        let mut pictures = Vec::new();
        let count = photographs.len() as u64;
        for Photograph { found, read } in photographs {
            let outcome = match read {
                Ok(read) => {
                    let mut scored = scores.next().ok_or(PredictError::Missing)?;
                    if let (Some(maps), Some(square), Some(map)) =
                        (maps.as_mut(), read.picture, scored.map.take())
                    {
                        let name = maps.name(&found.shown);
                        scored.picture = Some(name.clone());
                        pictures.push(Picture {
                            name,
                            photograph: found.shown.clone(),
                            square,
                            map,
                            score: table.score(&scored),
                        });
                    }
                    Outcome::Scored(scored)
                }
                Err(problem) => Outcome::Unreadable(problem.to_string()),
            };
            table.push(Row { found, outcome });
        }
        if let Some(to) = maps {
            let rotations = scorer.turns.len() > 1;
            if let Err(problem) = draw(&pictures, table.positive(), rotations, to) {
                // The scores do not depend on it.
                let lost: Vec<String> = pictures.into_iter().map(|one| one.name).collect();
                table.forget_pictures(&lost);
                self.unwritten = Some(problem);
                *maps = None;
            }
        }
        Ok(count)
    }
}

/// The network, and how photographs are shown to it.
struct Scorer {
    /// The model's file.
    model: PathBuf,
    device: TorchDevice,
    size: usize,
    turns: &'static [u8],
    maps: bool,
}

impl Scorer {
    fn new(
        (model, spec, layout): (&Path, &RunSpec, &FlatLayout),
        state: &[f32],
        recipe: &Recipe,
        place: tch::Device,
    ) -> Result<Self, PredictError> {
        let mut device = TorchDevice::new(spec, layout, place);
        device.load(state)?;
        Ok(Self {
            model: model.to_owned(),
            device,
            size: recipe.size() as usize,
            turns: &[0],
            maps: false,
        })
    }

    /// What the model says of each, in their order.
    fn score(&mut self, photographs: &[&Readable]) -> Result<Vec<Scored>, PredictError> {
        if photographs.is_empty() {
            return Ok(Vec::new());
        }
        let mut views: Vec<Vec<(u8, Score)>> = photographs.iter().map(|_| Vec::new()).collect();
        for &turns in self.turns {
            let batch = self.batch(photographs, turns);
            let scores = match self.maps {
                true => self.device.score_mapped(&batch)?,
                false => self.device.score(&batch)?,
            };
            for (views, score) in views.iter_mut().zip(scores) {
                if !score.probabilities.iter().all(|p| p.is_finite()) {
                    let path = self.model.clone();
                    return Err(PredictError::Diverged { path });
                }
                views.push((turns, score));
            }
        }
        let flaws = photographs.iter().map(|one| one.image.quality.flaws());
        let scores = views.into_iter().map(Score::of_views).zip(flaws);
        Ok(scores
            .map(|(score, flaws)| Scored::of(score, flaws))
            .collect())
    }

    /// A batch of photographs, each turned.
    fn batch(&self, photographs: &[&Readable], turns: u8) -> Batch {
        let record = self.size * self.size * 3;
        let mut bytes = vec![0; record * photographs.len()];
        for (one, turned) in photographs.iter().zip(bytes.chunks_exact_mut(record)) {
            rotate90(&one.image.record, self.size, turns, turned);
        }
        Batch {
            samples: (0..photographs.len() as u32).collect(),
            quarter_turns: vec![turns; photographs.len()],
            // Nobody knows them; a loss is not asked for.
            labels: vec![0; photographs.len()],
            size: self.size,
            pixels: Pixels::Turned(bytes),
            ..Batch::default()
        }
    }
}

#[cfg(test)]
mod tests;
