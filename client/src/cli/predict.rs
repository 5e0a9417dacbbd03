//! `fovea predict`: photographs are prepared here as the run's own were, scored on the cluster, and removed there.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fovea_core::class_map;
use fovea_core::ids::DatasetName;
use fovea_core::metrics::Score;
use fovea_core::pipeline::Pipeline;
use fovea_core::spec::ModelSpec;
use fovea_dataset::leftovers::{self, Names, TemporaryFolder};
use fovea_dataset::{Flaw, Found, PhotographsError, Recipe, photographs, write_ungraded};
use fovea_judging::choose;
use fovea_predict::files::{self, FileError, Maps};
use fovea_predict::patients;
use fovea_predict::{Bar, Outcome, Photograph, Picture, Row, Scored, Table, draw, read_ahead};

use super::evaluate::computed;
use super::output::Output;
use super::predict_args::Predict;
use super::record::Record;
use super::sent::Sent;
use super::stoppable::{Stop, stoppable};
use crate::client::Client;
use crate::error::Error;
use crate::evaluations::Views;
use crate::local::Signals;
use crate::view::{RunInfo, Scores};

/// Pictures that are drawn at once.
const AT_ONCE: usize = 64;

/// A photograph, and what a look at it found or why it could not be read.
type Looked = (Found, Result<Vec<Flaw>, String>);

/// Scores the photographs and writes table and pictures.
pub async fn run(client: &Client, command: &Predict, output: &Output) -> Result<(), Error> {
    let wanted = &command.wanted;
    if wanted.out.is_none() && output.is_json() {
        return Err(Error::Usage(
            "give the table a file (-o): the lines of --json would be among its rows".into(),
        ));
    }
    files::check(
        wanted.out.as_deref(),
        wanted.maps.as_deref(),
        wanted.overwrite,
    )
    .map_err(file)?;
    let (paths, pattern) = (wanted.paths.clone(), wanted.patient_pattern.clone());
    let found = computed(move || photographs(&paths, pattern.as_ref()).map_err(unfound)).await?;
    let read = found.iter().map(|found| found.path.as_path());
    let (out, maps) = (wanted.out.as_deref(), wanted.maps.as_deref());
    files::check_inputs(out, maps, &wanted.paths, read).map_err(file)?;
    if wanted.fuse_eyes
        && let Some(note) = patients::check(&found).map_err(|e| file(e.into()))?
    {
        output.remark(format!("note: {note}"));
    }
    let run = client.run(&command.run).await?;
    if let Some(evaluate) = &run.spec.evaluate {
        return Err(Error::Usage(format!(
            "{} is an evaluation and has no model of its own: give the run {}",
            run.id, evaluate.run
        )));
    }
    let chosen = choose(&run, command.checkpoint.0)?;
    let pipeline = pipeline_of(client, &run).await?;
    let recipe = Recipe::of(&pipeline, wanted.preprocess.as_ref())
        .map_err(|e| Error::Usage(format!("run {}: {e}", run.id)))?;
    if wanted.maps.is_some() {
        check_maps(&run.spec.model, found.len(), recipe.size())?;
    }
    let name = dataset_name();
    // From here on, so that no signal leaves the folder there.
    let mut signals = Signals::listen()?;
    let folder = temporary_folder()?;
    let set = folder.path().join(name.as_str());
    let (made, to, with) = (name.clone(), set.clone(), recipe.clone());
    let looked = stoppable(&mut signals, output, move |stop| {
        prepare(found, made, &to, with, stop)
    })
    .await?;
    let views = Views {
        rotations: wanted.rotations,
        maps: wanted.maps.is_some(),
    };
    let readable = looked.iter().filter(|(_, look)| look.is_ok()).count();
    let scored = match readable {
        0 => None,
        _ => {
            let sent = Sent {
                client,
                run: &run,
                step: chosen.step,
                dataset: &name,
            };
            let with = (&mut signals, output);
            Some(sent.score(&set, views, command.keep, with).await?)
        }
    };
    drop(folder);
    let (id, scores) = scored.unzip();
    let mut table = Table::new(&run.spec, wanted.fuse_eyes, wanted.maps.is_some());
    let maps = wanted.maps.clone();
    let mut maps = maps.map(|folder| Maps::new(folder, wanted.overwrite));
    let mut pictures = Vec::new();
    let mut at = 0;
    for (found, look) in looked {
        let outcome = match look {
            Ok(flaws) => {
                let missing =
                    || Error::Protocol(format!("the score of photograph {at} is missing"));
                let score = scores.as_ref().and_then(|scores| score_of(scores, at));
                let mut scored = Scored::of(score.ok_or_else(missing)?, flaws);
                at += 1;
                if let (Some(maps), Some(map)) = (maps.as_mut(), scored.map.take()) {
                    let name = maps.name(&found.shown);
                    scored.picture = Some(name.clone());
                    pictures.push((found.clone(), name, map, table.score(&scored)));
                }
                Outcome::Scored(scored)
            }
            Err(reason) => Outcome::Unreadable(reason),
        };
        table.push(Row { found, outcome });
    }
    let mut problem = None;
    if let Some(maps) = maps {
        let positive = table.positive().to_owned();
        let rotations = views.rotations;
        let drawn = stoppable(&mut signals, output, move |stop| {
            Ok(draw_all(
                pictures,
                &recipe,
                (&positive, rotations),
                &maps,
                stop,
            ))
        })
        .await?;
        // The scores do not depend on it.
        table.forget_pictures(&drawn.lost);
        problem = drawn.problem;
    }
    write(&table, wanted.out.as_deref(), wanted.overwrite, output)?;
    output.record(&Record::Prediction {
        model: &run.id,
        step: chosen.step,
        run: id.as_deref().unwrap_or_default(),
        photographs: readable,
        unreadable: table.unreadable(),
        path: wanted.out.as_deref(),
        maps: wanted.maps.as_deref(),
    });
    output.remark(format!(
        "step {} of {} ({}): {}",
        chosen.step,
        run.id,
        chosen.why,
        table.summary()
    ));
    if let Some(problem) = problem {
        output.remark("the table has all scores; its column map is empty where there is no map");
        return Err(problem);
    }
    match table.unreadable() {
        0 => Ok(()),
        photographs => Err(Error::SomeUnreadable { photographs }),
    }
}

