//! The client's errors: one sentence each, and an exit code.

use std::path::{Path, PathBuf};

use fovea_predict::SOME_UNREADABLE;
use fovea_proto::{Cause, ChannelError, ConvertError, NO_ROOM, cause};
use tonic::Code;

use crate::runfile::RunFileError;
use fovea_core::count::{count, plural};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A mistake on the command line.
    #[error("{0}")]
    Usage(String),
    /// A mistake in run.toml or in a `--set`.
    #[error(transparent)]
    RunFile(#[from] RunFileError),
    /// No channel could be opened.
    #[error(transparent)]
    Channel(ChannelError),
    /// A certificate, a key or a CA cannot be used or made.
    #[error("{0}")]
    Tls(String),
    /// The connection to the coordinator broke.
    #[error("lost the connection to the coordinator at {address}: {reason}")]
    Lost {
        /// The coordinator's address.
        address: String,
        /// The cause, as the transport reports it.
        reason: String,
    },
    /// The connection broke before the answer to a submission: it may have been accepted.
    #[error(
        "{lost}. The {what} may have been accepted all the same: see with `{look}` before you submit it again"
    )]
    Unanswered {
        /// What happened.
        lost: Box<Error>,
        /// `run` or `group`.
        what: &'static str,
        /// The command that tells.
        look: &'static str,
    },
    /// The coordinator answered, and cannot do it now: it is starting or draining, or a store that
    /// it needs cannot be read.
    #[error("the coordinator at {address} cannot do this now: {message}")]
    Unavailable {
        /// The coordinator's address.
        address: String,
        /// The coordinator's reason.
        message: String,
    },
    /// A limit of the coordinator is reached: connections, watches, uploads.
    #[error(
        "the coordinator is at a limit: {0}. Try again later, or have the limit raised in the \
         coordinator's configuration"
    )]
    LimitReached(String),
    /// The coordinator's disk is full, or has too little room for this.
    #[error("the coordinator's disk is too full for this: {0}")]
    NoRoom(String),
    /// The coordinator refused the request.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The coordinator refused the request because of the state of what it is about.
    #[error("the coordinator refused: {message}{}", hint(hint_text))]
    Precondition {
        /// The coordinator's reason.
        message: String,
        /// What to do about it; empty if the reason says so already.
        hint_text: String,
    },
    /// The coordinator failed.
    #[error("the coordinator failed ({code}): {message}; its log has the details")]
    Coordinator {
        /// The gRPC status code.
        code: &'static str,
        /// The coordinator's message.
        message: String,
    },
    /// A message of the coordinator that this client cannot interpret.
    #[error(
        "protocol violation by the coordinator: {0}. Check with --version that coordinator and \
         client have the same version"
    )]
    Protocol(String),
    /// A file that was received differs from what was announced.
    #[error("{what} was damaged in transfer: {problem}. Nothing was written; try again")]
    Damaged {
        /// What was fetched.
        what: String,
        /// The difference.
        problem: String,
    },
    /// The coordinator read the whole checkpoint, and its digest differs from the stored one.
    #[error(
        "{what} is corrupt and was put aside by the coordinator: {problem}. Nothing was written. {next}"
    )]
    Corrupt {
        /// Which checkpoint.
        what: String,
        /// The difference.
        problem: String,
        /// What to do now.
        next: String,
    },
    /// The coordinator cannot read the checkpoint now. That says nothing about its content.
    #[error(
        "{what} cannot be read now: {problem}. It stays listed and nothing was written; try again, \
         and if this goes on, see to the coordinator's checkpoint store"
    )]
    Unreadable {
        /// Which checkpoint.
        what: String,
        /// The coordinator's reason.
        problem: String,
    },
    /// The audit of a run found problems. The report was printed before.
    #[error("the audit of run {run} found {problems}")]
    Audit {
        /// The run's id.
        run: String,
        /// Their number, for people.
        problems: String,
    },
    /// Stored files are not as they were stored. Which, was printed before.
    #[error("{0}")]
    Verification(VerifiedCounts),
    /// The question before a removal was not answered with yes.
    #[error("not confirmed; nothing was removed")]
    NotConfirmed,
    /// Some of several removals failed. Each reason was printed before.
    #[error("{failed} of {of} {} not removed", plural(*failed, "was", "were"))]
    Remove {
        /// Number of failures.
        failed: usize,
        /// Number of things to remove.
        of: usize,
        /// Exit code of the first failure.
        exit_code: u8,
    },
    /// The file to write is there already.
    #[error("{path} exists already; --overwrite replaces it, or name another file")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A prepared dataset could not be made or read.
    #[error("{0}")]
    Dataset(String),
    /// A file of weights cannot be read, or is not of GoogLeNet.
    #[error("{0}")]
    Weights(String),
    /// A process of the embedded cluster failed.
    #[error("{0}")]
    Cluster(String),
    /// The watched run failed.
    #[error("run {run} failed: {reason}")]
    RunFailed {
        /// The run's id.
        run: String,
        /// The coordinator's reason.
        reason: String,
    },
    /// The watched run was cancelled.
    #[error(
        "run {run} was cancelled; `fovea resume {run}` continues it from its newest checkpoint"
    )]
    RunCancelled {
        /// The run's id.
        run: String,
    },
    /// Some photographs could not be read; the others were scored. Which, the table says.
    #[error("{} could not be read; the table says why", count(*photographs, "photograph", "photographs"))]
    SomeUnreadable {
        /// How many.
        photographs: usize,
    },
    /// A signal (Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2) ended the command. The text names what
    /// continues and what was stopped.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

