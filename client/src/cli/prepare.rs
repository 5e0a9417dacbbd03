//! `fovea prepare`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use fovea_core::ids::DatasetName;
use fovea_dataset::labels::LabelOptions;
use fovea_dataset::{PrepareError, PrepareOptions, PrepareReport, Progress, Split, prepare};
use fovea_predict::pace::{self, Pace};
use indicatif::ProgressBar;

use super::args::Prepare;
use super::output::Output;
use super::record::Record;
use super::stoppable::{Stop, stoppable};
use super::table::Table;
use crate::error::Error;
use crate::local::Signals;

/// Most excluded images and warnings that are listed; the others are counted.
const LISTED: usize = 20;

/// Prepares a dataset and prints what is in it.
pub async fn run(command: Prepare, output: &Output) -> Result<(), Error> {
    let options = options(command)?;
    let bar = output.count_bar(0, "preparing");
    // A signal stops the work, so that what was half written is removed.
    let mut signals = Signals::listen()?;
    let lines =
        (!output.interactive()).then(|| tokio::spawn(say_now_and_then(*output, bar.clone())));
    let shown = bar.clone();
    let report = stoppable(&mut signals, output, move |stop| {
        let bar = Bar {
            bar: shown,
            stop: stop.clone(),
        };
        Ok(prepare(&options, &bar))
    })
    .await;
    if let Some(lines) = lines {
        lines.abort();
    }
    bar.finish_and_clear();
    let report = report?.map_err(|e| match e {
        PrepareError::Cancelled => Error::Interrupted("nothing was written".into()),
        PrepareError::Option { .. } => Error::Usage(e.to_string()),
        // The hint in the library's error does not know the names of options here.
        PrepareError::TooManyBad { unlabelled, .. } => Error::Dataset(format!(
            "{e}\nTo leave them out, give --max-bad N or --max-bad x%{}",
            if unlabelled > 0 {
                "; images may have no label with --allow-unlabelled"
            } else {
                ""
            }
        )),
        PrepareError::Copies { .. } => {
            Error::Dataset(format!("{e}\nTo keep them all, give --allow-duplicates"))
        }
        PrepareError::Exists { .. } => Error::Dataset(format!("{e} (here: --overwrite)")),
        _ => Error::Dataset(e.to_string()),
    })?;
    output.record(&Record::Prepared {
        dir: &report.dir,
        digest: &report.digest,
        pipeline: &report.pipeline,
        scale: report.scale,
        train: report.counts.train,
        validation: report.counts.validation,
        test: report.counts.test,
        patients: report.patients,
        packs: report.packs,
        excluded: report.excluded.iter().map(ToString::to_string).collect(),
        warnings: report.warnings.iter().map(ToString::to_string).collect(),
    });
    output.lines(describe(&report));
    Ok(())
}

/// Where no bar can be drawn, a long preparation must not look like one that hangs.
async fn say_now_and_then(output: Output, bar: ProgressBar) {
    let mut pace = Pace::new(Instant::now(), "read");
    loop {
        tokio::time::sleep(pace::INTERVAL).await;
        let total = bar.length().unwrap_or(0);
        if let Some(line) = pace.line(Instant::now(), bar.position(), total) {
            output.remark(line);
        }
    }
}

fn options(command: Prepare) -> Result<PrepareOptions, Error> {
    let (labels, images) = places(&command)?;
    let name = match &command.name {
        Some(name) => name.clone(),
        None => name_of(&command.out),
    };
    let name = DatasetName::new(name)
        .map_err(|e| Error::Usage(format!("{e} (give another with --name)")))?;
    let mut options = PrepareOptions::new(labels, images, command.out, name);
    options.image_size = command.size;
    options.preprocess = command.preprocess;
    options.validation_fraction = command.validation;
    options.test_fraction = command.test;
    options.seed = command.seed;
    options.split_file = command.split;
    options.threads = command.threads;
    options.max_bad = command.max_bad;
    options.allow_unlabelled = command.allow_unlabelled;
    options.label_options = LabelOptions {
        from: command.from,
        columns: command.columns.unwrap_or_default(),
        patient_pattern: command.patient_pattern,
        each_image_a_patient: command.each_image_a_patient,
    };
    options.overwrite = command.overwrite;
    options.allow_duplicates = command.allow_duplicates;
    Ok(options)
}

