//! A span from its beginning to its end.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;

use crate::context::Context;
use crate::export::Queue;
use crate::names;

/// Bytes of a text in a span, at most.
const TEXT: usize = 1024;
/// Attributes of a span, at most.
const ATTRIBUTES: usize = 64;

/// What a span is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work within a process.
    Internal,
    /// A call of another process.
    Client,
    /// Answering such a call.
    Server,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text; cut off after 1 KiB.
    Text(String),
    /// A number.
    Number(i64),
    /// A fraction.
    Float(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(shortened(text))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Where spans go; nowhere by default. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Queue>>);

impl Traces {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self(Some(queue))
    }

    /// Whether spans go anywhere.
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Spans that were given up: the queue was full, or the collector refused them.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |queue| queue.dropped())
    }

    /// A span about `run` that begins now.
    pub fn begin(&self, name: &'static str, run: &str, of: Context) -> Span {
        let Some(queue) = &self.0 else {
            return Span(None);
        };
        let mut span = Span(Some(Box::new(Open {
            queue: Arc::clone(queue),
            context: of,
            span: otlp::Span {
                trace_id: of.trace.to_vec(),
                span_id: of.span.to_vec(),
                name: name.to_owned(),
                kind: otlp::span::SpanKind::Internal as i32,
                start_time_unix_nano: nanoseconds(SystemTime::now()),
                // Sampled.
                flags: 1,
                ..otlp::Span::default()
            },
        })));
        span.set(names::RUN, run);
        span
    }

    /// A span about `run` that begins now as a part of `parent`; without a parent it begins a trace.
    pub fn child(&self, name: &'static str, run: &str, parent: Option<Context>) -> Span {
        if !self.are_on() {
            return Span(None);
        }
        match parent {
            Some(parent) => self
                .begin(name, run, parent.sibling())
                .child_of(Some(parent)),
            None => self.begin(name, run, Context::random()),
        }
    }
}

/// A span under way; one of no traces costs nothing. Dropped before its end, it ends as given up.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    queue: Arc<Queue>,
    context: Context,
    span: otlp::Span,
}

impl Span {
    /// Its context, for its parts elsewhere; None if it goes nowhere.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.context)
    }

    /// It is a part of `parent`.
    #[must_use]
    pub fn child_of(mut self, parent: Option<Context>) -> Self {
        if let (Some(open), Some(parent)) = (&mut self.0, parent) {
            open.span.parent_span_id = parent.span.to_vec();
        }
        self
    }

    /// What it is to others.
    #[must_use]
    pub fn of_kind(mut self, kind: Kind) -> Self {
        if let Some(open) = &mut self.0 {
            open.span.kind = match kind {
                Kind::Internal => otlp::span::SpanKind::Internal,
                Kind::Client => otlp::span::SpanKind::Client,
                Kind::Server => otlp::span::SpanKind::Server,
            } as i32;
        }
        self
    }

    /// It began then.
    #[must_use]
    pub fn since(mut self, began: SystemTime) -> Self {
        if let Some(open) = &mut self.0 {
            open.span.start_time_unix_nano = nanoseconds(began);
        }
        self
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let Some(open) = &mut self.0 else {
            return;
        };
        let attribute = attribute(key, value.into());
        let attributes = &mut open.span.attributes;
        match attributes.iter().position(|there| there.key == key) {
            Some(at) => attributes[at] = attribute,
            None if attributes.len() < ATTRIBUTES => attributes.push(attribute),
            None => {}
        }
    }

    /// It ends well.
    pub fn end(mut self) {
        self.finish(otlp::status::StatusCode::Ok, "");
    }

    /// It ends without what it was for.
    pub fn fail(mut self, why: &str) {
        self.finish(otlp::status::StatusCode::Error, why);
    }

    fn finish(&mut self, code: otlp::status::StatusCode, why: &str) {
        if let Some(open) = self.0.take() {
            let Open {
                queue, mut span, ..
            } = *open;
            span.end_time_unix_nano = nanoseconds(SystemTime::now()).max(span.start_time_unix_nano);
            span.status = Some(otlp::Status {
                code: code as i32,
                message: shortened(why),
            });
            queue.add(span);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.finish(otlp::status::StatusCode::Error, "given up before its end");
    }
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Float(number) => any_value::Value::DoubleValue(number),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
