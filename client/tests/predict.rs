//! Photographs that were sent for a prediction do not stay at the coordinator without a word.

use crate::common;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Fake, State, command, prepared, run_after};
use fovea_proto::pb::{self, Phase};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tonic::Status;

const SCORING: &str = "dr-1.predict-2";
const DEADLINE: Duration = Duration::from_secs(60);

/// What is scored, and by which coordinator.
struct Bench {
    dir: tempfile::TempDir,
    fake: Fake,
    model: pb::Run,
}

impl Bench {
    /// A coordinator with a trained run.
    fn new(state: State) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let set = prepared(dir.path());
        let manifest = std::fs::read(set.join("manifest.json")).unwrap();
        let manifest = fovea_dataset::Manifest::parse(&manifest).unwrap();
        let mut model = run_after("dr-1", Phase::Completed, 2);
        model.pipeline = Some((&manifest.pipeline()).into());
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let run = Some(model.clone());
        let fake = Fake::new(State { run, ..state });
        Self { dir, fake, model }
    }

    fn photographs(&self) -> PathBuf {
        self.dir.path().join("drawings/images")
    }

    /// Starts `fovea predict`.
    fn predict(&self, address: &str) -> Predicting {
        let table = self.dir.path().join("scores.csv");
        let photographs = self.photographs();
        let args = [
            "predict",
            &self.model.id,
            text(&photographs),
            "-o",
            text(&table),
        ];
        let mut child = command(&[], address, &args)
            .env("TMPDIR", self.dir.path().join("tmp"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines() {
                // The test may have seen enough.
                let _ = sender.send(line.unwrap());
            }
        });
        Predicting {
            child,
            lines,
            printed: Vec::new(),
        }
    }

    /// The name under which the photographs were stored.
    fn dataset(&self) -> String {
        let state = self.fake.0.lock().unwrap();
        common::describe(&state.created[0].0).name
    }

    fn deleted(&self) -> Vec<String> {
        self.fake.0.lock().unwrap().deleted.clone()
    }

    /// Waits for the request of a prediction.
    fn prediction_arrives(&self) {
        eventually("a prediction is asked for", || {
            self.fake.0.lock().unwrap().scoring.is_some()
        });
    }

    /// Nothing of the photographs lies on this machine.
    fn assert_nothing_here(&self) {
        let left = std::fs::read_dir(self.dir.path().join("tmp")).unwrap();
        assert_eq!(left.count(), 0);
        assert!(!self.dir.path().join("scores.csv").exists());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A `fovea predict` that runs.
struct Predicting {
    child: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
}

impl Predicting {
    fn interrupt(&self) {
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
    }

    /// Waits until it has printed a line with `words`.
    fn wait_for(&mut self, words: &str) {
        while !self.printed.iter().any(|line| line.contains(words)) {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.printed.push(line),
                Err(_) => panic!("no line has {words:?}: {:?}", self.printed),
            }
        }
    }

    /// Waits for its end. Returns its exit code, and all that it has printed.
    fn end(mut self) -> (Option<i32>, String) {
        // Until its end is closed.
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            self.printed.push(line);
        }
        let status = self.child.wait().unwrap();
        (status.code(), self.printed.join("\n"))
    }
}

impl Drop for Predicting {
    fn drop(&mut self) {
        // Where a test has failed it may run still.
        let _ = self.child.kill();
    }
}

/// Waits for something with a deadline.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Connections to a coordinator that can be cut.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<AbortHandle>>>);