/// How the run's photographs were prepared. A run of an older version did not record it; then its dataset says so.
async fn pipeline_of(client: &Client, run: &RunInfo) -> Result<Pipeline, Error> {
    if let Some(pipeline) = &run.pipeline {
        return Ok(pipeline.clone());
    }
    match client.describe_dataset(&run.dataset_digest).await? {
        Some(dataset) => Ok(dataset.manifest.pipeline()),
        None => Err(Error::Usage(format!(
            "run {} does not say how its photographs were prepared, and its dataset {} was removed: `fovea dataset add` it again",
            run.id, run.spec.dataset
        ))),
    }
}

/// A folder that only its owner can read. Those of killed processes are swept.
pub(super) fn temporary_folder() -> Result<TemporaryFolder, Error> {
    let (parent, names) = (std::env::temp_dir(), Names::new("fovea-predict-", ""));
    // Housekeeping: a folder that cannot be listed prevents nothing.
    let _ = leftovers::sweep(&parent, &names);
    TemporaryFolder::create(&parent, &names, 0o700).map_err(|e| Error::io(parent, e))
}

/// A name that no other dataset has: by the time, and by chance.
pub(super) fn dataset_name() -> DatasetName {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    let chance = u32::from_le_bytes(fovea_service::random_bytes());
    DatasetName::new(format!("predict-{seconds}-{chance:08x}")).expect("letters, digits and bars")
}

/// The coordinator keeps no more.
pub(super) fn check_maps(model: &ModelSpec, photographs: usize, size: u32) -> Result<(), Error> {
    let network = model.network();
    let network = network.map_err(|problem| Error::Protocol(problem.to_string()))?;
    let bytes = class_map::bytes(network, photographs as u64, size);
    if bytes <= class_map::MOST_BYTES {
        return Ok(());
    }
    let most = photographs as u64 * class_map::MOST_BYTES / bytes;
    Err(Error::Usage(format!(
        "--maps: the coordinator keeps maps of at most {} MiB, which is {most} photographs of {size} px at once; there are \
         {photographs}: predict them in parts, or with `fovea-worker predict`",
        class_map::MOST_BYTES >> 20
    )))
}

