//! Notifications to the service manager that started the program (systemd's `Type=notify` and `WatchdogSec`, or whatever
//! else sets `NOTIFY_SOCKET`). Without such a manager nothing happens here.
//!
//! ```text
//! starting ──ready──> READY=1 ──> WATCHDOG=1 again and again, as long as the program is alive ──> STOPPING=1
//! ```

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::Shutdown;
use crate::ops::{State, Vitals};

/// How often the state is looked at, unless the watchdog needs it more often.
const INTERVAL: Duration = Duration::from_millis(500);

/// When a program counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// When it can do its work. For a program that waits for nothing outside of its machine.
    WhenReady,
    /// When it is alive, though what it needs (its coordinator) may be away for long.
    WhenAlive,
}

/// Tells the service manager how the program is, until it is dropped.
///
/// The watchdog hears nothing while [`Vitals::live`] fails, or does not answer in time: the service manager then kills
/// the program and starts it again.
pub async fn notify<V: Vitals>(vitals: V, started: Started, shutdown: Shutdown) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let mut failed = false;
    let send = |states: &[NotifyState]| {
        let Err(error) = sd_notify::notify(states) else {
            return;
        };
        if !failed {
            warn!(
                %error,
                "supervisor.notify_failed: the service manager cannot be told how this program is: {error}; it may end \
                 the program"
            );
        }
        failed = true;
    };
    run(
        vitals,
        started,
        shutdown,
        sd_notify::watchdog_enabled(),
        send,
    )
    .await;
}

/// `watchdog`: the silence after which the service manager ends the program.
async fn run<V: Vitals>(
    vitals: V,
    started: Started,
    shutdown: Shutdown,
    watchdog: Option<Duration>,
    mut send: impl FnMut(&[NotifyState]),
) {
    // Two may be lost or late.
    let period = watchdog.map_or(INTERVAL, |limit| INTERVAL.min(limit / 3));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.wait(), if !told.stopping => {}
        }
        let alive = match watchdog {
            None => vitals.live().await,
            Some(limit) => timeout(limit, vitals.live())
                .await
                .unwrap_or_else(|_| Err(format!("its main loop did not answer within {limit:?}"))),
        };
        let states = told.next(alive, vitals.ready(), started, shutdown.requested());
        send(&states);
    }
}

/// What the service manager knows.
#[derive(Debug, Default)]
struct Told {
    ready: bool,
    stopping: bool,
    status: Option<String>,
}

impl Told {
    /// What it is told next.
    fn next(
        &mut self,
        alive: State,
        ready: State,
        started: Started,
        stopping: bool,
    ) -> Vec<NotifyState<'_>> {
        let mut states = Vec::new();
        let start = match started {
            Started::WhenReady => ready.is_ok(),
            Started::WhenAlive => alive.is_ok(),
        };
        if start && !self.ready {
            self.ready = true;
            states.push(NotifyState::Ready);
        }
        if stopping && !self.stopping {
            self.stopping = true;
            states.push(NotifyState::Stopping);
        }
        if alive.is_ok() {
            states.push(NotifyState::Watchdog);
        }
        let status = match alive.and(ready) {
            Ok(()) => "ready".to_owned(),
            Err(reason) => reason,
        };
        if self.status.as_ref() != Some(&status) {
            states.push(NotifyState::Status(self.status.insert(status)));
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive() -> State {
        Ok(())
    }

    fn not(reason: &str) -> State {
        Err(reason.to_owned())
    }

    fn words(states: &[NotifyState<'_>]) -> String {
        let words: Vec<String> = states.iter().map(ToString::to_string).collect();
        words.join(" ")
    }

    #[test]
    fn readiness_is_told_once_and_the_watchdog_hears_each_sign_of_life() {
        let mut told = Told::default();
        let mut next =
            |alive, ready, stopping| words(&told.next(alive, ready, Started::WhenReady, stopping));
        assert_eq!(
            next(alive(), not("opening"), false),
            "WATCHDOG=1 STATUS=opening"
        );
        assert_eq!(
            next(alive(), Ok(()), false),
            "READY=1 WATCHDOG=1 STATUS=ready"
        );
        assert_eq!(next(alive(), Ok(()), false), "WATCHDOG=1");
        assert_eq!(next(not("stuck"), Ok(()), false), "STATUS=stuck");
        assert_eq!(
            next(alive(), not("stopping"), true),
            "STOPPING=1 WATCHDOG=1 STATUS=stopping"
        );
        assert_eq!(next(alive(), not("stopping"), true), "WATCHDOG=1");
    }

    #[test]
    fn a_worker_has_started_although_its_coordinator_is_away() {
        let mut told = Told::default();
        let states = told.next(alive(), not("away"), Started::WhenAlive, false);
        assert_eq!(words(&states), "READY=1 WATCHDOG=1 STATUS=away");
    }

    /// Never answers.
    struct Stuck;

    impl Vitals for Stuck {
        fn live(&self) -> std::pin::Pin<Box<dyn Future<Output = State> + Send + '_>> {
            Box::pin(std::future::pending())
        }

        fn ready(&self) -> State {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_nothing_of_a_program_that_is_stuck() {
        let (heard, mut states) = tokio::sync::mpsc::unbounded_channel();
        let send = move |states: &[NotifyState]| {
            let _ = heard.send(words(states));
        };
        let limit = Some(Duration::from_secs(30));
        let told = run(Stuck, Started::WhenReady, Shutdown::default(), limit, send);
        let _ = timeout(Duration::from_secs(100), told).await;
        let mut all = Vec::new();
        while let Ok(states) = states.try_recv() {
            all.push(states);
        }
        assert!(all.len() >= 2, "{all:?}");
        assert!(all.iter().all(|text| !text.contains("WATCHDOG")), "{all:?}");
        assert!(all[0].contains("did not answer within 30s"), "{all:?}");
    }
}