impl Wire {
    /// Listens on an address of its own, and hands all on to the coordinator's; returns that address.
    async fn before(&self, address: &str) -> String {
        let to = address.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}", listener.local_addr().unwrap());
        let open = self.0.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                let carrying = tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                open.lock().unwrap().push(carrying.abort_handle());
            }
        });
        here
    }

    /// Cuts what is connected. Others may connect again.
    fn cut(&self) {
        self.0.lock().unwrap().drain(..).for_each(|c| c.abort());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_when_the_connection_broke_is_removed() {
    let bench = Bench::new(State {
        silent_about_uploads: true,
        ..State::default()
    });
    let wire = Wire::default();
    let address = wire.before(&bench.fake.serve().await).await;
    tokio::task::spawn_blocking(move || {
        let predicting = bench.predict(&address);
        eventually("the photographs are stored", || {
            !bench.fake.0.lock().unwrap().created.is_empty()
        });
        wire.cut();
        let (code, printed) = predicting.end();
        assert_eq!(code, Some(3), "{printed}");
        assert!(printed.contains("lost the connection"), "{printed}");
        assert_eq!(bench.deleted(), [bench.dataset()], "{printed}");
        bench.assert_nothing_here();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_removed_is_named_with_what_removes_it() {
    let bench = Bench::new(State {
        no_delete: Some(Status::permission_denied("you may not")),
        ..State::default()
    });
    let address = bench.fake.serve().await;
    tokio::task::spawn_blocking(move || {
        let (code, printed) = bench.predict(&address).end();
        assert_eq!(code, Some(3), "{printed}");
        let name = bench.dataset();
        let cure = format!("remove them with `fovea dataset rm {name}`");
        assert!(
            printed.contains(&cure) && printed.contains("you may not"),
            "{printed}"
        );
        bench.assert_nothing_here();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_before_the_answer_to_a_prediction_removes_run_and_photographs() {
    let answer = Arc::new(Notify::new());
    let bench = Bench::new(State {
        predicts: Some(SCORING.into()),
        answers_prediction: Some(answer.clone()),
        ..State::default()
    });
    let address = bench.fake.serve().await;
    tokio::task::spawn_blocking(move || {
        let mut predicting = bench.predict(&address);
        bench.prediction_arrives();
        predicting.interrupt();
        predicting.wait_for("stopping");
        answer.notify_one();
        let (code, printed) = predicting.end();
        assert_eq!(code, Some(130), "{printed}");
        assert_eq!(bench.fake.0.lock().unwrap().cancelled, [SCORING]);
        let expected = [format!("{SCORING} with checkpoints"), bench.dataset()];
        assert_eq!(bench.deleted(), expected, "{printed}");
        assert!(!printed.contains("still"), "{printed}");
        bench.assert_nothing_here();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_preparation_leaves_nothing() {
    let bench = Bench::new(State::default());
    let address = bench.fake.serve().await;
    tokio::task::spawn_blocking(move || {
        // Whoever opens it waits until somebody writes.
        let pipe = bench.photographs().join("99_left.png");
        let name = std::ffi::CString::new(text(&pipe)).unwrap();
        // SAFETY: the name ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let mut predicting = bench.predict(&address);
        eventually("the folder for the photographs is there", || {
            let folder = std::fs::read_dir(bench.dir.path().join("tmp")).unwrap();
            folder.count() > 0
        });
        predicting.interrupt();
        predicting.wait_for("stopping");
        std::fs::write(&pipe, b"").unwrap();
        let (code, printed) = predicting.end();
        assert_eq!(code, Some(130), "{printed}");
        assert!(printed.contains("nothing was sent"), "{printed}");
        assert!(bench.fake.0.lock().unwrap().created.is_empty());
        bench.assert_nothing_here();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_before_the_answer_to_an_upload_removes_the_photographs() {
    let bench = Bench::new(State {
        silent_about_uploads: true,
        ..State::default()
    });
    let address = bench.fake.serve().await;
    tokio::task::spawn_blocking(move || {
        let predicting = bench.predict(&address);
        eventually("the photographs are stored", || {
            !bench.fake.0.lock().unwrap().created.is_empty()
        });
        predicting.interrupt();
        let (code, printed) = predicting.end();
        assert_eq!(code, Some(130), "{printed}");
        assert_eq!(bench.deleted(), [bench.dataset()], "{printed}");
        bench.assert_nothing_here();
    })
    .await
    .unwrap();
}

/// The run is found by the dataset that it scores.
#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_whose_answer_is_lost_is_removed() {
    let bench = Bench::new(State {
        predicts: Some(SCORING.into()),
        answers_prediction: Some(Arc::default()),
        ..State::default()
    });
    let wire = Wire::default();
    let address = wire.before(&bench.fake.serve().await).await;
    tokio::task::spawn_blocking(move || {
        let predicting = bench.predict(&address);
        bench.prediction_arrives();
        wire.cut();
        let (code, printed) = predicting.end();
        assert_eq!(code, Some(3), "{printed}");
        let expected = [format!("{SCORING} with checkpoints"), bench.dataset()];
        assert_eq!(bench.deleted(), expected, "{printed}");
        bench.assert_nothing_here();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_what_was_sent_and_says_so() {
    let bench = Bench::new(State {
        predicts: Some(SCORING.into()),
        answers_prediction: Some(Arc::default()),
        ..State::default()
    });
    let address = bench.fake.serve().await;
    tokio::task::spawn_blocking(move || {
        let mut predicting = bench.predict(&address);
        bench.prediction_arrives();
        predicting.interrupt();
        predicting.wait_for("stopping");
        predicting.interrupt();
        let (code, printed) = predicting.end();
        assert_eq!(code, Some(130), "{printed}");
        let cure = format!("`fovea dataset rm {}`", bench.dataset());
        assert!(printed.contains(&cure), "{printed}");
        assert!(bench.deleted().is_empty());
        bench.assert_nothing_here();
    })
    .await
    .unwrap();
}
