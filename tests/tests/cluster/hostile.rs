//! Hostile clients while a run trains: hundreds of malformed requests of all kinds of callers, and connections that are
//! idle, half open or slow. The run goes on at its pace, and the coordinator's memory stays as it is.

use std::pin::Pin;
use std::time::{Duration, Instant};

use fovea_proto::{connect_pinned, connect_with, pb};
use fovea_security::{Expected, Pin as CaPin, Role, Tls, TlsFiles, begin};
use fovea_tests::faults::inspect::rss_kb;
use fovea_tests::{Cluster, synthetic_dataset};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(60);
/// Steps of which the pace is taken.
const STEPS: u64 = 40;
/// Growth of the coordinator's memory that is allowed, KiB: buffers of connections that are still open.
const GROWTH: u64 = 48 << 10;

/// Bodies that are no message of any method.
const BODIES: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0\0\0\0\x03\x0f\x0f\x0f",
    b"\0\0\0\0\x0a\x0a\x05",
    b"\0\xff\xff\xff\xf0 and little else",
    b"\x01\0\0\0\x01\x0a",
];

/// `/fovea.v1.Runs/Submit` and all others, and some that are not there.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(fovea_proto::DESCRIPTORS).unwrap();
    let services = set.file.iter().flat_map(|file| {
        let package = file.package();
        file.service.iter().map(move |service| (package, service))
    });
    let known = services.flat_map(|(package, service)| {
        let path = move |name: &str| format!("/{package}.{}/{name}", service.name());
        service.method.iter().map(move |method| path(method.name()))
    });
    let unknown = ["/", "/fovea.v1.Runs/../Admin/Backup", "/fovea.v2.Runs/List"];
    known.chain(unknown.map(str::to_owned)).collect()
}

/// The status with which a method answers a body of exactly these bytes.
async fn answer(mut channel: Channel, path: String, body: &'static [u8]) -> Status {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(String::from_utf8_lossy(body).into_owned()))
        .unwrap();
    let broken = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
    if let Err(error) = std::future::poll_fn(|context| channel.poll_ready(context)).await {
        return broken(&error);
    }
    let response = match channel.call(request).await {
        Ok(response) => response,
        Err(error) => return broken(&error),
    };
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let mut body = response.into_body();
    loop {
        let frame = std::future::poll_fn(|context| {
            tonic::codegen::Body::poll_frame(Pin::new(&mut body), context)
        });
        match frame.await {
            None => return Status::unknown("the answer ended without a status"),
            Some(Err(status)) => return status,
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    return status;
                }
            }
        }
    }
}

fn load(files: TlsFiles) -> Tls {
    Tls::load(files, "any role", |_| true).unwrap()
}

/// A connection that does no good, for as long as it is kept.
async fn nuisance(address: String, number: usize, viewer: Tls) {
    let Ok(mut socket) = TcpStream::connect(&address).await else {
        return;
    };
    match number % 4 {
        // Silent.
        0 => std::future::pending().await,
        // Half of a TLS handshake.
        1 => {
            let _ = socket
                .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
                .await;
            std::future::pending().await
        }
        // Drop by drop.
        2 => {
            for byte in std::iter::repeat_n(b'\x16', 10_000) {
                if socket.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // A member that says nothing.
        _ => {
            let config = viewer.client_config(Expected::coordinator(), &[b"h2"]);
            let _held = begin(socket, config, "127.0.0.1", Duration::from_millis(100)).await;
            std::future::pending().await
        }
    }
}

/// Waits for so many more steps; how long each took, seconds.
async fn pace(cluster: &Cluster, run: &str) -> f64 {
    let now = cluster
        .run(run)
        .await
        .progress
        .map_or(0, |report| report.step);
    let begun = Instant::now();
    cluster.wait_step(run, now + STEPS).await;
    begun.elapsed().as_secs_f64() / STEPS as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_cost_a_run_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let prepared = synthetic_dataset(dir.path(), 24, 64);
    let cluster = Cluster::start_secure(dir.path(), 2);
    cluster.fovea(&["dataset", "add", prepared.to_str().unwrap()]);
    let spec = pb::RunSpec {
        name: "calm".into(),
        dataset: "synthetic".into(),
        seed: Some(5),
        train: Some(pb::TrainSpec {
            epochs: Some(2_000),
            virtual_ranks: Some(2),
            batch: Some(3),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(2),
            max: Some(2),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(1_000),
            ..Default::default()
        }),
        ..Default::default()
    };
    let run = cluster.submit(spec).await;
    cluster.wait_step(&run.id, 5).await;
    let calm = pace(&cluster, &run.id).await;
    let pid = cluster.coordinator.pid();
    let before = rss_kb(pid).unwrap();

    let made = cluster.certificates();
    let viewer = load(made.member(Role::Viewer, "vic"));
    let worker = load(made.member(Role::Worker, "mallory"));
    let address = cluster.address().to_owned();
    let mut connections = JoinSet::new();
    for number in 0..200 {
        connections.spawn(nuisance(address.clone(), number, viewer.clone()));
    }
    let pin = CaPin::new(&viewer.ca_sha256().unwrap());
    let stranger = connect_pinned(&address, &pin, PATIENCE).await.unwrap();
    let member = async |tls: &Tls| connect_with(&address, Some(tls), PATIENCE).await.unwrap();
    let callers = [stranger, member(&viewer).await, member(&worker).await];
    let mut requests = JoinSet::new();
    for path in methods() {
        for body in BODIES {
            for channel in &callers {
                let asked = answer(channel.clone(), path.clone(), body);
                let path = path.clone();
                requests.spawn(async move { (path, body, timeout(PATIENCE, asked).await) });
            }
        }
    }
    let sent = requests.len();
    assert!(sent >= 300, "{sent} requests");
    let disturbed = pace(&cluster, &run.id).await;
    while let Some(answered) = requests.join_next().await {
        let (path, body, status) = answered.unwrap();
        let body = String::from_utf8_lossy(body);
        let status = status.unwrap_or_else(|_| panic!("{path} {body:?}: no answer"));
        let refused = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::Unimplemented
                | Code::Unauthenticated
                | Code::PermissionDenied
                | Code::OutOfRange
                | Code::ResourceExhausted
        );
        assert!(refused, "{path} {body:?}: {status:?}");
    }
    assert_eq!(
        rss_kb(pid).map(|after| after.saturating_sub(before) < GROWTH),
        Some(true)
    );
    let after = rss_kb(pid).unwrap();
    println!(
        "{sent} hostile requests and 200 connections: a step took {:.1} ms before and {:.1} ms during them; the \
         coordinator's memory was {} MiB before and {} MiB after",
        calm * 1e3,
        disturbed * 1e3,
        before >> 10,
        after >> 10
    );
    // The run is where it was, and so is everybody else.
    cluster.fovea(&["runs"]);
    cluster.fovea(&["cancel", &run.id]);
    let ended = cluster.wait_end(&run.id).await;
    assert_eq!(ended.phase(), pb::Phase::Cancelled, "{}", ended.reason);
    assert_eq!(ended.generation, 1, "a worker was lost");
    cluster.fovea(&["runs", "audit", &run.id]);
    let log = cluster.coordinator.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.len() < 1 << 20, "the log has {} bytes", log.len());
}
