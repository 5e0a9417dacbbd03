//! A coordinator that has few file descriptors, or none left.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fovea_proto::pb;
use fovea_proto::pb::runs_client::RunsClient;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::transport::Channel;

use crate::common::*;

/// A coordinator in a process of its own.
struct Process {
    child: Child,
    log: mpsc::UnboundedReceiver<String>,
    address: String,
}

/// A test that fails must not leave a process behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts one that may have so many descriptors.
    async fn start(data_dir: &Path, descriptors: u32) -> Self {
        let address_file = data_dir.with_extension("address");
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_fovea-coordinator"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .arg("--address-file")
            .arg(&address_file)
            .env("FOVEA_TIMEOUT_MS", "60000")
            .env("FOVEA_FORMING_GRACE_MS", "0")
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = mpsc::unbounded_channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let mut process = Self {
            child,
            log,
            address: String::new(),
        };
        process.until("listening").await;
        let address = std::fs::read_to_string(&address_file).unwrap();
        process.address = address.trim().to_owned();
        process
    }

    /// Reads the log until a line has `text`.
    async fn until(&mut self, text: &str) -> String {
        loop {
            let line = soon(text, self.log.recv()).await;
            let line = line.unwrap_or_else(|| panic!("ended before {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    async fn channel(&self) -> Channel {
        fovea_proto::connect(&self.address, PATIENCE).await.unwrap()
    }

    /// Asks it to stop; its exit code.
    async fn stop(mut self) -> Option<i32> {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let mut status = None;
        eventually("the coordinator's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }
}

/// A watch over a connection of its own.
async fn watch(process: &Process, id: &str) -> Result<(Channel, Watch), String> {
    let channel = fovea_proto::connect(&process.address, PATIENCE)
        .await
        .map_err(|e| e.to_string())?;
    let request = pb::WatchRequest { run_id: id.into() };
    let stream = RunsClient::new(channel.clone())
        .watch(request)
        .await
        .map_err(|status| causes(&status))?;
    Ok((channel, Watch(stream.into_inner())))
}

/// A status with all that it came from.
fn causes(status: &Status) -> String {
    let mut text = status.to_string();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text.push_str(&format!("; {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_watchers_leave_the_journal_its_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(&dir.path().join("data"), 64).await;
    let channel = process.channel().await;
    let tiny = dataset(dir.path(), "tiny", 1);
    pb::datasets_client::DatasetsClient::new(channel.clone())
        .create(tokio_stream::iter(parts(&tiny)))
        .await
        .unwrap();
    let mut runs = RunsClient::new(channel.clone());
    let submit = || pb::SubmitRequest { spec: Some(spec()) };
    let run = runs.submit(submit()).await.unwrap().into_inner().run;
    let id = run.expect("a run").id;

    let mut watches = Vec::new();
    let mut refusals = Vec::new();
    for _ in 0..60 {
        match watch(&process, &id).await {
            Ok(watch) => watches.push(watch),
            Err(refused) => refusals.push(refused),
        }
    }
    assert!(watches.len() >= 10, "{} watch", watches.len());
    assert!(refusals.len() >= 10, "{} were refused", refusals.len());
    // A client may see its connection break before it reads why; most do read it.
    let explained = refusals.iter().filter(|text| text.contains("ulimit -n"));
    assert!(explained.count() > 0, "{refusals:?}");
    let line = process.until("connection.refused").await;
    assert!(line.contains("ulimit -n"), "{line}");

    // Meanwhile the journal is written, and a run starts, which needs random bytes.
    for _ in 0..20 {
        runs.submit(submit()).await.unwrap();
    }
    let (up, messages) = mpsc::channel(8);
    let message = Some(hello("w"));
    up.send(pb::WorkerMessage { message }).await.unwrap();
    let mut down = pb::workers_client::WorkersClient::new(channel.clone())
        .session(tokio_stream::wrappers::ReceiverStream::new(messages))
        .await
        .unwrap()
        .into_inner();
    let assigned = async {
        loop {
            let message = down.message().await.unwrap().expect("the session is open");
            if let Some(pb::coordinator_message::Message::Assignment(at)) = message.message {
                return at;
            }
        }
    };
    assert_eq!(soon("an assignment", assigned).await.run_id, id);

    // A place that becomes free is given to the next.
    watches.clear();
    let again = async {
        while watch(&process, &id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a free place", again).await;
    drop(up);
    drop(down);
    assert_eq!(process.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_descriptor_the_accept_loop_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(&dir.path().join("data"), 256).await;
    let channel = process.channel().await;
    let mut runs = RunsClient::new(channel);
    let list = pb::ListRunsRequest::default;
    runs.list(list()).await.unwrap();

    // As if somebody else had used up what there is.
    let limit = |current| Rlimit {
        current: Some(current),
        maximum: Some(256),
    };
    let before = prlimit(Some(process.pid()), Resource::Nofile, limit(3)).unwrap();
    assert_eq!(before.current, Some(256));
    let waiting = tokio::net::TcpStream::connect(&process.address)
        .await
        .unwrap();
    let line = process.until("connection.accept_failed").await;
    assert!(line.contains("Too many open files"), "{line}");
    // Those who are there are served on.
    runs.list(list()).await.unwrap();

    prlimit(Some(process.pid()), Resource::Nofile, before).unwrap();
    let mut late = RunsClient::new(process.channel().await);
    soon("an answer", late.list(list())).await.unwrap();
    drop(waiting);
    assert_eq!(process.stop().await, Some(0));
}
