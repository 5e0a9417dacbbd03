//! The table of scores that `fovea evaluate --csv` and `fovea baseline --csv` write, and `fovea baseline --scores` reads: one row
//! a photograph.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use fovea_core::count::count;
use fovea_core::spec::RunSpec;
use fovea_dataset::PartOf;
use fovea_evaluation::Sample;

use crate::error::Error;
use crate::receive::write_whole;

/// Columns before the probabilities.
const FIRST: [&str; 5] = ["image", "patient", "eye", "grade", "label"];
/// The last column, which follows from the others.
const LAST: &str = "p_positive";
/// How far [`LAST`] may be from the sum of its classes: it is written with seven decimals, and a table may be rounded later.
const ROUNDING: f64 = 1e-4;

/// Rows by image and patient: the row's number, and the probability of each class.
type Rows = HashMap<(String, String), (u64, Vec<f32>)>;

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
    if file.is_dir() {
        return Err(broken("it is a folder; name a table in it".into()));
    }
    let open = File::open(file).map_err(|e| broken(e.to_string()))?;
    let mut scores = rows(BufReader::new(open), spec).map_err(broken)?;
    let classes = spec.model.classes as usize;
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

/// Reads the rows of a table, which fit the labels of `spec`.
fn rows(mut table: impl BufRead, spec: &RunSpec) -> Result<Rows, String> {
    let begin = table.fill_buf().map_err(|e| e.to_string())?;
    // A character may be cut off at the end.
    let is_text = std::str::from_utf8(begin).map_or_else(|e| e.error_len().is_none(), |_| true);
    if !is_text || begin.contains(&0) {
        return Err(
            "it is no table: what is in it is no text in UTF-8; take one of `fovea evaluate --csv`"
                .into(),
        );
    }
    let mut reader = csv::Reader::from_reader(table);
    let found = reader.headers().map_err(|e| said(&e))?;
    let (expected, found) = (header(spec), found.iter().collect::<Vec<_>>());
    if found != expected {
        return Err(other_table(&found, &expected));
    }
    let mut rows = Rows::new();
    for (number, row) in reader.records().enumerate() {
        let number = number as u64 + 1;
        let broken = |what: String| format!("row {number}: {what}");
        let row = row.map_err(|e| broken(said(&e)))?;
        let p = probabilities(&row, spec).map_err(broken)?;
        let cell = |at: usize| row.get(at).unwrap_or_default();
        let (grade, label) = (cell(3), cell(4));
        let class = grade.parse().ok().map(|grade| spec.class_of(grade));
        if class.map(|class| class.to_string()).as_deref() != Some(label) {
            return Err(broken(format!(
                "grade {grade} has the label {label}, which it has not with these labels: score the model with the same labels"
            )));
        }
        let key = (cell(0).to_owned(), cell(1).to_owned());
        if let Some((before, _)) = rows.insert(key, (number, p)) {
            return Err(format!(
                "rows {before} and {number} are of the same photograph, {}",
                cell(0)
            ));
        }
    }
    Ok(rows)
}

/// The probability of each class in a row.
fn probabilities(row: &csv::StringRecord, spec: &RunSpec) -> Result<Vec<f32>, String> {
    let (classes, positive) = (spec.model.classes, spec.positive_class());
    let cell = |class: u32| row.get(FIRST.len() + class as usize).unwrap_or_default();
    let probability = |class: u32| {
        let text = cell(class);
        let value: Option<f32> = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
        value.ok_or_else(|| format!("p{class} is {text:?} and no number from 0 to 1"))
    };
    let p = (0..classes)
        .map(probability)
        .collect::<Result<Vec<_>, _>>()?;
    let sum: f32 = p.iter().sum();
    if (sum - 1.0).abs() > 1e-3 {
        return Err(format!("the probabilities add up to {sum}"));
    }
    // Behind the last class.
    let text = cell(classes);
    let Some(given) = text.parse::<f64>().ok().filter(|p| p.is_finite()) else {
        return Err(format!("{LAST} is {text:?} and no number from 0 to 1"));
    };
    let positives = p.iter().skip(positive as usize);
    let sum: f64 = positives.map(|&p| f64::from(p)).sum();
    if (given - sum.clamp(0.0, 1.0)).abs() > ROUNDING {
        return Err(format!(
            "{LAST} is {text}, and the probabilities of the positive classes (from p{positive} on) add up to {sum:.4}"
        ));
    }
    Ok(p)
}