/// Stored files by the state in which a verification found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCounts {
    /// What was verified, such as `run dr-1`.
    pub what: String,
    /// Files verified; 0 if the number was printed before.
    pub of: usize,
    /// Read to the end, and size or digest differ.
    pub corrupt: usize,
    /// Not there, while their store is.
    pub missing: usize,
    /// Could not be read now.
    pub unreadable: usize,
    /// In the store, and unknown to the journal.
    pub unlisted: usize,
}

impl VerifiedCounts {
    fn only_unreadable(&self) -> bool {
        self.unreadable > 0 && self.corrupt + self.missing + self.unlisted == 0
    }
}

impl std::fmt::Display for VerifiedCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let states = [
            (self.corrupt, "corrupt"),
            (self.missing, "missing"),
            (self.unreadable, "unreadable now (try again)"),
            (self.unlisted, "unlisted"),
        ];
        let found: Vec<String> = states
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, state)| format!("{n} {state}"))
            .collect();
        let found = found.join(", ");
        match self.of {
            // The number was printed before.
            0 => write!(f, "{}: {found}", self.what),
            of => write!(
                f,
                "{}: of {}, {found}",
                self.what,
                count(of, "file", "files")
            ),
        }
    }
}

fn hint(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(". {text}")
    }
}

/// The table of exit codes, as the help prints it.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done; the watched run completed or was paused
  1    another error (a file, a process, a broken answer)
  2    wrong usage, a run.toml with mistakes, or certificates that one end does not accept
  3    the coordinator cannot be reached, is at a limit, or cannot do it now: try again
  4    the coordinator refused
  5    the run failed
  6    the run was cancelled
  7    stored data are wrong: an audit found problems, a stored file is corrupt or missing, or belongs
       to no run
  8    stored data cannot be read now, and none that could be read are wrong: try again
  9    predict: some photographs could not be read, and the others were scored
  130  stopped by a signal (Ctrl-C, TERM, HUP, USR1, USR2)
  141  standard output was closed";

