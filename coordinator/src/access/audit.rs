//! The audit log: a line for each change that somebody asks for, with who, what, on what, and what
//! became of it.

use std::sync::{Arc, Mutex, PoisonError};

use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::{info, warn};

use super::caller::Caller;

/// What a request is about, such as a run's id. The service that reads the message sets it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject(Arc<Mutex<Option<String>>>);

impl Subject {
    /// Of this request.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Names what the request is about. The last name counts: what was made has an id only then.
    pub(crate) fn set(&self, subject: impl ToString) {
        let subject = Some(subject.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = subject;
    }

    fn text(&self) -> String {
        let subject = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subject.clone().unwrap_or_else(|| "?".into())
    }
}

/// A change under way. It is in the log when it ends, also when its client has gone before.
#[derive(Debug)]
pub(super) struct Change {
    caller: Caller,
    method: String,
    subject: Subject,
    result: Option<Code>,
}

impl Change {
    pub(super) fn begin(caller: Caller, path: &str, subject: Subject) -> Self {
        Self {
            caller,
            method: short(path),
            subject,
            result: None,
        }
    }

    /// Takes the result from the answer, which is logged at once.
    pub(super) fn end(mut self, answer: &Response<Body>) {
        let status = Status::from_header_map(answer.headers());
        self.result = Some(status.map_or(Code::Ok, |status| status.code()));
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let Self {
            caller,
            method,
            subject,
            result,
        } = self;
        let (who, subject) = (caller.to_string(), subject.text());
        let result = match result {
            Some(Code::Ok) => "done".to_owned(),
            Some(code) => format!("refused, {code:?}"),
            None => "the client has gone before the answer".to_owned(),
        };
        let peer = caller.address.map(|address| address.to_string());
        info!(
            who,
            peer,
            method,
            subject,
            result,
            "audit.change: {who} asked for {method} of {subject}: {result}"
        );
    }
}

/// A request that its caller may not make, and why.
pub(super) fn denied(caller: &Caller, path: &str, why: &str) {
    let (who, method) = (caller.to_string(), short(path));
    let peer = caller.address.map(|address| address.to_string());
    warn!(
        who,
        peer, method, "audit.denied: {who} asked for {method}, which is not allowed: {why}"
    );
}

/// `Runs/Cancel`. A stranger may have written the path.
fn short(path: &str) -> String {
    let path = path.strip_prefix("/fovea.v1.").unwrap_or(path);
    path.chars().filter(|c| !c.is_control()).take(80).collect()
}