/// What is wrong with a table whose columns are not the expected ones.
fn other_table(found: &[&str], expected: &[String]) -> String {
    let expected = expected.join(",");
    let has = |names: &[&str]| names.iter().all(|name| found.contains(name));
    match found {
        [] => return "it is empty".into(),
        [one] if one.contains([';', '\t']) => {
            let by = match one.contains(';') {
                true => "semicolons",
                false => "tabs",
            };
            return format!(
                "its columns are separated by {by}: commas are needed, as `fovea evaluate --csv` writes them"
            );
        }
        _ if has(&["file", "class", "score"]) => {
            return "this is a table of `fovea predict`, which has no grades: take one of `fovea evaluate --csv`".into();
        }
        _ => {}
    }
    let columns: Vec<&str> = found.iter().take(20).copied().collect();
    let columns = columns.join(",");
    match is_evaluation(found) {
        true => format!(
            "its columns are {columns}, and these labels need {expected}: score the model with the same labels"
        ),
        false => format!(
            "its columns are {columns}, so it is no table of scores: take one of `fovea evaluate --csv`, with the columns {expected}"
        ),
    }
}

/// Whether these are the columns of an evaluation, with any number of classes.
fn is_evaluation(found: &[&str]) -> bool {
    let inner = found
        .strip_prefix(&FIRST)
        .and_then(|f| f.strip_suffix(&[LAST]));
    let is_class = |(class, name): (usize, &&str)| *name == format!("p{class}");
    inner.is_some_and(|classes| classes.iter().enumerate().all(is_class))
}

/// An error of the CSV reader, without the place, for people.
fn said(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "what is in it is no text in UTF-8".into(),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!(
            "it has {}, and the header has {expected_len}",
            count(*len, "cell", "cells")
        ),
        csv::ErrorKind::Io(e) => e.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(classes: u32, positive_from: u32) -> RunSpec {
        let text = format!(
            "name = \"a\"\ndataset = \"b\"\n[model]\nclasses = {classes}\npositive_from = {positive_from}"
        );
        toml::from_str(&text).unwrap()
    }

    #[track_caller]
    fn refused(table: impl AsRef<[u8]>, wanted: &str) {
        let error = rows(table.as_ref(), &spec(2, 2)).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }

    const HEAD: &str = "image,patient,eye,grade,label,p0,p1,p_positive\n";

    #[test]
    fn tables_of_other_kinds_are_told_apart() {
        for empty in ["", "\n\n"] {
            refused(empty, "it is empty");
        }
        refused(
            "file,patient,eye,class,class_name,score,p0,p1,quality,error\n1.png,,,,,,,,,\n",
            "this is a table of `fovea predict`, which has no grades",
        );
        refused(HEAD.replace(',', ";"), "separated by semicolons: ");
        refused(HEAD.replace(',', "\t"), "separated by tabs: ");
        refused("image,level\n1_left,0\n", "it is no table of scores");
        refused("{\"a\": [1,2]}\n", "it is no table of scores");
        let grades = "image,patient,eye,grade,label,p0,p1,p2,p3,p4,p_positive\n";
        refused(grades, "score the model with the same labels");
        refused([0x50, 0x4b, 3, 4, 0, 0], "it is no table: ");
        refused([0xff, 0xfe, b'i'], "it is no table: ");
        // Umlauts of another encoding, later.
        let mut later =
            format!("{HEAD}a{},1,left,0,0,0.5,0.5,0.5\n", "b".repeat(9000)).into_bytes();
        later.extend(b"M\xfcller,1,left,0,0,0.5,0.5,0.5\n");
        let later = rows(BufReader::new(&later[..]), &spec(2, 2)).unwrap_err();
        assert_eq!(later, "row 2: what is in it is no text in UTF-8");
    }

    #[test]
    fn a_row_that_contradicts_itself_is_refused() {
        let of = |row: &str| format!("{HEAD}1_left,1,left,0,0,0.25,0.75,0.7500000\n{row}\n");
        let good = rows(
            of("1_right,1,right,2,1,0.9,0.1,0.10004").as_bytes(),
            &spec(2, 2),
        );
        let good = good.unwrap();
        assert_eq!(good[&("1_right".into(), "1".into())], (2, vec![0.9, 0.1]));
        for (p, said) in [
            ("0.1011", "row 2: p_positive is 0.1011, and the prob"),
            ("0.9", "(from p1 on) add up to 0.1000"),
            ("", "row 2: p_positive is \"\" and no number"),
            ("x", "row 2: p_positive is \"x\" and no number"),
            ("NaN", "row 2: p_positive is \"NaN\" and no number"),
        ] {
            refused(of(&format!("1_right,1,right,2,1,0.9,0.1,{p}")), said);
        }
        refused(
            of("1_right,1,right"),
            "row 2: it has 3 cells, and the header has 8",
        );
        // The sum is of all positive classes.
        let table = "image,patient,eye,grade,label,p0,p1,p2,p3,p4,p_positive\n\
                     1_left,1,left,3,3,0.1,0.2,0.3,0.3,0.1,0.7\n";
        assert!(rows(table.as_bytes(), &spec(5, 2)).is_ok());
        let other = rows(table.as_bytes(), &spec(5, 3)).unwrap_err();
        assert!(other.contains("(from p3 on) add up to 0.4000"), "{other}");
    }
}