impl Error {
    /// The exit code of this error; see [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::RunFile(_) => 2,
            Error::Tls(_) => 2,
            Error::Channel(error) if error.is_final() => 2,
            Error::Channel(_)
            | Error::Lost { .. }
            | Error::Unanswered { .. }
            | Error::Unavailable { .. }
            | Error::NoRoom(_)
            | Error::LimitReached(_) => 3,
            Error::Refused(_) | Error::Precondition { .. } => 4,
            Error::RunFailed { .. } => 5,
            Error::RunCancelled { .. } => 6,
            Error::Corrupt { .. } | Error::Audit { .. } => 7,
            Error::Verification(counts) if counts.only_unreadable() => 8,
            Error::Verification(_) => 7,
            Error::Unreadable { .. } => 8,
            Error::SomeUnreadable { .. } => SOME_UNREADABLE,
            Error::Interrupted(_) => 130,
            Error::Remove { exit_code, .. } => *exit_code,
            Error::Coordinator { .. }
            | Error::Protocol(_)
            | Error::NotConfirmed
            | Error::Damaged { .. }
            | Error::Exists { .. }
            | Error::Io { .. }
            | Error::Dataset(_)
            | Error::Weights(_)
            | Error::Cluster(_) => 1,
        }
    }

    /// Adds what to do to an error about the state of something, unless its text names a command.
    pub fn with_hint(self, hint: impl FnOnce() -> String) -> Self {
        match self {
            Error::Precondition { message, .. } => Error::Precondition {
                hint_text: if ["fovea ", "--", "try again"]
                    .iter()
                    .any(|said| message.contains(said))
                {
                    String::new()
                } else {
                    hint()
                },
                message,
            },
            other => other,
        }
    }

    /// A submission whose connection broke may have been accepted.
    pub fn of_submission(self, what: &'static str, look: &'static str) -> Self {
        match self {
            lost @ Error::Lost { .. } => Error::Unanswered {
                lost: Box::new(lost),
                what,
                look,
            },
            other => other,
        }
    }

    /// An error about a file.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io {
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// The error for a gRPC status from the coordinator at `address`. The coordinator's text is kept.
    pub fn from_status(status: &tonic::Status, address: &str) -> Self {
        let message = || {
            let text = status.message().trim().trim_end_matches('.');
            if text.is_empty() {
                status.code().description().to_owned()
            } else {
                text.to_owned()
            }
        };
        if let Some(source) = std::error::Error::source(status) {
            return match cause(source) {
                Cause::Limit(reason) => Error::LimitReached(reason),
                Cause::Tls(reason) => Error::Channel(ChannelError::Refused {
                    address: address.to_owned(),
                    reason,
                }),
                Cause::Broken(reason) => Error::Lost {
                    address: address.to_owned(),
                    reason,
                },
            };
        }
        match status.code() {
            Code::Unavailable => Error::Unavailable {
                address: address.to_owned(),
                message: message(),
            },
            Code::ResourceExhausted if message().contains(NO_ROOM) => Error::NoRoom(message()),
            Code::ResourceExhausted => Error::LimitReached(message()),
            Code::FailedPrecondition => Error::Precondition {
                message: message(),
                hint_text: String::new(),
            },
            Code::Internal | Code::DataLoss | Code::Unknown => Error::Coordinator {
                code: code_name(status.code()),
                message: message(),
            },
            Code::Unimplemented => Error::Refused(match status.message().trim() {
                "" => "it does not know this request. Check with --version that coordinator and \
                       client have the same version"
                    .into(),
                text => text.to_owned(),
            }),
            _ => Error::Refused(message()),
        }
    }
}

/// Whether the same request may succeed later: the connection broke, or the coordinator is
/// unavailable.
///
/// tonic reports a broken connection under several codes; what they have in common is a source error
/// below the status, which a status sent by the other side never has.
pub(crate) fn is_transient(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unavailable) || std::error::Error::source(status).is_some()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Internal => "INTERNAL",
        Code::DataLoss => "DATA_LOSS",
        _ => "UNKNOWN",
    }
}

impl From<ChannelError> for Error {
    fn from(e: ChannelError) -> Self {
        match e {
            ChannelError::Limit { reason, .. } => Error::LimitReached(reason),
            other => Error::Channel(other),
        }
    }
}

impl From<fovea_judging::Error> for Error {
    fn from(e: fovea_judging::Error) -> Self {
        match e {
            fovea_judging::Error::Usage(text) => Error::Usage(text),
            fovea_judging::Error::Protocol(text) => Error::Protocol(text),
            fovea_judging::Error::Dataset(text) => Error::Dataset(text),
        }
    }
}

impl From<ConvertError> for Error {
    fn from(e: ConvertError) -> Self {
        Error::Protocol(e.to_string())
    }
}

#[cfg(test)]
mod tests;
