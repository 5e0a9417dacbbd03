//! Which span of which trace: ids, how they are derived, and W3C's text of them.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The key of a context in the metadata of a gRPC call.
pub const TRACEPARENT: &str = "traceparent";

/// Names a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace that it belongs to.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
}

/// What a derived context is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work<'a> {
    /// The run's id.
    pub run: &'a str,
    /// Its lineage, which no other run of the same id has.
    pub lineage: u64,
    /// The generation.
    pub generation: u64,
}

impl Context {
    /// One that nobody else has.
    pub fn random() -> Self {
        let mut bytes = [0; 24];
        // Two spans of one id are a nuisance in a picture, and nothing worse.
        if getrandom::fill(&mut bytes).is_err() {
            bytes[7] = 1;
            bytes[23] = 1;
        }
        let (trace, span) = bytes.split_at(16);
        Self {
            trace: trace.try_into().expect("16 of 24"),
            span: span.try_into().expect("8 of 24"),
        }
    }

    /// The recovery that ends this generation.
    pub fn recovery(work: Work<'_>) -> Self {
        Self::derived("recovery", work, 0)
    }

    /// The formation of this generation.
    pub fn formation(work: Work<'_>) -> Self {
        Self::derived("formation", work, 0)
    }

    /// The checkpoint that this generation takes at `step`.
    pub fn checkpoint(work: Work<'_>, step: u64) -> Self {
        Self::derived("checkpoint", work, step)
    }

    /// This generation's evaluation of `epoch`.
    pub fn evaluation(work: Work<'_>, epoch: u32) -> Self {
        Self::derived("evaluation", work, epoch.into())
    }

    fn derived(what: &str, work: Work<'_>, number: u64) -> Self {
        let Work {
            run,
            lineage,
            generation,
        } = work;
        let text = format!("{what}/{run}/{lineage}/{generation}/{number}");
        Self {
            // Zero is no id.
            trace: xxh3_128(text.as_bytes()).max(1).to_be_bytes(),
            span: xxh3_64(text.as_bytes()).max(1).to_be_bytes(),
        }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self {
            trace: self.trace,
            ..Self::random()
        }
    }

    /// The same span in the trace of `other`.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self {
            trace: other.trace,
            ..self
        }
    }
}

/// As W3C's `traceparent`: `00-TRACE-SPAN-01`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (hex::encode(self.trace), hex::encode(self.span));
        write!(f, "00-{trace}-{span}-01")
    }
}

/// No context.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a traceparent of W3C's version 00")]
pub struct NoContext;

impl FromStr for Context {
    type Err = NoContext;

    /// Reads what [`Display`](fmt::Display) writes, and what other programs write so.
    fn from_str(text: &str) -> Result<Self, NoContext> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(NoContext);
        let (version, trace, span, flags) = (part()?, part()?, part()?, part()?);
        if version != "00" || flags.len() != 2 || parts.next().is_some() {
            return Err(NoContext);
        }
        let mut context = Self {
            trace: [0; 16],
            span: [0; 8],
        };
        hex::decode_to_slice(trace, &mut context.trace).map_err(|_| NoContext)?;
        hex::decode_to_slice(span, &mut context.span).map_err(|_| NoContext)?;
        match context.trace == [0; 16] || context.span == [0; 8] {
            true => Err(NoContext),
            false => Ok(context),
        }
    }
}
