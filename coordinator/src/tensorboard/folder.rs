//! The event files of one run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fovea_core::run::{Run, StepReport};
use fovea_tensorboard::{
    Event, FileName, Known, append, epoch, events, hparams, session_start, speed, training, version,
};

use crate::clock::unix_ms;
use crate::journal::LossRow;

/// A run's folder, and what its files hold.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    known: Known,
    /// The newest file.
    last: Option<FileName>,
    /// That file, if this process writes it.
    file: Option<File>,
    /// The last step with a speed, in this process.
    speed_step: u64,
}

impl Folder {
    /// Reads what is there; nothing is created.
    ///
    /// # Errors
    /// With the path that cannot be read.
    pub(super) fn open(path: PathBuf, run: &Run) -> io::Result<Self> {
        let mut names: Vec<FileName> = Vec::new();
        match fs::read_dir(&path) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(at(&path))?.file_name();
                    names.extend(FileName::parse(&name.to_string_lossy()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path)(error)),
        }
        names.sort_unstable();
        let mut known = Known::default();
        for name in &names {
            let file = path.join(name.to_string());
            let bytes = fs::read(&file).map_err(at(&file))?;
            events(&bytes).for_each(|event| known.read(&event));
        }
        let last = names.last().copied();
        let mut folder = Self {
            path,
            known,
            last,
            file: None,
            speed_step: 0,
        };
        // A run that was rewound while nobody wrote.
        folder.rewind(run)?;
        Ok(folder)
    }

    /// The first step that is missing in the files of this run.
    pub(super) fn next_step(&self, run: &Run) -> u64 {
        let kept = self.kept(run).unwrap_or(self.known.step);
        self.known.step.min(kept) + 1
    }

    /// How many steps of the newest file's lineage are still valid; None if it is the run's.
    fn kept(&self, run: &Run) -> Option<u64> {
        let written = self.last?.lineage;
        if written == run.lineage {
            return None;
        }
        // Step and lineage grow along the history, so the first rewind since then went back furthest. Where there is none, the
        // files are of another run of the same id.
        let since = run.rewinds.iter().find(|rewind| rewind.lineage > written);
        Some(since.map_or(0, |rewind| rewind.step))
    }

    /// Begins another file if the run was sent back since the last one was written.
    fn rewind(&mut self, run: &Run) -> io::Result<()> {
        let Some(kept) = self.kept(run) else {
            return Ok(());
        };
        self.known.cut(kept);
        self.speed_step = self.speed_step.min(kept);
        self.begin(run)
    }

    /// A new file, which goes on behind what is known.
    fn begin(&mut self, run: &Run) -> io::Result<()> {
        let now = unix_ms();
        let name = FileName::after(self.last, now / 1000, run.lineage);
        fs::create_dir_all(&self.path).map_err(at(&self.path))?;
        let path = self.path.join(name.to_string());
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).open(&path);
        self.file = Some(file.map_err(at(&path))?);
        // As whoever reads this will.
        self.known.cut(self.known.step);
        let first = self.last.is_none();
        self.last = Some(name);
        let now = now as f64 / 1e3;
        let mut begun = vec![version(now), session_start(self.known.step + 1, now)];
        if first {
            begun.push(hparams(&run.spec, now));
        }
        self.put(&begun)
    }

    /// Writes steps of the ledger from [`Self::next_step`] on, and, with the last of them, what else there is.
    ///
    /// # Errors
    /// With the path that cannot be written. Then the folder is to be opened again.
    pub(super) fn write(
        &mut self,
        run: &Run,
        rows: &[LossRow],
        last: bool,
        newest: Option<(StepReport, usize)>,
    ) -> io::Result<()> {
        self.rewind(run)?;
        let now = unix_ms() as f64 / 1e3;
        let total = run.extent.total_steps;
        let mut news = Vec::new();
        let mut step = self.known.step;
        for row in rows {
            // What comes behind a gap is not committed.
            if row.step != step + 1 {
                break;
            }
            step = row.step;
            news.push(training(&run.spec, total, step, row.loss, now));
        }
        if last {
            let missing = run.epochs.iter();
            let missing = missing.filter(|e| !self.known.validated.contains(&e.step));
            news.extend(missing.map(|result| epoch(result, now)));
            if let Some((report, workers)) = newest.filter(|(r, _)| r.step > self.speed_step) {
                self.speed_step = report.step;
                news.push(speed(report.step, report.images_per_s, workers, now));
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            self.begin(run)?;
        }
        self.put(&news)?;
        news.iter().for_each(|event| self.known.read(event));
        Ok(())
    }

    /// Appends events in one write, so that a reader rarely sees half of one.
    fn put(&mut self, events: &[Event]) -> io::Result<()> {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| append(event, &mut bytes));
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(&bytes).map_err(at(&self.path))
    }
}

/// An error that names its path.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
