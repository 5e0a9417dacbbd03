//! `index.csv`: every sample with its side of the split, grade and position in the packs.

mod fold;

use std::collections::{HashMap, HashSet};
use std::fmt;

use fovea_core::spec::Part;
use serde::{Deserialize, Serialize};

use crate::eye::{Eye, name_problem};
use crate::{Counts, GRADES, Manifest, Split};

/// A dataset's samples, validated by [`Index::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    train: Vec<Sample>,
    validation: Vec<Sample>,
    test: Vec<Sample>,
    patients: Vec<String>,
}

/// A sample and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Position in its split, from 0: the plan's order.
    pub ordinal: u32,
    /// Name of the image.
    pub image: String,
    /// Number of the patient, from 0 in the order of the index; [`Index::patient`] has the name.
    /// The samples of a patient are neighbours.
    pub patient: u32,
    /// Which eye.
    pub eye: Eye,
    /// 0 to 4.
    pub grade: u8,
    /// Index into [`Manifest::packs`].
    pub pack: u32,
    /// Position in the pack, from 0.
    pub record: u32,
    /// The photograph's content; None in datasets that do not say it.
    pub content: Option<Content>,
}

/// What tells photographs apart whatever they are called: the first half of the SHA-256 of what was cut out and resized, before
/// it was preprocessed. Of two datasets with the same crop and size, equal photographs have equal contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content([u8; 16]);

impl Content {
    /// Of the SHA-256 of the cut-out photograph.
    pub(crate) fn of(sha256: &[u8; 32]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&sha256[..16]);
        Self(half)
    }

    /// Reads 32 hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A line of `index.csv`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub image: String,
    pub patient: String,
    pub eye: String,
    pub grade: u8,
    pub split: String,
    pub pack: u32,
    pub record: u32,
    /// As [`Content`] is shown; absent in older datasets.
    #[serde(default)]
    pub content: Option<String>,
}

const HEADER: [&str; 8] = [
    "image", "patient", "eye", "grade", "split", "pack", "record", "content",
];
/// The columns that older datasets have, too.
const OLDER: usize = 7;

/// Why an index is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Size or digest differ from the manifest.
    #[error(
        "index.csv is not the one of this manifest: {found}, expected {expected}; prepare or copy \
         the dataset again"
    )]
    Digest {
        /// Size or SHA-256 found.
        found: String,
        /// Size or SHA-256 in the manifest.
        expected: String,
    },
    /// Other columns.
    #[error("index.csv has the columns {found:?}; expected \"{}\"", HEADER.join(","))]
    Header {
        /// The header of the file.
        found: String,
    },
    /// A line that cannot be read.
    #[error("index.csv: {0}")]
    Csv(#[from] csv::Error),
    /// A row with an impossible value.
    #[error("index.csv, row {row} (image {image:?}): {problem}")]
    Row {
        /// Row, from 1; the header does not count.
        row: u64,
        /// The image named there.
        image: String,
        /// What is wrong.
        problem: String,
    },
    /// A patient is on two sides of the split.
    #[error(
        "index.csv: patient {patient:?} is in both the {} and the {} split, which would make the \
         evaluation worthless; prepare the dataset again with a split by patient", splits[0], splits[1]
    )]
    PatientInTwoSplits {
        /// The patient.
        patient: String,
        /// The sides.
        splits: [Split; 2],
    },
    /// The rows do not match the counts of the manifest.
    #[error("index.csv has {found}, but manifest.json says {expected}")]
    Counts {
        /// What the rows add up to.
        found: String,
        /// What the manifest states.
        expected: String,
    },
}

impl Index {
    /// Parses and checks an index from an untrusted source against its manifest: size and digest,
    /// every value, that no patient is on two sides, that a patient's samples are neighbours, and
    /// that the rows go through every record of every pack once, in order.
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, IndexError> {
        let entry = &manifest.index;
        if bytes.len() as u64 != entry.bytes {
            return Err(IndexError::Digest {
                found: format!("{} bytes", bytes.len()),
                expected: format!("{} bytes", entry.bytes),
            });
        }
        let sha256 = crate::sha256_hex(bytes);
        if sha256 != entry.sha256 {
            return Err(IndexError::Digest {
                found: format!("SHA-256 {sha256}"),
                expected: format!("SHA-256 {}", entry.sha256),
            });
        }
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers()?;
        let with_content = header.iter().eq(HEADER);
        if !with_content && header.iter().ne(HEADER[..OLDER].iter().copied()) {
            return Err(IndexError::Header {
                found: header.iter().take(20).collect::<Vec<_>>().join(","),
            });
        }
        let mut builder = Builder::new(manifest, with_content);
        for (i, row) in reader.deserialize().enumerate() {
            builder.add(i as u64 + 1, row?)?;
        }
        builder.finish()
    }

    /// The training samples, in plan order.
    pub fn train(&self) -> &[Sample] {
        &self.train
    }

    /// The validation samples, in plan order.
    pub fn validation(&self) -> &[Sample] {
        &self.validation
    }

    /// The test samples, in plan order; often none. Nothing that trains or chooses may read them.
    pub fn test(&self) -> &[Sample] {
        &self.test
    }

    /// The samples of one side, in plan order.
    pub fn of(&self, split: Split) -> &[Sample] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        }
    }

    /// The samples of a part, in the order of the index.
    pub fn part(&self, part: Part) -> PartOf<'_> {
        let [train, validation, test] = [&self.train[..], &self.validation, &self.test];
        PartOf(match part {
            Part::Train => [train, &[], &[]],
            Part::Validation => [&[], validation, &[]],
            Part::Test => [&[], &[], test],
            Part::All => [train, validation, test],
        })
    }

    /// Name of a patient by number; `None` beyond the last.
    pub fn patient(&self, id: u32) -> Option<&str> {
        self.patients.get(id as usize).map(String::as_str)
    }

    /// Number of patients on all sides together.
    pub fn patients(&self) -> usize {
        self.patients.len()
    }
}

