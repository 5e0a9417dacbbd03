//! Logs to standard error: readable lines, or one JSON object a line.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line, spans' fields included.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is neither \"text\" nor \"json\"")),
        }
    }
}

/// The filter that `level` means. A bare word must be a level: the filter's own syntax takes any other for the name of a
/// module, and then nothing is logged.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let refused = |problem: String| {
        format!(
            "log_level {level:?} is not a level (error, warn, info, debug, trace) or filter: {problem}"
        )
    };
    let is_level = |word: &str| {
        word.parse::<tracing_subscriber::filter::LevelFilter>()
            .is_ok()
    };
    let bare = |part: &&str| !part.is_empty() && !part.contains(['=', '[']) && !is_level(part);
    if let Some(word) = level.split(',').map(str::trim).find(bare) {
        return Err(refused(format!(
            "{word:?} is no level; for one module write {word}=debug"
        )));
    }
    EnvFilter::try_new(level).map_err(|e| refused(e.to_string()))
}

/// Starts logging. `level` is a level (`info`) or a filter (`info,fovea_worker=debug`).
///
/// # Errors
/// If `level` is no filter; the message says so.
pub fn init_logging(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(color).with_target(false).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,fovea_worker=debug",
            "fovea_core=trace",
            "",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["blah", "7x", "inf", "info,fovea_worker"] {
            let error = filter(bad).unwrap_err();
            assert!(
                error.contains("log_level") && error.contains("is no level"),
                "{error}"
            );
        }
    }
}
