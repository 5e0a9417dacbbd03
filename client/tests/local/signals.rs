//! Signals to the client, and its death.

use super::*;

/// Waits for something with a deadline.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

/// Starts `fovea local` on a run that never ends, by `launcher` if given; returns it once its workers
/// have written their ids.
fn started(
    dir: &Path,
    address: &str,
    launcher: Option<&str>,
    stdout: Stdio,
) -> (std::process::Child, Vec<i32>) {
    let worker = format!("echo $$ > {}/$$.pid\n{WAITS}", dir.display());
    let bin = programs(dir, &pretends_to_serve(address), &worker);
    let mut command = match launcher {
        None => Command::new(env!("CARGO_BIN_EXE_fovea")),
        Some(launcher) => {
            let mut command = Command::new(launcher);
            command.arg(env!("CARGO_BIN_EXE_fovea"));
            command
        }
    };
    // The tests themselves may run under nohup.
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, and signal is one.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    let child = command
        .args(["local", "-n", "2", "--bin-dir"])
        .arg(&bin)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg(run_file(dir))
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ids = Vec::new();
    eventually("two workers", || {
        ids = fs::read_dir(dir)
            .unwrap()
            .filter_map(|e| {
                let path = e.unwrap().path();
                path.extension().filter(|x| *x == "pid")?;
                fs::read_to_string(&path).ok()?.trim().parse().ok()
            })
            .collect();
        ids.len() == 2
    });
    (child, ids)
}

/// Whether a process is alive: it exists and is not a zombie.
fn lives(id: i32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_do_not_outlive_a_killed_client() {
    let address = never_ending().serve().await;
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, workers) = started(dir.path(), &address, None, Stdio::null());
        assert!(workers.iter().all(|id| lives(*id)));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the workers are gone", || {
            !workers.iter().any(|id| lives(*id))
        });
    })
    .await
    .unwrap();
}

fn send(child: &std::process::Child, signal: i32) {
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// The first signal cancels the run, which takes a checkpoint; the second stops the processes.
#[tokio::test(flavor = "multi_thread")]
async fn each_signal_that_asks_to_stop_cancels_the_run_and_stops_the_processes() {
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        let fake = never_ending();
        let address = fake.serve().await;
        tokio::task::spawn_blocking(move || {
            let dir = tempfile::tempdir().unwrap();
            let (child, workers) = started(dir.path(), &address, None, Stdio::null());
            send(&child, signal);
            if signal == libc::SIGHUP {
                // A closing terminal sends two. They are one request.
                std::thread::sleep(Duration::from_millis(100));
                send(&child, signal);
            }
            eventually("the run is cancelled", || {
                fake.0.lock().unwrap().cancelled == ["dr-1"]
            });
            assert!(
                workers.iter().all(|id| lives(*id)),
                "no time for a checkpoint"
            );
            // The stand-in never ends the run, so a second signal is needed.
            if signal == libc::SIGHUP {
                // Not of the same bunch any more.
                std::thread::sleep(Duration::from_millis(1100));
                assert!(workers.iter().all(|id| lives(*id)), "one request");
            }
            send(&child, signal);
            let output = child.wait_with_output().unwrap();
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(130), "signal {signal}: {text}");
            assert!(text.contains("run dr-1 was stopped at once"), "{text}");
            assert!(!workers.iter().any(|id| lives(*id)), "a worker is left");
        })
        .await
        .unwrap();
    }
}

/// The signals that a process ignores, as a bit mask.
fn ignored(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let mask = status
        .lines()
        .find_map(|l| l.strip_prefix("SigIgn:"))
        .unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let hangup = 1 << (libc::SIGHUP - 1);
    for (launcher, ignores) in [(Some("nohup"), true), (None, false)] {
        let fake = never_ending();
        let address = fake.serve().await;
        tokio::task::spawn_blocking(move || {
            let dir = tempfile::tempdir().unwrap();
            let (mut child, workers) = started(dir.path(), &address, launcher, Stdio::null());
            assert_eq!(ignored(child.id()) & hangup != 0, ignores);
            // Its processes inherit that.
            assert_eq!(ignored(workers[0] as u32) & hangup != 0, ignores);
            child.kill().unwrap();
            child.wait().unwrap();
        })
        .await
        .unwrap();
    }
}

/// A closed terminal or pipe must not end the command by itself: that would kill the processes
/// without a checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_does_not_end_the_run() {
    let fake = never_ending();
    fake.0.lock().unwrap().watches = [vec![
        event::run(run("dr-1", Phase::Running)),
        event::step(1),
        event::epoch(0),
        event::epoch(1),
    ]]
    .into();
    let address = fake.serve().await;
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (child, workers) = started(dir.path(), &address, None, writer.into());
        eventually("the run is watched", || fake.0.lock().unwrap().watched == 1);
        assert!(workers.iter().all(|id| lives(*id)));
        send(&child, libc::SIGTERM);
        eventually("the run is cancelled", || {
            fake.0.lock().unwrap().cancelled == ["dr-1"]
        });
        send(&child, libc::SIGTERM);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    })
    .await
    .unwrap();
}
