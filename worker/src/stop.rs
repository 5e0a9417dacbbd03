//! Requests to stop, and a limit on how long the stop may take.
//!
//! Signals are handled on a thread and a runtime of their own: however many other threads hang, a signal is seen, and
//! the process exits in time.

use std::io;
use std::sync::mpsc::channel;
use std::time::Duration;

use fovea_service::Shutdown;
use tracing::error;

use crate::threads::EXIT_HUNG;

/// Starts to listen for signals that ask this process to stop. It exits with [`EXIT_HUNG`] if it still runs `limit`
/// after the first one.
///
/// # Errors
/// If the thread, its runtime or the signal handlers cannot be set up.
pub fn on_signals(limit: Duration) -> io::Result<Shutdown> {
    let (send, started) = channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime,
                Err(error) => return drop(send.send(Err(error))),
            };
            runtime.block_on(async {
                let shutdown = match Shutdown::on_signals() {
                    Ok(shutdown) => shutdown,
                    Err(error) => return drop(send.send(Err(error))),
                };
                let _ = send.send(Ok(shutdown.clone()));
                shutdown.wait().await;
                tokio::time::sleep(limit).await;
                error!(
                    "shutdown.forced: still running {} s after the request to stop, because a thread hangs or a step \
                     takes longer; exiting without waiting for it. The coordinator continues without this worker. \
                     See stop_timeout_s",
                    limit.as_secs()
                );
                std::process::exit(EXIT_HUNG);
            });
        })?;
    started
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread for signals ended early")))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// Set in the child process of the test below.
    const CHILD: &str = "FOVEA_TEST_STOP_CHILD";

    /// Runs in a child process: every thread but that of the signals hangs in a read that never returns.
    #[test]
    fn a_process_whose_threads_hang_ends_in_time() {
        if std::env::var_os(CHILD).is_some() {
            on_signals(Duration::from_millis(300)).unwrap();
            println!("child is ready");
            let (mut reader, writer) = io::pipe().unwrap();
            std::mem::forget(writer);
            io::Read::read_exact(&mut reader, &mut [0]).unwrap();
            unreachable!("the pipe is never written to");
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "stop::tests::a_process_whose_threads_hang_ends_in_time",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("child is ready")));
        // SAFETY: a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
        assert_eq!(child.wait().unwrap().code(), Some(EXIT_HUNG));
    }
}
