//! The messages, as far as they are used here. Source: tensorflow/core/util/event.proto and core/framework/{summary,tensor}.proto;
//! fields and numbers are theirs.

use prost::{Enumeration, Message, Oneof};

/// An entry of an event file.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since the Unix epoch.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// The step that it is of.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// What it says.
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

/// What an event says.
#[derive(Clone, PartialEq, Oneof)]
pub enum What {
    /// The first one: the version of the file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    /// Values.
    #[prost(message, tag = "5")]
    Summary(Summary),
    /// A session of a program begins or ends.
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// Values of one step.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// Each with its tag.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// A value.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// Its tag.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// A scalar.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
    /// A tensor, for plugins.
    #[prost(message, optional, tag = "8")]
    pub tensor: Option<Tensor>,
    /// Which plugin it is for.
    #[prost(message, optional, tag = "9")]
    pub metadata: Option<Metadata>,
}

/// TensorProto.
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    /// 1: 32-bit floats.
    #[prost(int32, tag = "1")]
    pub dtype: i32,
    /// Its shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
    /// Its elements.
    #[prost(float, repeated, tag = "5")]
    pub float_val: Vec<f32>,
}

/// TensorShapeProto.
#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    /// Its dimensions.
    #[prost(message, repeated, tag = "2")]
    pub dim: Vec<Dim>,
}

/// TensorShapeProto.Dim.
#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    /// Its size.
    #[prost(int64, tag = "1")]
    pub size: i64,
}

/// SummaryMetadata.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    /// What the plugin needs.
    #[prost(message, optional, tag = "1")]
    pub plugin_data: Option<PluginData>,
}

/// SummaryMetadata.PluginData.
#[derive(Clone, PartialEq, Message)]
pub struct PluginData {
    /// Which plugin.
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// Its own message.
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

/// SessionLog.
#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    /// What happens to the session.
    #[prost(enumeration = "SessionStatus", tag = "1")]
    pub status: i32,
}

/// SessionLog.SessionStatus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum SessionStatus {
    /// Not set.
    Unspecified = 0,
    /// It begins: steps from this event's on are void in the files before it.
    Start = 1,
    /// It ends.
    Stop = 2,
    /// A checkpoint was written.
    Checkpoint = 3,
}

/// The first event of a file, written at `wall_time` (seconds since the Unix epoch).
pub fn version(wall_time: f64) -> Event {
    Event {
        wall_time,
        step: 0,
        what: Some(What::FileVersion("brain.Event:2".into())),
    }
}

/// What was written before of `step` and later steps is void.
pub fn session_start(step: u64, wall_time: f64) -> Event {
    let log = SessionLog {
        status: SessionStatus::Start as i32,
    };
    Event {
        wall_time,
        step: step as i64,
        what: Some(What::SessionLog(log)),
    }
}

/// Scalars of a step, by their tags.
pub fn scalar(step: u64, wall_time: f64, values: &[(&str, f64)]) -> Event {
    let value = |(tag, value): &(&str, f64)| Value {
        tag: (*tag).to_owned(),
        simple_value: Some(*value as f32),
        ..Value::default()
    };
    Event {
        wall_time,
        step: step as i64,
        what: Some(What::Summary(Summary {
            value: values.iter().map(value).collect(),
        })),
    }
}
