//! The table of scores.

use std::collections::HashSet;

use fovea_core::class_map::ClassMap;
use fovea_core::count::count;
use fovea_core::metrics::Score;
use fovea_core::spec::{RunSpec, Scheme};
use fovea_dataset::{Flaw, Found};

use crate::eyes::fused;

/// A photograph with what became of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The photograph.
    pub found: Found,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a photograph.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The model scored it.
    Scored(Scored),
    /// It could not be read, and why.
    Unreadable(String),
}

/// What the model says of a photograph.
#[derive(Debug, Clone)]
pub struct Scored {
    /// Of each class.
    pub probabilities: Vec<f32>,
    /// What a person should look at.
    pub flaws: Vec<Flaw>,
    /// Where the evidence lies, if that was asked for.
    pub map: Option<ClassMap>,
    /// The name of its picture in the folder of maps.
    pub picture: Option<String>,
}

impl Scored {
    /// A score with what a look at the photograph found.
    pub fn of(score: Score, flaws: Vec<Flaw>) -> Self {
        Self {
            probabilities: score.probabilities,
            flaws,
            map: score.map,
            picture: None,
        }
    }
}

/// The table could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the table cannot be written as CSV: {0}")]
pub struct TableError(String);

/// The table under way.
#[derive(Debug)]
pub struct Table {
    scheme: Scheme,
    classes: Vec<String>,
    positive: String,
    fuse_eyes: bool,
    maps: bool,
    rows: Vec<Row>,
}

impl Table {
    /// Of a model that a run of this spec has trained; with a column for the patient's score, and one for the pictures of
    /// maps.
    pub fn new(spec: &RunSpec, fuse_eyes: bool, maps: bool) -> Self {
        let names = 0..spec.model.classes;
        Self {
            scheme: spec.scheme(),
            classes: names.map(|class| spec.model.class_name(class)).collect(),
            positive: format!("grade {} and above", spec.model.positive_from),
            fuse_eyes,
            maps,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The pictures of these names are not there.
    pub fn forget_pictures(&mut self, lost: &[String]) {
        let lost: HashSet<&String> = lost.iter().collect();
        for row in &mut self.rows {
            if let Outcome::Scored(scored) = &mut row.outcome
                && scored
                    .picture
                    .as_ref()
                    .is_some_and(|name| lost.contains(name))
            {
                scored.picture = None;
            }
        }
    }

    /// Which grades are positive, for people.
    pub fn positive(&self) -> &str {
        &self.positive
    }

    /// The probability of the positive classes.
    pub fn score(&self, scored: &Scored) -> f64 {
        self.scheme.p_positive(&scored.probabilities)
    }

    /// How many could not be read.
    pub fn unreadable(&self) -> usize {
        let unreadable = |row: &&Row| matches!(row.outcome, Outcome::Unreadable(_));
        self.rows.iter().filter(unreadable).count()
    }

    /// For people: how many were scored, and how many of them are positive at a half.
    pub fn summary(&self) -> String {
        let scored = self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Scored(scored) => Some(self.score(scored)),
            Outcome::Unreadable(_) => None,
        });
        let scores: Vec<f64> = scored.collect();
        let positive = scores.iter().filter(|score| **score > 0.5).count();
        let read = scores.len();
        let unreadable = match self.unreadable() {
            0 => String::new(),
            n => format!("; {n} could not be read (see the column error)"),
        };
        format!(
            "{} scored, {positive} of them above 0.5 for {}{unreadable}",
            count(read, "photograph", "photographs"),
            self.positive
        )
    }

