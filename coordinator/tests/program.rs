//! The program: options, exit codes, SIGTERM, SIGKILL, health and reflection.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::*;
use fovea_coordinator::{Config, Listeners, OnStop, serve};
use fovea_proto::pb;
use fovea_proto::pb::runs_client::RunsClient;
use tonic::transport::Channel;

/// A test that fails must not leave a process behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fovea-coordinator"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOVEA_")) {
        command.env_remove(name);
    }
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A coordinator in a process of its own.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Process {
    fn start(data_dir: &Path, more: &[&str]) -> Self {
        let address_file = data_dir.with_extension("address");
        let _ = std::fs::remove_file(&address_file);
        let mut child = program()
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--address-file")
            .arg(&address_file)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut process = Self {
            child,
            log,
            address: String::new(),
        };
        let line = process.until("coordinator.listening");
        let address = std::fs::read_to_string(&address_file).unwrap();
        process.address = address.trim().to_owned();
        assert!(line.contains(&process.address), "{line}");
        process
    }

    /// Reads the log until a line has `text`.
    fn until(&mut self, text: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.log.read_line(&mut line).unwrap() > 0,
                "ended before {text:?}"
            );
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit code and the rest of its log; when it ends by itself.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    async fn channel(&self) -> Channel {
        fovea_proto::connect(&self.address, PATIENCE).await.unwrap()
    }
}

#[test]
fn a_store_is_refused_as_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let process = Process::start(&data, &[]);
    process.signal("-TERM");
    assert_eq!(process.end().0, Some(0));
    let store = data.join("checkpoints");
    let before = std::fs::read_dir(&store).unwrap().count();
    let (code, _, err) = output(
        program()
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&store),
    );
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("is a store of checkpoints"), "{err}");
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), before);
}

