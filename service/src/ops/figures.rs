//! Figures for Prometheus: a table of what there is, and the values of one scrape.
//!
//! A program reads its state at the scrape and fills [`Figures`]; nothing is kept between scrapes, so no series outlives what
//! it is about. [`reference`] writes the table for people.

use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only increases.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Numbers of observations up to each of several bounds.
    Histogram,
}

impl Kind {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }
}

/// A metric of a program.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, without the `_total` of a counter.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, as one sentence without a full stop.
    pub help: &'static str,
}

impl Metric {
    /// Its name in queries.
    pub fn full_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

/// The metrics as a table in Markdown, for the reference.
pub fn reference(metrics: &[Metric]) -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            metric.full_name(),
            metric.kind.as_str(),
            labels.join(", "),
            metric.help
        );
    }
    text
}

/// A metric's values, each with the values of its labels.
type Family = (&'static Metric, Vec<(Vec<String>, Value)>);

#[derive(Debug)]
enum Value {
    Number(f64),
    Histogram(Counts),
}

/// The values of one scrape, in the order in which their metrics were first added.
#[derive(Debug, Default)]
pub struct Figures(Vec<Family>);

impl Figures {
    /// Adds a value for these values of the metric's labels.
    ///
    /// # Panics
    /// If there are not as many as the metric has labels.
    pub fn add(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.push(metric, labels, Value::Number(value));
    }

    /// Adds a value, if there is one.
    pub fn add_some(&mut self, metric: &'static Metric, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(metric, labels, value);
        }
    }

    /// Adds the counts of a histogram.
    pub fn add_counts(&mut self, metric: &'static Metric, labels: &[&str], counts: Counts) {
        self.push(metric, labels, Value::Histogram(counts));
    }

    fn push(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        assert_eq!(
            labels.len(),
            metric.labels.len(),
            "labels of {}",
            metric.name
        );
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        match self
            .0
            .iter_mut()
            .find(|(known, _)| known.name == metric.name)
        {
            Some((_, values)) => values.push((labels, value)),
            None => self.0.push((metric, vec![(labels, value)])),
        }
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, values) in &self.0 {
            let (name, help) = (metric.name, metric.help);
            let kind = metric.kind.metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in values {
                let names = metric.labels.iter().copied();
                let labels: Vec<(&str, &str)> =
                    names.zip(labels.iter().map(String::as_str)).collect();
                let mut one = family.encode_family(&labels)?;
                match value {
                    Value::Histogram(Counts {
                        sum,
                        count,
                        buckets,
                    }) => one.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?,
                    Value::Number(value) if metric.kind == Kind::Counter => {
                        ConstCounter::new(*value).encode(one)?;
                    }
                    Value::Number(value) => ConstGauge::new(*value).encode(one)?,
                }
            }
        }
        Ok(())
    }
}

/// Numbers of observations, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    sum: f64,
    count: u64,
    /// Upper bound and number of observations between it and the one before; the last bound is infinite.
    buckets: Vec<(f64, u64)>,
}

/// Counts observations between fixed bounds. It begins at zero with its process.
#[derive(Debug)]
pub struct Histogram(Mutex<Counts>);

impl Histogram {
    /// An empty one with these bounds, which increase.
    pub fn new(bounds: &[f64]) -> Self {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        Self(Mutex::new(Counts {
            sum: 0.0,
            count: 0,
            buckets: bounds.map(|bound| (bound, 0)).collect(),
        }))
    }

    /// Counts `value`. One that is not a number is left out.
    pub fn observe(&self, value: f64) {
        let mut counts = self.lock();
        let at = counts.buckets.iter().position(|(bound, _)| value <= *bound);
        if let Some(at) = at {
            counts.buckets[at].1 += 1;
            counts.sum += value;
            counts.count += 1;
        }
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // No holder of the lock panics; and numbers are numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    static STEPS: Metric = Metric {
        name: "x_steps",
        kind: Kind::Counter,
        labels: &["run"],
        help: "Steps",
    };
    static SECONDS: Metric = Metric {
        name: "x_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "Times",
    };
    static FREE: Metric = Metric {
        name: "x_free_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Room",
    };

    #[test]
    fn values_are_written_by_metric() {
        let mut figures = Figures::default();
        figures.add(&STEPS, &["a-1"], 3.0);
        figures.add_some(&FREE, &[], None);
        let times = Histogram::new(&[0.1, 1.0]);
        for seconds in [0.05, 0.1, 0.5, 7.0, f64::NAN] {
            times.observe(seconds);
        }
        figures.add_counts(&SECONDS, &[], times.counts());
        // Of a hostile name.
        figures.add(&STEPS, &["b\"\n-2"], 0.0);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(figures));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let expected = r#"# HELP x_steps Steps.
# TYPE x_steps counter
x_steps_total{run="a-1"} 3.0
x_steps_total{run="b\"\n-2"} 0.0
# HELP x_seconds Times.
# TYPE x_seconds histogram
x_seconds_sum 7.65
x_seconds_count 4
x_seconds_bucket{le="0.1"} 2
x_seconds_bucket{le="1.0"} 3
x_seconds_bucket{le="+Inf"} 4
# EOF
"#;
        // The library may end a help text with a full stop.
        assert_eq!(
            text.replace("Steps\n", "Steps.\n")
                .replace("Times\n", "Times.\n"),
            expected
        );
    }

    #[test]
    fn the_reference_has_a_row_for_each() {
        assert_eq!(
            reference(&[STEPS, FREE]),
            "| metric | kind | labels | meaning |\n|---|---|---|---|\n\
             | `x_steps_total` | counter | `run` | Steps |\n| `x_free_bytes` | gauge |  | Room |\n"
        );
    }
}
