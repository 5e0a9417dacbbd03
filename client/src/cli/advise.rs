//! `fovea advise`: which transfer strategy suits a dataset.

use std::path::Path;

use fovea_core::advice::{Advice, Amount, FEW, MANY, Situation, advise};
use fovea_core::count::count;
use fovea_dataset::{Dataset, GRADES, Split};

use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea advise eyepacs-224                  a folder that `fovea prepare` made, or a dataset of the coordinator
  fovea advise clinic-224 --alike           the weights are those of a run on other fundus photographs

The rules are those of the article: few photographs like those that the weights were trained on: a linear
classifier on the last features; few and unlike: on features of an earlier layer; many: fine-tune. ImageNet's
photographs are unlike fundus photographs. The rules are a start: compare with another strategy on your own
validation split.")]
pub struct Advise {
    /// A folder that `fovea prepare` made, or the name of a dataset of the coordinator
    pub dataset: String,
    /// The weights were trained on photographs like these: fundus photographs of another dataset, not ImageNet
    #[arg(long)]
    pub alike: bool,
    /// The first grade that counts as positive, 1 to 4
    #[arg(long, value_name = "GRADE", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub positive_from: u8,
}

/// Prints the advice. `connect` is called where no folder is meant.
pub async fn run(
    connect: impl AsyncFnOnce() -> Result<Client, Error>,
    command: &Advise,
    output: &Output,
) -> Result<(), Error> {
    let folder = Path::new(&command.dataset);
    let (name, by_grade) = if folder.is_dir() {
        let manifest = Dataset::read_manifest(folder);
        let manifest = manifest.map_err(|error| Error::Dataset(error.to_string()))?;
        (manifest.name.to_string(), *manifest.counts.of(Split::Train))
    } else {
        of_coordinator(&connect().await?, &command.dataset).await?
    };
    let situation = Situation {
        by_grade,
        alike: command.alike,
        positive_from: command.positive_from,
    };
    let advice = advise(&situation);
    output.record(&Record::Advice {
        dataset: &name,
        photographs: by_grade.iter().sum(),
        strategy: advice.strategy,
        settings: advice.settings.iter().copied().collect(),
        reasons: &advice.reasons,
        remarks: &advice.remarks,
    });
    for line in lines(&name, &situation, &advice) {
        output.line(line);
    }
    Ok(())
}

async fn of_coordinator(client: &Client, name: &str) -> Result<(String, [u64; GRADES]), Error> {
    let datasets = client.datasets().await?;
    let found = datasets.into_iter().find(|dataset| dataset.name == name);
    let dataset = found.ok_or_else(|| {
        Error::Usage(format!(
            "{name} is neither a folder here nor a dataset of the coordinator; `fovea dataset list` shows its datasets"
        ))
    })?;
    let mut by_grade = [0; GRADES];
    for (place, n) in by_grade.iter_mut().zip(&dataset.train_grades) {
        *place = *n;
    }
    Ok((dataset.name, by_grade))
}

fn lines(name: &str, situation: &Situation, advice: &Advice) -> Vec<String> {
    let photographs: u64 = situation.by_grade.iter().sum();
    let grades = situation.by_grade.map(|n| n.to_string()).join("/");
    let amount = match advice.amount {
        Amount::Few => format!("few (fewer than {FEW})"),
        Amount::Some => format!("neither few ({FEW}) nor many ({MANY})"),
        Amount::Many => format!("many ({MANY} or more)"),
    };
    let like = match situation.alike {
        true => "like those that the weights were trained on",
        false => "unlike those that the weights were trained on (ImageNet)",
    };
    let mut lines = vec![
        format!(
            "{name}: {} to train on (grades 0-4: {grades}): {amount}; {like}",
            count(photographs, "photograph", "photographs")
        ),
        String::new(),
        format!("Try {} first:", advice.strategy),
        String::new(),
    ];
    let mut table = "";
    for (key, value) in &advice.settings {
        let (of, name) = key.split_once('.').unwrap_or(("", key));
        if of != table {
            lines.push(format!("  [{of}]"));
            table = of;
        }
        lines.push(format!("  {name} = {value}"));
    }
    lines.push(String::new());
    lines.extend(advice.reasons.iter().cloned());
    for remark in &advice.remarks {
        lines.push(String::new());
        lines.push(remark.clone());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_a_table_to_copy() {
        let situation = Situation {
            by_grade: [200, 40, 80, 20, 16],
            alike: false,
            positive_from: 2,
        };
        let lines = lines("clinic", &situation, &advise(&situation));
        assert_eq!(
            lines[0],
            "clinic: 356 photographs to train on (grades 0-4: 200/40/80/20/16): few (fewer than 1000); unlike those that the \
             weights were trained on (ImageNet)"
        );
        assert!(
            lines.contains(&"  strategy = \"linear_probe\"".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"  tap = \"inception_4b/output\"".to_owned()),
            "{lines:?}"
        );
        let at = |line: &str| lines.iter().position(|l| l == line);
        assert!(at("  [train]") < at("  head_lr_mult = 1.0"), "{lines:?}");
        assert_eq!(lines.iter().filter(|l| l.starts_with("  [")).count(), 2);
    }
}