#[test]
fn a_journal_that_was_moved_away_is_no_success_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let process = Process::start(&data, &[]);
    std::fs::rename(data.join("journal.db"), data.join("moved.db")).unwrap();
    process.signal("-TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("is not at its place any more"), "{log}");
    assert!(!log.contains("all runs are stored"), "{log}");
    std::fs::rename(data.join("moved.db"), data.join("journal.db")).unwrap();
    let process = Process::start(&data, &[]);
    process.signal("-TERM");
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn options_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, out, _) = output(program().arg("--version"));
    assert_eq!(code, Some(0));
    assert!(out.contains('('), "the commit is missing: {out}");
    let (code, out, _) = output(program().arg("--help"));
    assert_eq!(code, Some(0));
    assert!(
        out.contains("Exit codes") && out.contains("FOVEA_"),
        "{out}"
    );

    // Layers: file < environment < flags.
    let file = dir.path().join("c.toml");
    std::fs::write(
        &file,
        "log_level = 'warn'\nlisten = '127.0.0.1:1'\nmax_uploads = 2",
    )
    .unwrap();
    let (code, out, err) = output(
        program()
            .arg("--config")
            .arg(&file)
            .env("FOVEA_LISTEN", "127.0.0.1:2")
            .env("FOVEA_TIMEOUT_MS", "9000")
            .env("FOVEA_ALLOW_INSECURE", "true")
            .env("FOVEA_ON_STOP", "checkpoint")
            .args(["--listen", "127.0.0.1:3", "--on-stop", "hand-over"])
            .arg("--dump-config"),
    );
    assert_eq!(code, Some(0), "{err}");
    let dumped: Config = toml::from_str(&out).unwrap();
    assert_eq!(dumped.listen, "127.0.0.1:3");
    assert_eq!((dumped.timeout_ms, dumped.max_uploads), (9000, 2));
    assert!(dumped.allow_insecure);
    assert_eq!(dumped.on_stop, OnStop::HandOver);
    assert_eq!(dumped.log_level, "warn");

    let refused = |code: i32, named: &str, command: &mut Command| {
        let (found, _, err) = output(command);
        assert_eq!(found, Some(code), "{named}: {err}");
        assert!(err.contains(named), "{named}: {err}");
    };
    refused(2, "--lisen", program().arg("--lisen"));
    std::fs::write(&file, "lisen = 'x'").unwrap();
    refused(2, "lisen", program().arg("--config").arg(&file));
    let choice = "on_stop is \"handover\"; use \"checkpoint\" or \"hand-over\"";
    refused(2, choice, program().env("FOVEA_ON_STOP", "handover"));
    refused(2, choice, program().args(["--on-stop", "handover"]));
    refused(2, "c.missing", program().args(["--config", "c.missing"]));
    refused(
        2,
        "allow_insecure",
        program().args(["--listen", "0.0.0.0:0"]),
    );
    refused(2, "log_level", program().args(["--log-level", "a=b=c"]));
    refused(2, "timeout_ms", program().env("FOVEA_TIMEOUT_MS", "soon"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(
        3,
        &address,
        program()
            .args(["--listen", &address])
            .arg("--data-dir")
            .arg(&data),
    );
    // A variable that has no effect, but looks as if it were to have one.
    refused(
        3,
        "did you mean FOVEA_DRAIN_TIMEOUT_S?",
        program()
            .env("FOVEA_DRAIN_TIMOUT_S", "5")
            .args(["--listen", &address])
            .arg("--data-dir")
            .arg(&data),
    );
    std::fs::write(&data, "a file").unwrap();
    refused(
        4,
        "data_dir",
        program()
            .args(["--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&data),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_run_survives_sigkill_and_the_folder_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut first = Process::start(&data, &[]);
    let channel = first.channel().await;
    let tiny = dataset(dir.path(), "tiny", 1);
    pb::datasets_client::DatasetsClient::new(channel.clone())
        .create(tokio_stream::iter(parts(&tiny)))
        .await
        .unwrap();
    let request = pb::SubmitRequest { spec: Some(spec()) };
    RunsClient::new(channel).submit(request).await.unwrap();
    first.signal("-KILL");
    first.child.wait().unwrap();

    let second = Process::start(&data, &[]);
    let channel = second.channel().await;
    let request = pb::GetRunRequest {
        run_id: "r-1".into(),
    };
    let run = RunsClient::new(channel)
        .get(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(run.phase(), pb::Phase::Queued);

    let (code, _, err) = output(
        program()
            .args(["--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&data),
    );
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("another coordinator"), "{err}");

    second.signal("-TERM");
    let (code, log) = second.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("draining"), "{log}");
}

/// A session that holds a run and never lets go.
async fn stuck_worker(process: &Process, dir: &Path) -> tonic::Streaming<pb::CoordinatorMessage> {
    let channel = process.channel().await;
    let tiny = dataset(dir, "tiny", 1);
    pb::datasets_client::DatasetsClient::new(channel.clone())
        .create(tokio_stream::iter(parts(&tiny)))
        .await
        .unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let message = Some(hello("stuck"));
    sender.send(pb::WorkerMessage { message }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut down = pb::workers_client::WorkersClient::new(channel.clone())
        .session(stream)
        .await
        .unwrap()
        .into_inner();
    down.message().await.unwrap().unwrap();
    let request = pb::SubmitRequest { spec: Some(spec()) };
    let mut runs = RunsClient::new(channel);
    let accepted = runs.submit(request).await.unwrap().into_inner();
    let message = down.message().await.unwrap().unwrap().message;
    let Some(pb::coordinator_message::Message::Assignment(at)) = message else {
        panic!("no assignment: {message:?}")
    };
    // A run that only forms would be released at once.
    let message = Some(ready(&at));
    sender.send(pb::WorkerMessage { message }).await.unwrap();
    let request = pb::WatchRequest {
        run_id: accepted.run.unwrap().id,
    };
    let watch = runs.watch(request).await.unwrap().into_inner();
    Watch(watch).until(pb::Phase::Running).await;
    // It stays connected as long as the test reads `down`, and sends nothing more.
    tokio::spawn(async move { sender.closed().await });
    down
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_quits_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut process = Process::start_patient(&data, "3600");
    let _down = stuck_worker(&process, dir.path()).await;
    process.signal("-TERM");
    process.until("draining");
    process.signal("-TERM");
    assert_eq!(process.end().0, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_ends_with_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let process = Process::start_patient(&data, "0");
    let _down = stuck_worker(&process, dir.path()).await;
    process.signal("-TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(5), "{log}");
    assert!(log.contains("drain_timeout_s"), "{log}");
}

/// One after the other, until the first lets go of the folder. A supervisor that starts it again and again does this.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_hand_over_the_next_coordinator_gets_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Process::start_with(
        &data,
        "on_stop = 'hand-over'\ntimeout_ms = 600000\nforming_grace_ms = 0",
    );
    let mut down = stuck_worker(&first, dir.path()).await;
    let refused = next_coordinator(&data).unwrap_err();
    let asked = Instant::now();
    first.signal("-TERM");
    let first = std::thread::spawn(move || (first.end(), asked.elapsed()));
    let mut refusals = vec![refused];
    let mut next = loop {
        match next_coordinator(&data) {
            Ok(child) => break child,
            Err(refused) => refusals.push(refused),
        }
    };
    let _ = next.kill();
    let _ = next.wait();
    for (code, log) in refusals {
        assert_eq!(code, Some(4), "{log}");
        assert!(log.contains("is used by another coordinator"), "{log}");
    }
    let ((code, log), took) = first.join().unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(2), "it took {took:?}: {log}");
    assert!(log.contains("shutdown.handing_over: "), "{log}");
    assert!(!log.contains("worker.lost: "), "{log}");
    // The worker was sent nothing but the end of its session.
    let end = down.message().await.unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
}

/// Starts another coordinator on the folder. Returns it once it serves, or its exit code and its log.
fn next_coordinator(data: &Path) -> Result<Child, (Option<i32>, String)> {
    let mut child = program()
        .args(["--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(data)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut log, mut text) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    while log.read_line(&mut text).unwrap() > 0 {
        if text.contains("coordinator.listening: ") {
            return Ok(child);
        }
    }
    Err((child.wait().unwrap().code(), text))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_every_address() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: dir.path().join("data"),
        ..Config::default()
    };
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|a| a.parse().unwrap());
    let (listeners, missing) = Listeners::bind(&addresses).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let bound = listeners.addresses().unwrap();
    let shutdown = fovea_service::Shutdown::default();
    let serving = tokio::spawn(serve(config, listeners, shutdown.clone()));
    for address in bound {
        let channel = fovea_proto::connect(&address.to_string(), PATIENCE)
            .await
            .unwrap();
        let request = pb::ListRunsRequest::default();
        RunsClient::new(channel).list(request).await.unwrap();
    }
    shutdown.request();
    serving.await.unwrap().unwrap();
}

/// By name, on all addresses that this machine has for it; the file holds one of them, the log all.
#[test]
fn a_name_means_all_its_addresses() {
    use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

    let dir = tempfile::tempdir().unwrap();
    let mut child = program()
        .args(["--listen", "localhost:0", "--address-file"])
        .arg(dir.path().join("address"))
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process {
        log: BufReader::new(child.stderr.take().unwrap()),
        child,
        address: String::new(),
    };
    let line = process.until("coordinator.listening: ");
    let written = std::fs::read_to_string(dir.path().join("address")).unwrap();
    let first: SocketAddr = written.trim().parse().unwrap();
    let mut reached = Vec::new();
    for mut address in "localhost:0".to_socket_addrs().unwrap() {
        address.set_port(first.port());
        if TcpStream::connect(address).is_ok() {
            assert!(line.contains(&address.to_string()), "{address}: {line}");
            reached.push(address);
        } else {
            assert!(address.is_ipv6(), "{address} is not listened on: {line}");
        }
    }
    assert_eq!(reached.first(), Some(&first), "{line}");
}

impl Process {
    /// One that does not lose a silent worker, and drains for so many seconds.
    fn start_patient(data_dir: &Path, drain: &str) -> Self {
        let text = format!("drain_timeout_s = {drain}\ntimeout_ms = 600000\nforming_grace_ms = 0");
        Self::start_with(data_dir, &text)
    }

    /// One with this configuration file.
    fn start_with(data_dir: &Path, text: &str) -> Self {
        let file = data_dir.with_extension("toml");
        std::fs::write(&file, text).unwrap();
        Self::start(data_dir, &["--config", file.to_str().unwrap()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_on() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let services = ["Runs", "Datasets", "Workers", "Checkpoints"].map(|s| format!("fovea.v1.{s}"));
    for service in &services {
        let request = HealthCheckRequest {
            service: service.clone(),
        };
        let reply = HealthClient::new(server.channel.clone())
            .check(request)
            .await;
        assert_eq!(reply.unwrap().into_inner().status, 1, "{service}");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = ServerReflectionClient::new(server.channel.clone())
        .server_reflection_info(tokio_stream::iter(vec![request]))
        .await
        .unwrap()
        .into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    assert!(services.iter().all(|s| names.contains(s)), "{names:?}");
    drop(replies);
    server.stop().await;
}

#[test]
fn health_asks_the_running_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ops = port.local_addr().unwrap().to_string();
    drop(port);
    let health = |more: &[&str]| {
        output(
            program()
                .arg("health")
                .args(more)
                .env("FOVEA_OPS_LISTEN", &ops),
        )
    };
    let (code, _, error) = health(&[]);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains(&format!("nothing answers at {ops}: ")),
        "{error}"
    );

    let mut process = Process::start(&dir.path().join("data"), &["--ops-listen", &ops]);
    for more in [&[][..], &["--live"]] {
        assert_eq!(health(more), (Some(0), "ok\n".into(), String::new()));
    }
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    assert_eq!(health(&[]).0, Some(1));
    // Without the key nobody can be asked.
    let (code, _, error) = output(program().arg("health"));
    assert_eq!(code, Some(2));
    assert!(error.contains("ops_listen is empty"), "{error}");
    let (code, _, error) = output(program().args(["--ops-listen", "everywhere"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("ops_listen is \"everywhere\""), "{error}");
}

#[test]
fn the_address_file_of_a_listener_on_all_addresses_names_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("address");
    let mut child = program()
        .args(["--listen", "0.0.0.0:0", "--data-dir"])
        .arg(dir.path().join("data"))
        .arg("--address-file")
        .arg(&file)
        .env("FOVEA_ALLOW_INSECURE", "true")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("coordinator.listening") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("{}:", name.trim())), "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
}