/// Prepares the photographs as a dataset in `set`, unless none can be read.
fn prepare(
    found: Vec<Found>,
    name: DatasetName,
    set: &Path,
    recipe: Recipe,
    stop: &Stop,
) -> Result<Vec<Looked>, Error> {
    let mut bar = Bar::new(found.len() as u64, "prepared");
    let mut looked: Vec<Looked> = Vec::with_capacity(found.len());
    let mut photographs = read_ahead(found, recipe.clone(), false).into_iter();
    let mut records = std::iter::from_fn(|| {
        for Photograph { found, read } in photographs.by_ref() {
            if stop.is_wanted() {
                return None;
            }
            bar.advance(1);
            match read {
                Ok(read) => {
                    looked.push((found, Ok(read.image.quality.flaws())));
                    return Some(read.image.record);
                }
                Err(problem) => looked.push((found, Err(problem.to_string()))),
            }
        }
        None
    })
    .peekable();
    if records.peek().is_some() {
        let written = write_ungraded(set, name, &recipe, records);
        written.map_err(|e| Error::Dataset(e.to_string()))?;
    } else {
        drop(records);
    }
    if stop.is_wanted() {
        return Err(Error::Interrupted("nothing was sent".into()));
    }
    Ok(looked)
}

/// What the cluster says of the photograph with this number.
fn score_of(scores: &Scores, at: usize) -> Option<Score> {
    let classes = scores.classes;
    let probabilities = scores.probabilities.get(at * classes..(at + 1) * classes)?;
    Some(Score {
        sample: at as u32,
        label: 0,
        probabilities: probabilities.to_vec(),
        loss: 0.0,
        map: scores.map(at),
    })
}

/// What became of the maps.
#[derive(Default)]
struct Drawn {
    /// The names of those that were not drawn, or perhaps not.
    lost: Vec<String>,
    /// Why.
    problem: Option<Error>,
}

/// Reads the photographs once more and draws their maps. A photograph that cannot be read any more has none; after an error of the
/// folder of maps, or a signal, no more are drawn.
fn draw_all(
    wanted: Vec<(Found, String, class_map::ClassMap, f64)>,
    recipe: &Recipe,
    (positive, rotations): (&str, bool),
    maps: &Maps,
    stop: &Stop,
) -> Drawn {
    let mut bar = Bar::new(wanted.len() as u64, "drawn");
    let found = wanted.iter().map(|(found, ..)| found.clone()).collect();
    let mut photographs = read_ahead(found, recipe.clone(), true).into_iter();
    let mut wanted = wanted.into_iter().peekable();
    let mut drawn = Drawn::default();
    let mut ready = Vec::new();
    while let Some((found, name, map, score)) = wanted.next() {
        match photographs.next().map(|one| one.read) {
            Some(Ok(read)) => ready.extend(read.picture.map(|square| Picture {
                name,
                photograph: found.shown,
                square,
                map,
                score,
            })),
            problem => {
                let path = found.path.display();
                let problem = match problem {
                    Some(Err(problem)) => problem.to_string(),
                    _ => "the reading has ended".into(),
                };
                drawn.lost.push(name);
                drawn.problem.get_or_insert(Error::Dataset(format!(
                    "{path}: it was read before, and cannot be read now: {problem}"
                )));
            }
        }
        if ready.len() < AT_ONCE && wanted.peek().is_some() && !stop.is_wanted() {
            continue;
        }
        let done = draw(&ready, positive, rotations, maps).map_err(file);
        bar.advance(ready.len() as u64);
        let ends = match done {
            Ok(()) if stop.is_wanted() && wanted.peek().is_some() => {
                Some(Error::Interrupted("not all maps were drawn".into()))
            }
            Ok(()) => None,
            Err(error) => {
                drawn.lost.extend(ready.iter().map(|one| one.name.clone()));
                Some(error)
            }
        };
        ready.clear();
        if ends.is_some() {
            drawn.lost.extend(wanted.map(|(_, name, ..)| name));
            drawn.problem = ends;
            break;
        }
    }
    drawn
}

fn write(table: &Table, out: Option<&Path>, overwrite: bool, output: &Output) -> Result<(), Error> {
    let csv = table.csv().map_err(|e| Error::Dataset(e.to_string()))?;
    match out {
        Some(path) => {
            files::write_whole(path, overwrite, &csv).map_err(file)?;
            output.line(format!("scores   {}", path.display()));
            Ok(())
        }
        None => std::io::stdout()
            .write_all(&csv)
            .map_err(|e| Error::io("standard output", e)),
    }
}

fn file(error: FileError) -> Error {
    match error {
        FileError::Exists { path } => Error::Exists { path },
        FileError::Io { path, source } => Error::Io { path, source },
        error => Error::Usage(error.to_string()),
    }
}

fn unfound(error: PhotographsError) -> Error {
    match error {
        PhotographsError::Unreadable { path, source } => Error::Io { path, source },
        error => Error::Usage(error.to_string()),
    }
}
