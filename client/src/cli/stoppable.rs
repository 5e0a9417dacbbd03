//! Work on a thread that signals stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::evaluate::computed;
use super::output::Output;
use crate::error::Error;
use crate::local::Signals;

/// Whether work is to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// To be asked between two pieces of the work.
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The result of `work`, which asks now and then whether it is to stop, and then returns an error. At a second signal the process
/// ends at once: a photograph on a hung mount is never read. What is then left behind is swept by the next call.
pub async fn stoppable<T: Send + 'static>(
    signals: &mut Signals,
    output: &Output,
    work: impl FnOnce(&Stop) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let stop = Stop::default();
    let theirs = stop.clone();
    let work = computed(move || work(&theirs));
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = signals.next() => {}
        }
        if stop.0.swap(true, Ordering::Relaxed) {
            let code = Error::Interrupted(String::new()).exit_code();
            std::process::exit(i32::from(code));
        }
        output.remark("stopping after the photographs being read; a second signal quits at once");
    }
}