/// The samples of a part of a dataset, of one side or of several, numbered from 0.
#[derive(Debug, Clone, Copy)]
pub struct PartOf<'a>([&'a [Sample]; 3]);

impl<'a> PartOf<'a> {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.0.iter().map(|side| side.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample of this number. None beyond the last.
    pub fn get(&self, number: usize) -> Option<&'a Sample> {
        let mut number = number;
        for side in self.0 {
            if let Some(sample) = side.get(number) {
                return Some(sample);
            }
            number -= side.len();
        }
        None
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a Sample> + use<'a> {
        self.0.into_iter().flatten()
    }
}

/// Rows to bytes of `index.csv`.
pub(crate) fn write(rows: &[Row]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    writer
        .into_inner()
        .map_err(|error| csv::Error::from(error.into_error()))
}

/// Takes the rows one by one.
struct Builder<'a> {
    manifest: &'a Manifest,
    with_content: bool,
    index: Index,
    counts: Counts,
    images: HashSet<String>,
    /// Number and side of each patient.
    patients: HashMap<String, (u32, Split)>,
    /// Patient of the row before.
    previous: Option<u32>,
    /// Pack and record at which the next row must lie.
    next: (u32, u32),
}

impl<'a> Builder<'a> {
    fn new(manifest: &'a Manifest, with_content: bool) -> Self {
        Self {
            manifest,
            with_content,
            index: Index {
                train: Vec::new(),
                validation: Vec::new(),
                test: Vec::new(),
                patients: Vec::new(),
            },
            counts: Counts::default(),
            images: HashSet::new(),
            patients: HashMap::new(),
            previous: None,
            next: (0, 0),
        }
    }

    fn add(&mut self, number: u64, row: Row) -> Result<(), IndexError> {
        let fail = |problem: String| IndexError::Row {
            row: number,
            image: row.image.chars().take(80).collect(),
            problem,
        };
        if let Some(problem) = name_problem(&row.image) {
            return Err(fail(problem.to_owned()));
        }
        if let Some(problem) = name_problem(&row.patient) {
            return Err(fail(format!("patient: {problem}")));
        }
        let eye = Eye::parse(&row.eye)
            .ok_or_else(|| fail(format!("eye {:?} is not left, right or nothing", row.eye)))?;
        let split = Split::parse(&row.split).ok_or_else(|| {
            fail(format!(
                "split {:?} is not train, validation or test",
                row.split
            ))
        })?;
        if usize::from(row.grade) >= GRADES {
            return Err(fail(format!("grade {} is outside 0 to 4", row.grade)));
        }
        if !self.images.insert(row.image.clone()) {
            return Err(fail("the image is in the index twice".to_owned()));
        }
        if (row.pack, row.record) != self.next {
            let (pack, record) = self.next;
            return Err(fail(format!(
                "lies in pack {} at record {}; the next free place is pack {pack}, record {record}",
                row.pack, row.record
            )));
        }
        let Some(pack) = self.manifest.packs.get(row.pack as usize) else {
            return Err(fail(format!("there is no pack {}", row.pack)));
        };
        if pack.split != split {
            return Err(fail(format!("is for {split}, its pack for {}", pack.split)));
        }
        let content = row.content.as_deref().unwrap_or_default();
        let content = match self.with_content {
            true => Some(Content::parse(content).ok_or_else(|| {
                fail(format!(
                    "content {:?} is not 32 hexadecimal digits",
                    content.chars().take(80).collect::<String>()
                ))
            })?),
            false => None,
        };
        let patient = match self.patients.get(&row.patient) {
            Some(&(_, other)) if other != split => {
                return Err(IndexError::PatientInTwoSplits {
                    patient: row.patient,
                    splits: [other, split],
                });
            }
            Some(&(id, _)) if self.previous != Some(id) => {
                return Err(fail(format!(
                    "the samples of patient {:?} are not neighbours",
                    row.patient
                )));
            }
            Some(&(id, _)) => id,
            None => {
                let id = self.index.patients.len() as u32;
                self.index.patients.push(row.patient.clone());
                self.patients.insert(row.patient, (id, split));
                id
            }
        };
        self.previous = Some(patient);
        self.next = if row.record + 1 < pack.records {
            (row.pack, row.record + 1)
        } else {
            (row.pack + 1, 0)
        };
        self.counts.of_mut(split)[usize::from(row.grade)] += 1;
        let samples = match split {
            Split::Train => &mut self.index.train,
            Split::Validation => &mut self.index.validation,
            Split::Test => &mut self.index.test,
        };
        samples.push(Sample {
            ordinal: samples.len() as u32,
            image: row.image,
            patient,
            eye,
            grade: row.grade,
            pack: row.pack,
            record: row.record,
            content,
        });
        Ok(())
    }

    fn finish(self) -> Result<Index, IndexError> {
        // Equal counts also mean that no record of the last packs was left without a row: the
        // manifest's packs hold as many records as it counts.
        if self.counts != self.manifest.counts {
            let say = |c: &Counts| {
                format!(
                    "by grade {:?} to train, {:?} to validate and {:?} to test",
                    c.train, c.validation, c.test
                )
            };
            return Err(IndexError::Counts {
                found: say(&self.counts),
                expected: say(&self.manifest.counts),
            });
        }
        Ok(self.index)
    }
}

#[cfg(test)]
mod tests;
