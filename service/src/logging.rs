//! Logs to standard error: readable lines, or one JSON object a line.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line, spans' fields included.
    Json,
}

/// Why a setting of the logs is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// No such format.
    #[error("{0:?} is neither \"text\" nor \"json\"")]
    Format(String),
    /// The level is no level and no filter.
    #[error(
        "log_level {level:?} is not a level (error, warn, info, debug, trace) or filter: {error}"
    )]
    Level {
        /// The setting.
        level: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// `log_level` has a word that is no level.
    #[error(
        "log_level {level:?}: {word:?} is no level (error, warn, info, debug, trace); for one module write {word}=debug"
    )]
    Word {
        /// The setting.
        level: String,
        /// The word.
        word: String,
    },
}

impl std::str::FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::Format(text.to_owned())),
        }
    }
}

/// The filter that `level` means. A bare word must be a level: the filter's own syntax takes any other for the name of a
/// module, and then nothing is logged.
fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let bare = |part: &&str| !part.is_empty() && !part.contains(['=', '[']) && !is_level(part);
    if let Some(word) = level.split(',').map(str::trim).find(bare) {
        return Err(LoggingError::Word {
            level: level.to_owned(),
            word: word.to_owned(),
        });
    }
    EnvFilter::try_new(level).map_err(|error| LoggingError::Level {
        level: level.to_owned(),
        error,
    })
}

/// Starts logging. `level` is a level (`info`) or a filter (`info,fovea_worker=debug`).
///
/// # Errors
/// If `level` is neither a level nor a filter.
pub fn init_logging(format: LogFormat, level: &str) -> Result<(), LoggingError> {
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
            let error = filter(bad).unwrap_err().to_string();
            assert!(
                error.contains("log_level") && error.contains("is no level"),
                "{error}"
            );
        }
    }
}