/// The label file and the folder with the photographs.
fn places(command: &Prepare) -> Result<(PathBuf, PathBuf), Error> {
    if let Some(from) = command.from.filter(|from| from.is_one_place()) {
        let (Some(place), None, None) = (&command.folder, &command.labels, &command.images) else {
            return Err(Error::Usage(format!(
                "--from {from} takes one FOLDER or file, without --labels and --images"
            )));
        };
        if !place.exists() {
            return Err(Error::Usage(format!(
                "{}: there is no such file or folder",
                place.display()
            )));
        }
        return Ok((place.clone(), place.clone()));
    }
    const USUAL: &[(&str, &str)] = &[("trainLabels.csv", "images")];
    let known = command.from.map_or(USUAL, |from| from.places());
    let known = if known.is_empty() { USUAL } else { known };
    let found = command.folder.as_ref().map(|folder| {
        // Where one of the two is given, the other decides.
        let there = |(labels, images): &&(&str, &str)| {
            (command.labels.is_some() || folder.join(labels).is_file())
                && (command.images.is_some() || folder.join(images).is_dir())
        };
        let place = known.iter().find(there).unwrap_or(&known[0]);
        (folder.join(place.0), folder.join(place.1))
    });
    let (in_labels, in_images) = found.unzip();
    let (Some(labels), Some(images)) = (
        command.labels.clone().or(in_labels),
        command.images.clone().or(in_images),
    ) else {
        return Err(Error::Usage(
            "give a FOLDER with trainLabels.csv and images/, or both --labels and --images".into(),
        ));
    };
    for (path, flag, wanted_dir) in [(&labels, "--labels", false), (&images, "--images", true)] {
        let is_dir = path.is_dir();
        if !path.exists() || is_dir != wanted_dir {
            let kind = if wanted_dir { "folder" } else { "file" };
            let holds: Vec<String> = known
                .iter()
                .map(|(labels, images)| format!("{labels} and {images}/"))
                .collect();
            return Err(Error::Usage(format!(
                "{}: there is no such {kind}; a FOLDER holds {}, or name them with --labels and \
                 --images (this is {flag})",
                path.display(),
                holds.join(", or ")
            )));
        }
    }
    Ok((labels, images))
}