    /// The table as CSV.
    pub fn csv(&self) -> Result<Vec<u8>, TableError> {
        let failed = |e: csv::Error| TableError(e.to_string());
        let mut writer = csv::Writer::from_writer(Vec::new());
        let count = self.classes.len();
        let mut head: Vec<String> = ["file", "patient", "eye", "class", "class_name", "score"]
            .map(String::from)
            .into();
        head.extend((0..count).map(|class| format!("p{class}")));
        head.extend(self.fuse_eyes.then(|| "patient_score".into()));
        head.push("quality".into());
        head.extend(self.maps.then(|| "map".into()));
        head.push("error".into());
        writer.write_record(&head).map_err(failed)?;
        let mut fused = self.fused().into_iter();
        for Row { found, outcome } in &self.rows {
            let mut row = vec![
                found.path.display().to_string(),
                found.patient.clone(),
                found.eye.as_str().to_owned(),
            ];
            match outcome {
                Outcome::Scored(scored) => {
                    let class = self.scheme.head.predicted(&scored.probabilities);
                    row.extend([class.to_string(), self.classes[class].clone()]);
                    row.push(format!("{:.7}", self.score(scored)));
                    row.extend(scored.probabilities.iter().map(|p| p.to_string()));
                    if self.fuse_eyes {
                        let score = fused.next().flatten();
                        row.push(score.map_or(String::new(), |score| format!("{score:.7}")));
                    }
                    let flaws: Vec<String> = scored.flaws.iter().map(Flaw::to_string).collect();
                    row.push(flaws.join("; "));
                    row.extend(
                        self.maps
                            .then(|| scored.picture.clone().unwrap_or_default()),
                    );
                    row.push(String::new());
                }
                Outcome::Unreadable(reason) => {
                    row.resize(head.len() - 1, String::new());
                    row.push(reason.clone());
                }
            }
            writer.write_record(&row).map_err(failed)?;
        }
        writer.into_inner().map_err(|e| TableError(e.to_string()))
    }

    /// The patient's score of each photograph that was scored.
    fn fused(&self) -> Vec<Option<f64>> {
        let scored = self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Scored(scored) => {
                Some((&*row.found.patient, row.found.eye, self.score(scored)))
            }
            Outcome::Unreadable(_) => None,
        });
        fused(&scored.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use fovea_dataset::Eye;

    use super::*;

    fn found(name: &str, patient: &str, eye: Eye) -> Found {
        Found {
            path: name.into(),
            shown: name.into(),
            image: name.into(),
            patient: patient.into(),
            eye,
            problem: None,
        }
    }

    fn scored(p: f32, flaws: Vec<Flaw>) -> Scored {
        let score = Score {
            sample: 0,
            label: 0,
            probabilities: vec![1.0 - p, p],
            loss: 0.0,
            map: None,
        };
        Scored::of(score, flaws)
    }

    fn spec() -> RunSpec {
        serde_json::from_str(r#"{"name": "dr", "dataset": "eyes"}"#).unwrap()
    }

    #[test]
    fn the_table_has_a_row_for_each_photograph() {
        let mut table = Table::new(&spec(), true, true);
        table.push(Row {
            found: found("a/1_left.png", "1", Eye::Left),
            outcome: Outcome::Scored(scored(0.75, vec![])),
        });
        table.push(Row {
            found: found("a, b.png", "", Eye::Unknown),
            outcome: Outcome::Unreadable("it is empty".into()),
        });
        let mut right = scored(0.25, vec![Flaw::Dark, Flaw::NoDisc]);
        right.picture = Some("1_right.png".into());
        table.push(Row {
            found: found("a/1_right.png", "1", Eye::Right),
            outcome: Outcome::Scored(right),
        });
        let text = String::from_utf8(table.csv().unwrap()).unwrap();
        assert_eq!(
            text,
            "file,patient,eye,class,class_name,score,p0,p1,patient_score,quality,map,error\n\
             a/1_left.png,1,left,1,grade 2 and above,0.7500000,0.25,0.75,0.5000000,,,\n\
             \"a, b.png\",,,,,,,,,,,it is empty\n\
             a/1_right.png,1,right,0,below grade 2,0.2500000,0.75,0.25,0.5000000,dark; no disc,1_right.png,\n"
        );
        assert_eq!(
            table.summary(),
            "2 photographs scored, 1 of them above 0.5 for grade 2 and above; 1 could not be read (see the column error)"
        );
    }
}
