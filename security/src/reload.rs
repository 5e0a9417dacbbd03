//! Certificates are exchanged while a program runs: the files are looked at again and again.
//!
//! Polling, because secrets that are mounted change by swapping symbolic links, which notifications of
//! single files miss. A new file that cannot be used changes nothing.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::files::Contents;
use crate::tls::{Tls, TlsError};

/// How often the files are looked at.
pub const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// A certificate and its key are two files, which may not be exchanged at the same moment.
const BETWEEN_FILES: Duration = Duration::from_secs(1);

/// How often a certificate that ends soon is named in the log, in looks.
const REMIND_EVERY: u64 = 24 * 3600 / RELOAD_EVERY.as_secs();

impl Tls {
    /// Uses new files as they come, until it is dropped. Connections that are open stay open.
    pub async fn reload(self) {
        self.reload_every(RELOAD_EVERY).await;
    }

    async fn reload_every(self, period: Duration) {
        let mut looks = interval(period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut used = read(&self).await.ok();
        let mut reported = None;
        for look in 1u64.. {
            looks.tick().await;
            if look.is_multiple_of(REMIND_EVERY) {
                self.warn_of_end();
            }
            let mut now = read(&self).await;
            if now.as_ref().ok() == used.as_ref() && now.is_ok() {
                reported = None;
                continue;
            }
            let mut outcome = self.try_replace(&now);
            if outcome.is_err() {
                sleep(BETWEEN_FILES.min(period)).await;
                now = read(&self).await;
                outcome = self.try_replace(&now);
            }
            match outcome {
                Ok(()) => {
                    used = now.ok();
                    reported = None;
                    let (identity, certificate) = (self.identity(), self.certificate());
                    let until = certificate.until_text();
                    info!(
                        %identity,
                        until,
                        "tls.reloaded: new connections use the new files; the certificate of {identity} \
                         is valid until {until}"
                    );
                    self.warn_of_end();
                }
                // Once for each state of the files.
                Err(problem) if reported.as_ref() != Some(&problem) => {
                    warn!(
                        "tls.reload_failed: the TLS files have changed and cannot be used, those before \
                         stay in use: {problem}"
                    );
                    reported = Some(problem);
                }
                Err(_) => {}
            }
        }
    }

    fn try_replace(&self, contents: &Result<Contents, String>) -> Result<(), String> {
        match contents {
            Ok(contents) => self.replace(contents).map_err(|e: TlsError| e.to_string()),
            Err(problem) => Err(problem.clone()),
        }
    }
}

/// The files may lie on a mount that does not answer.
async fn read(tls: &Tls) -> Result<Contents, String> {
    let files = tls.files.clone();
    let read = tokio::task::spawn_blocking(move || Contents::read(&files));
    match read.await {
        Ok(contents) => contents.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