/// The last part of a path, also of one such as `.`.
fn name_of(out: &Path) -> String {
    let absolute: PathBuf = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    absolute
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn describe(report: &PrepareReport) -> Vec<String> {
    let mut table = Table::new(&[
        "split",
        ">patients",
        ">images",
        ">grade 0",
        ">1",
        ">2",
        ">3",
        ">4",
    ]);
    for (split, patients) in Split::ALL.into_iter().zip(report.patients) {
        if split == Split::Test && patients == 0 {
            continue;
        }
        let grades = report.counts.of(split);
        let images: u64 = grades.iter().sum();
        let cells = [split.to_string(), patients.to_string(), images.to_string()];
        table.row(cells.into_iter().chain(grades.iter().map(u64::to_string)));
    }
    let mut lines = table.lines();
    lines.push(String::new());
    lines.push(format!("dataset  {}", report.dir.display()));
    lines.push(format!("digest   {}", report.digest));
    lines.push(format!("packs    {}", report.packs));
    lines.push(format!("images   {}", report.pipeline));
    lines.push(format!("grades   {}", report.scale));
    if !report.flaws.is_empty() {
        let flaws: Vec<String> = (report.flaws.iter())
            .map(|(flaw, count)| format!("{count} {flaw}"))
            .collect();
        lines.push(format!("quality  {} (see quality.csv)", flaws.join(", ")));
    }
    let listed = |lines: &mut Vec<String>, what: &str, items: Vec<String>| {
        if items.is_empty() {
            return;
        }
        lines.push(String::new());
        lines.push(format!("{what}: {}", items.len()));
        lines.extend(items.iter().take(LISTED).map(|i| format!("  {i}")));
        if let more @ 1.. = items.len().saturating_sub(LISTED) {
            lines.push(format!("  and {more} more"));
        }
    };
    let excluded = report.excluded.iter().map(ToString::to_string).collect();
    listed(&mut lines, "left out (see excluded.csv)", excluded);
    let warnings = report.warnings.iter().map(ToString::to_string).collect();
    listed(&mut lines, "warnings", warnings);
    lines
}

struct Bar {
    bar: ProgressBar,
    stop: Stop,
}

impl Progress for Bar {
    fn total(&self, n: u64) {
        self.bar.set_length(n);
    }

    fn advance(&self, n: u64) {
        self.bar.inc(n);
    }

    fn cancelled(&self) -> bool {
        self.stop.is_wanted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::pipeline::Pipeline;
    use fovea_dataset::{Counts, Flaw, GradeScale, MaxBad, Preprocessing};

    #[test]
    fn the_report_reads_well() {
        let mut report = PrepareReport {
            dir: "out".into(),
            digest: "abc".into(),
            pipeline: Pipeline {
                steps: "clahe (clip 2, tiles 8), circle, bilinear, rules 3".into(),
                size: 64,
                digest: "0123456789abcdef".into(),
                recipe: Some("crop".into()),
            },
            scale: GradeScale::Icdr,
            counts: Counts {
                train: [171, 55, 99, 16, 16],
                validation: [57, 18, 33, 6, 5],
                test: [0; 5],
            },
            patients: [179, 59, 0],
            packs: 3,
            excluded: vec![],
            warnings: vec![],
            flaws: [(Flaw::Dark, 2), (Flaw::NoDisc, 1)].into(),
        };
        assert_eq!(
            describe(&report),
            [
                "split       patients  images  grade 0   1   2   3   4",
                "train            179     357      171  55  99  16  16",
                "validation        59     119       57  18  33   6   5",
                "",
                "dataset  out",
                "digest   abc",
                "packs    3",
                "images   clahe (clip 2, tiles 8), circle, bilinear, rules 3, 64 px (pipeline 0123456789ab)",
                "grades   ICDR 0-4",
                "quality  2 dark, 1 no disc (see quality.csv)",
            ]
        );
        report.counts.test = [40, 9, 8, 2, 1];
        report.patients[2] = 30;
        assert_eq!(
            describe(&report)[3],
            "test              30      60       40   9   8   2   1"
        );
    }

    fn prepare_of(folder: &Path) -> Prepare {
        Prepare {
            folder: Some(folder.to_owned()),
            labels: None,
            images: None,
            out: folder.join("set-64"),
            name: None,
            size: 64,
            preprocess: Preprocessing::default(),
            validation: 0.25,
            test: 0.0,
            seed: 0,
            split: None,
            max_bad: MaxBad::Count(0),
            allow_unlabelled: false,
            from: None,
            columns: None,
            patient_pattern: None,
            each_image_a_patient: false,
            threads: 0,
            overwrite: false,
            allow_duplicates: false,
        }
    }

    #[test]
    fn a_data_set_is_found_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let with = |from: &str| Prepare {
            from: Some(from.parse().unwrap()),
            ..prepare_of(root)
        };
        let message = options(with("aptos")).unwrap_err().to_string();
        assert!(
            message.contains("holds train.csv and train_images/, or train.csv and images/"),
            "{message}"
        );
        std::fs::write(root.join("train.csv"), "id_code,diagnosis\n").unwrap();
        std::fs::create_dir(root.join("images")).unwrap();
        let found = options(with("aptos")).unwrap();
        assert_eq!(
            (found.labels, found.images_dir),
            (root.join("train.csv"), root.join("images"))
        );
        let whole = options(with("folders")).unwrap();
        assert_eq!((&*whole.labels, &*whole.images_dir), (root, root));
        let both = Prepare {
            images: Some(root.join("images")),
            ..with("folders")
        };
        assert!(
            options(both)
                .unwrap_err()
                .to_string()
                .contains("takes one FOLDER")
        );
    }

    #[test]
    fn a_folder_stands_for_labels_and_images() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("images")).unwrap();
        let command = || Prepare {
            out: root.join("my set"),
            ..prepare_of(root)
        };
        let error = options(command()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .to_string()
                .contains("trainLabels.csv: there is no such file"),
            "{error}"
        );

        std::fs::write(root.join("trainLabels.csv"), "image,level\n").unwrap();
        let error = options(command()).unwrap_err();
        assert!(error.to_string().contains("--name"), "{error}");

        let mut good = command();
        good.out = root.join("set-64");
        let options = options(good).unwrap();
        assert_eq!(options.name.as_str(), "set-64");
        assert_eq!(options.images_dir, root.join("images"));
    }
}
