//! The text that Prometheus scrapes, read strictly: what the format of OpenMetrics forbids is an error here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

/// The samples of a scrape.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Exposition {
    /// By name and labels as they are in the text, such as `fovea_steps_total{run="dr-1"}`.
    pub samples: BTreeMap<String, Sample>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of the metric, without what a counter's or histogram's samples add.
    pub family: String,
    /// What it says after `# TYPE`.
    pub kind: String,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// Whether Prometheus takes it for something that only grows.
    pub fn is_counter(&self) -> bool {
        matches!(self.kind.as_str(), "counter" | "histogram")
    }
}

/// What the samples of a kind add to the name.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total", "_created"],
        "histogram" => &["_bucket", "_sum", "_count", "_created"],
        "info" => &["_info"],
        _ => &[""],
    }
}

impl Exposition {
    /// Reads a scrape.
    ///
    /// # Errors
    /// What is wrong, with the line: a sample without a type, one that is there twice, a value that is no number, no
    /// end.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text
            .strip_suffix("# EOF\n")
            .ok_or("it does not end with `# EOF`")?;
        let mut found = Self::default();
        let mut types: BTreeSet<&str> = BTreeSet::new();
        let mut current = ("", "");
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                match what {
                    "TYPE" => {
                        if !types.insert(name) {
                            return Err(format!("{line}: there are two types"));
                        }
                        current = (name, words.next().unwrap_or(""));
                    }
                    "HELP" | "UNIT" => {}
                    _ => return Err(format!("{line}: no such comment")),
                }
                continue;
            }
            let (key, value) = line
                .rsplit_once(' ')
                .ok_or_else(|| format!("{line}: no value"))?;
            let value: f64 = value
                .parse()
                .map_err(|_| format!("{line}: the value is no number"))?;
            let name = name_and_labels(key).ok_or_else(|| format!("{line}: no name and labels"))?;
            let (family, kind) = current;
            let suffix = name.strip_prefix(family);
            if family.is_empty() || !suffix.is_some_and(|s| suffixes(kind).contains(&s)) {
                return Err(format!("{line}: stands below the type {family} {kind}"));
            }
            let sample = Sample {
                family: family.to_owned(),
                kind: kind.to_owned(),
                value,
            };
            if found.samples.insert(key.to_owned(), sample).is_some() {
                return Err(format!("{line}: is there twice"));
            }
        }
        Ok(found)
    }

    /// The value of a sample.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.samples.get(key).map(|sample| sample.value)
    }

    /// Whether a sample has this label.
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        let (first, later) = (
            format!("{{{name}=\"{value}\""),
            format!(",{name}=\"{value}\""),
        );
        let mut keys = self.samples.keys();
        keys.any(|key| key.contains(&first) || key.contains(&later))
    }
}

/// The name before the labels, if both are written as they must be.
fn name_and_labels(key: &str) -> Option<&str> {
    let (name, labels) = match key.split_once('{') {
        None => (key, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = |text: &str| !text.is_empty() && text.chars().all(plain);
    // No label of this project's has a quote or a comma in its value.
    let is_label = |pair: &str| {
        pair.split_once('=').is_some_and(|(name, value)| {
            let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            is_name(name) && inner.is_some_and(|inner| !inner.contains('"'))
        })
    };
    let all = labels.is_empty() || labels.split(',').all(is_label);
    (is_name(name) && all).then_some(name)
}

/// What `promtool check metrics` says against a scrape.
///
/// # Errors
/// Promtool cannot be started or asked.
pub fn promtool(text: &str) -> std::io::Result<Vec<String>> {
    // It reads the older format, in which a counter's help names it with `_total`, and there are no units and infos.
    let older = |line: &&str| !line.starts_with("# UNIT") && !line.contains("fovea_build");
    let text: Vec<&str> = text.lines().filter(older).collect();
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all((text.join("\n") + "\n").as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints = said
        .lines()
        .filter(|line| !line.ends_with("_total no help text"));
    Ok(complaints.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_steps Steps.\n# TYPE a_steps counter\na_steps_total{run=\"r-1\"} 3\n\
        # TYPE a_load gauge\na_load{worker=\"w0-1\",state=\"idle\"} NaN\n# TYPE a_time histogram\n\
        a_time_sum 0.5\na_time_count 1\na_time_bucket{le=\"+Inf\"} 1\n# EOF\n";

    #[test]
    fn samples_are_found_with_their_kind() {
        let found = Exposition::parse(TEXT).unwrap();
        assert_eq!(found.samples.len(), 5);
        assert_eq!(found.value("a_steps_total{run=\"r-1\"}"), Some(3.0));
        assert!(found.samples["a_steps_total{run=\"r-1\"}"].is_counter());
        assert!(found.samples["a_time_bucket{le=\"+Inf\"}"].is_counter());
        assert!(!found.samples["a_load{worker=\"w0-1\",state=\"idle\"}"].is_counter());
        assert!(found.has_label("worker", "w0-1") && found.has_label("state", "idle"));
        assert!(!found.has_label("worker", "w0") && !found.has_label("orker", "w0-1"));
    }

    #[test]
    fn what_the_format_forbids_is_an_error() {
        for (from, to, said) in [
            ("# EOF\n", "", "# EOF"),
            ("a_steps_total{", "a_steps{", "stands below"),
            ("a_load{", "b_load{", "stands below"),
            ("NaN", "none", "no number"),
            ("a_time_count 1", "a_time_count 1\na_time_count 1", "twice"),
            ("TYPE a_load", "TYPE a_steps", "two types"),
            ("run=\"r-1\"", "run=r-1", "no name and labels"),
            ("# HELP", "# HELLO", "no such comment"),
        ] {
            let error = Exposition::parse(&TEXT.replace(from, to)).unwrap_err();
            assert!(error.contains(said), "{from} -> {to}: {error}");
        }
    }
}
