//! What can go wrong in the client, in one clear sentence each, and the exit code that it means.

use std::path::{Path, PathBuf};

use fovea_proto::{ChannelError, ConvertError};
use tonic::Code;

use crate::runfile::RunFileError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// run.toml, or a `--set`, is not a run.
    #[error(transparent)]
    RunFile(#[from] RunFileError),
    /// No channel could be opened.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The coordinator answered once and is gone.
    #[error("the coordinator at {address} cannot be reached any more: {reason}")]
    Lost { address: String, reason: String },
    /// The coordinator understood and said no.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The coordinator failed on its own.
    #[error("the coordinator failed ({code}): {message}; its log says more")]
    Coordinator { code: &'static str, message: String },
    /// What it sent makes no sense.
    #[error(
        "the coordinator sent something that this client does not understand ({0}); are both of one version?"
    )]
    Protocol(String),
    /// A file that was received is not what was announced.
    #[error("{what} arrived damaged: {problem}; nothing was written, try again")]
    Damaged { what: String, problem: String },
    /// The coordinator found that a stored checkpoint is not what was stored.
    #[error("{what} was damaged and has been put aside: {problem}; nothing was written. {next}")]
    PutAside {
        what: String,
        problem: String,
        next: String,
    },
    /// The audit of a run did not come out clean. The report was printed before.
    #[error("the audit of run {run} found {problems}")]
    Audit { run: String, problems: String },
    /// Stored checkpoints are damaged. Which, was printed before.
    #[error(
        "run {run}: {damaged} of {of} checkpoints {} damaged and put aside; `fovea checkpoints {run}` lists the others",
        if *damaged == 1 { "is" } else { "are" }
    )]
    Verification {
        run: String,
        damaged: usize,
        of: usize,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A prepared dataset could not be made or read.
    #[error("{0}")]
    Dataset(String),
    /// A process of the embedded cluster did not do its part.
    #[error("{0}")]
    Cluster(String),
    /// The watched run ended by an error.
    #[error("run {run} failed: {reason}")]
    RunFailed { run: String, reason: String },
    /// The watched run was cancelled.
    #[error("run {run} was cancelled; `fovea resume {run}` goes on from its newest checkpoint")]
    RunCancelled { run: String },
    /// Ctrl-C or SIGTERM. The text says what goes on and what does not.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

/// The table of exit codes, as the help prints it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done; the watched run completed or was paused
  1    another error (a file, a broken answer)
  2    wrong usage, or a run.toml that is not a run
  3    the coordinator cannot be reached
  4    the coordinator refused
  5    the run failed
  6    the run was cancelled
  7    what is stored is not right: an audit found problems, a checkpoint is damaged
  130  interrupted by Ctrl-C or SIGTERM";

impl Error {
    /// The exit code that this error means; see [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::RunFile(_) => 2,
            Error::Channel(ChannelError::Address { .. } | ChannelError::Tls { .. }) => 2,
            Error::Channel(ChannelError::Unreachable { .. }) | Error::Lost { .. } => 3,
            Error::Refused(_) => 4,
            Error::RunFailed { .. } => 5,
            Error::RunCancelled { .. } => 6,
            Error::PutAside { .. } | Error::Audit { .. } | Error::Verification { .. } => 7,
            Error::Interrupted(_) => 130,
            Error::Coordinator { .. }
            | Error::Protocol(_)
            | Error::Damaged { .. }
            | Error::Io { .. }
            | Error::Dataset(_)
            | Error::Cluster(_) => 1,
        }
    }

    /// An error about a file.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io {
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// What a gRPC status from the coordinator at `address` means to a person.
    pub fn from_status(status: &tonic::Status, address: &str) -> Self {
        let message = || {
            let text = status.message().trim();
            if text.is_empty() {
                status.code().description().to_owned()
            } else {
                text.to_owned()
            }
        };
        if is_transient(status) {
            return Error::Lost {
                address: address.to_owned(),
                reason: transport_reason(status).unwrap_or_else(message),
            };
        }
        match status.code() {
            Code::Internal | Code::DataLoss | Code::Unknown => Error::Coordinator {
                code: code_name(status.code()),
                message: message(),
            },
            Code::Unimplemented => Error::Refused(
                "it does not know this request; are coordinator and client of one version?".into(),
            ),
            _ => Error::Refused(message()),
        }
    }
}

/// Whether trying again may help: the coordinator is away, not unwilling.
///
/// tonic reports a broken connection under several codes; what they have in common is a source error
/// below the status, which a status sent by the other side never has.
pub(crate) fn is_transient(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unavailable) || std::error::Error::source(status).is_some()
}

/// The innermost cause of a transport error; tonic's own words say only "transport error".
fn transport_reason(status: &tonic::Status) -> Option<String> {
    let mut last = std::error::Error::source(status)?;
    while let Some(source) = last.source() {
        last = source;
    }
    Some(last.to_string())
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Internal => "INTERNAL",
        Code::DataLoss => "DATA_LOSS",
        _ => "UNKNOWN",
    }
}

impl From<ConvertError> for Error {
    fn from(e: ConvertError) -> Self {
        Error::Protocol(e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn a_status_becomes_one_sentence_and_an_exit_code() {
        let cases = [
            (
                Status::not_found("no run \"x\""),
                4,
                "refused: no run \"x\"",
            ),
            (Status::invalid_argument("train.batch: 0"), 4, "train.batch"),
            (Status::failed_precondition("is running"), 4, "is running"),
            (Status::already_exists("taken"), 4, "taken"),
            (Status::unimplemented(""), 4, "one version"),
            (Status::unavailable("draining"), 3, "draining"),
            (Status::internal("disk"), 1, "failed (INTERNAL): disk"),
        ];
        for (status, exit, part) in cases {
            let error = Error::from_status(&status, "http://h:1");
            let text = error.to_string();
            assert_eq!(error.exit_code(), exit, "{text}");
            assert!(text.contains(part), "{text}");
            assert!(!text.contains("Status {"), "a debug dump: {text}");
        }
    }

    #[test]
    fn a_broken_connection_names_the_address() {
        let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let error = Error::from_status(&Status::from_error(Box::new(broken)), "http://h:1");
        assert_eq!(error.exit_code(), 3);
        assert_eq!(
            error.to_string(),
            "the coordinator at http://h:1 cannot be reached any more: reset by peer"
        );
    }
}
