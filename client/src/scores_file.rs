//! The table of scores that `fovea evaluate --csv` and `fovea baseline --csv` write, and `fovea baseline --scores` reads: one row
//! a photograph.

use std::collections::HashMap;
use std::path::Path;

use fovea_core::spec::RunSpec;
use fovea_dataset::PartOf;
use fovea_evaluation::Sample;

use crate::error::Error;
use crate::receive::write_whole;

/// Columns before the probabilities.
const FIRST: [&str; 5] = ["image", "patient", "eye", "grade", "label"];
/// The last column, which follows from the others.
const LAST: &str = "p_positive";

/// Writes the scores of `samples`, which are those of `part` in its order. The file appears whole or not at all.
///
/// # Errors
/// It is there and not to be replaced, or cannot be written.
pub fn write(
    file: &Path,
    overwrite: bool,
    part: PartOf<'_>,
    samples: &[Sample],
    spec: &RunSpec,
) -> Result<(), Error> {
    let positive = spec.positive_class() as usize;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |e: csv::Error| Error::io(file, std::io::Error::other(e));
    writer.write_record(header(spec)).map_err(failed)?;
    for (indexed, sample) in part.iter().zip(samples) {
        let mut row = vec![indexed.image.clone(), sample.patient.clone()];
        row.push(indexed.eye.as_str().to_owned());
        row.extend([sample.grade.to_string(), sample.label.to_string()]);
        row.extend(sample.probabilities.iter().map(|p| p.to_string()));
        row.push(format!("{:.7}", sample.p_positive(positive)));
        writer.write_record(&row).map_err(failed)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|e| Error::io(file, std::io::Error::other(e.to_string())))?;
    write_whole(file, overwrite, &bytes)
}

fn header(spec: &RunSpec) -> Vec<String> {
    let classes = (0..spec.model.classes).map(|class| format!("p{class}"));
    let first = FIRST.into_iter().map(String::from);
    first.chain(classes).chain([LAST.to_owned()]).collect()
}

/// Reads the scores of the photographs of `part`, in its order and class by class. `names`: image and patient of each; `spec`
/// says how grades became labels.
///
/// # Errors
/// Names the file and the row that does not fit, or the first photograph that is missing.
pub fn read(
    file: &Path,
    part: PartOf<'_>,
    patient: impl Fn(u32) -> String,
    spec: &RunSpec,
) -> Result<Vec<f32>, Error> {
    let broken = |what: String| Error::Usage(format!("{}: {what}", file.display()));
    let mut reader = csv::Reader::from_path(file).map_err(|e| broken(e.to_string()))?;
    let expected = header(spec);
    let found = reader.headers().map_err(|e| broken(e.to_string()))?;
    if !found.iter().eq(expected.iter().map(String::as_str)) {
        return Err(broken(format!(
            "its columns are {}, and these labels need {}: score the model with the same labels",
            found.iter().take(20).collect::<Vec<_>>().join(","),
            expected.join(",")
        )));
    }
    let classes = spec.model.classes as usize;
    let mut scores: HashMap<(String, String), (u64, Vec<f32>)> = HashMap::new();
    for (number, row) in reader.records().enumerate() {
        let number = number as u64 + 1;
        let row = row.map_err(|e| broken(e.to_string()))?;
        let probability = |class: usize| {
            let text = row.get(FIRST.len() + class).unwrap_or_default();
            let value: Option<f32> = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
            value.ok_or_else(|| {
                broken(format!(
                    "row {number}: p{class} is {text:?} and no number from 0 to 1"
                ))
            })
        };
        let p = (0..classes)
            .map(probability)
            .collect::<Result<Vec<_>, _>>()?;
        let sum: f32 = p.iter().sum();
        if (sum - 1.0).abs() > 1e-3 {
            return Err(broken(format!(
                "row {number}: the probabilities add up to {sum}"
            )));
        }
        let (grade, label) = (
            row.get(3).unwrap_or_default(),
            row.get(4).unwrap_or_default(),
        );
        let class = grade.parse().ok().map(|grade| spec.class_of(grade));
        if class.map(|class| class.to_string()).as_deref() != Some(label) {
            return Err(broken(format!(
                "row {number}: grade {grade} has the label {label}, which it has not with these labels: score the model with \
                 the same labels"
            )));
        }
        let cell = |at: usize| row.get(at).unwrap_or_default().to_owned();
        if let Some((before, _)) = scores.insert((cell(0), cell(1)), (number, p)) {
            return Err(broken(format!(
                "rows {before} and {number} are of the same photograph, {}",
                cell(0)
            )));
        }
    }
    let mut all = Vec::with_capacity(part.len() * classes);
    for sample in part.iter() {
        let key = (sample.image.clone(), patient(sample.patient));
        let Some((_, p)) = scores.remove(&key) else {
            return Err(broken(format!(
                "it has no row for image {} of patient {}: score the model on the same part of the same dataset",
                key.0, key.1
            )));
        };
        all.extend(p);
    }
    if let Some(((image, _), (row, _))) = scores.into_iter().min_by_key(|(_, (row, _))| *row) {
        return Err(broken(format!(
            "row {row}: image {image} is not in this part of the dataset: score the model on the same part"
        )));
    }
    Ok(all)
}
