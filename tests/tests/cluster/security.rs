//! A cluster with TLS, made as people make it: the same bits as without, and programs that say why they are refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fovea_proto::pb;
use fovea_security::{Role, TlsFiles};
use fovea_tests::certificates::environment;
use fovea_tests::faults::Wire;
use fovea_tests::{Certificates, Cluster, Process, free_port, launch, synthetic_dataset, tensors};

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;

fn spec(name: &str, workers: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(5),
        train: Some(pb::TrainSpec {
            epochs: Some(3),
            virtual_ranks: Some(4),
            batch: Some(3),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(workers.min(2)),
            max: Some(workers),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(2),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Starts a worker whose peers reach it over a wire.
async fn add_worker_behind_a_wire(cluster: &mut Cluster) -> Wire {
    let listen = format!("127.0.0.1:{}", free_port());
    let wire = Wire::to(&listen).await.expect("a port is free");
    let variables = [
        ("FOVEA_LISTEN", &*listen),
        ("FOVEA_ADVERTISE", wire.address()),
    ];
    cluster.add_worker_on("cpu", &variables);
    wire
}

/// What the run ends with.
async fn ended(cluster: &Cluster, run: &pb::Run) -> BTreeMap<String, Vec<u8>> {
    let done = cluster.wait_completed(&run.id).await;
    cluster.fovea(&["runs", "audit", &run.id]);
    tensors(&cluster.checkpoint(&run.id, done.total_steps).await)
}

/// The begin of a greeting, and that of a message with gradients. (A handshake shows the name of the protocol.)
const IN_PLAIN_TEXT: [&[u8]; 2] = [b"fovea-m3", b"1AVF\x01\0\0\0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disturbed_run_under_tls_ends_with_the_bits_of_plain_text_and_shows_nothing() {
    let (plain_dir, secure_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let prepared = synthetic_dataset(plain_dir.path(), PATIENTS, SIZE);
    let prepared = prepared.to_str().expect("UTF-8");

    let mut plain = Cluster::start(plain_dir.path(), 1);
    plain.fovea(&["dataset", "add", prepared]);
    let run = plain.submit(spec("plain", 1)).await;
    let expected = ended(&plain, &run).await;
    plain.workers.clear();
    // What is looked for below can be found.
    let wires = [
        add_worker_behind_a_wire(&mut plain).await,
        add_worker_behind_a_wire(&mut plain).await,
    ];
    let run = plain.submit(spec("plain-two", 2)).await;
    assert!(ended(&plain, &run).await == expected, "the bits differ");
    for what in IN_PLAIN_TEXT {
        assert!(wires.iter().any(|wire| wire.shows(what)), "{what:?}");
    }
    let numbers = wires.iter().map(Wire::commonest_byte).fold(0.0, f64::max);
    assert!(numbers > 0.02, "{numbers}");
    drop(plain);

    let mut secure = Cluster::start_secure(secure_dir.path(), 0);
    secure.fovea(&["dataset", "add", prepared]);
    let mut wires = Vec::new();
    for _ in 0..3 {
        wires.push(add_worker_behind_a_wire(&mut secure).await);
    }
    let run = secure.submit(spec("secure", 3)).await;
    assert_eq!(run.submitted_by, "admin");
    secure.wait_step(&run.id, 2).await;
    wires.iter().for_each(Wire::change_a_bit);
    secure.wait_step(&run.id, 5).await;
    secure.workers[1].signal(libc::SIGKILL);
    assert!(ended(&secure, &run).await == expected, "the bits differ");
    for wire in &wires {
        for what in IN_PLAIN_TEXT {
            assert!(!wire.shows(what), "{what:?}");
        }
    }
    let kept = wires.iter().filter(|wire| wire.kept() > 4 << 20);
    let shares: Vec<f64> = kept.map(Wire::commonest_byte).collect();
    // Even when the second worker is everybody's lowest rank, most has passed one of the others' wires.
    assert!(
        !shares.is_empty() && shares.iter().all(|&share| share < 0.006),
        "{shares:?}"
    );
    let logs: Vec<String> = secure.workers.iter().map(Process::log).collect();
    let found_out = |log: &String| log.contains("because bytes were changed on the way");
    assert!(logs.iter().any(found_out), "{logs:?}");
    let shown = secure.fovea(&["run", &run.id]);
    assert!(shown.contains("by admin"), "{shown}");
    let log = secure.coordinator.log();
    assert!(log.contains("generation.interrupted: "), "{log}");
    assert!(
        log.contains("with TLS as fovea://eyes/coordinator/coordinator"),
        "{log}"
    );
    assert!(
        log.contains("audit.change: admin (admin) asked for Runs/Submit of secure-1: done"),
        "{log}"
    );
    assert!(
        log.contains(
            "audit.change: admin (admin) asked for Datasets/Create of dataset synthetic: done"
        ),
        "{log}"
    );
}

/// The exit code and the output of a worker that does not find its place.
fn turned_away(
    dir: &Path,
    url: &str,
    name: &str,
    files: Option<&TlsFiles>,
) -> (Option<i32>, String) {
    let program = fovea_tests::binary("fovea-worker");
    let mut command = launch::worker_on("cpu", &program, dir, url, name);
    command.envs(files.iter().flat_map(|files| environment(files)));
    let mut worker = Process::start(command, dir.join("turned-away.log"));
    let status = worker.wait(Duration::from_secs(60));
    (status.code(), worker.log())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_worker_ends_with_code_2_and_its_own_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let cluster = Cluster::start_secure(path, 0);
    let certificates = cluster.certificates();
    let worker = certificates.member(Role::Worker, "w");
    let other = Certificates::create(path.join("other"));
    let stranger = other.member(Role::Worker, "w");
    // Known to itself only: it trusts this cluster's CA, too.
    let bundle = path.join("both.pem");
    let both = [&worker.ca, &stranger.ca].map(|ca| std::fs::read_to_string(ca).unwrap());
    std::fs::write(&bundle, both.concat()).unwrap();
    let unknown = TlsFiles {
        ca: bundle,
        ..stranger.clone()
    };
    let mixed = TlsFiles {
        key: stranger.key.clone(),
        ..worker.clone()
    };
    let open = certificates.member(Role::Worker, "open");
    Command::new("chmod")
        .arg("644")
        .arg(&open.key)
        .status()
        .unwrap();
    let viewer = certificates.member(Role::Viewer, "vic");
    let url = cluster.url();
    let plain = url.replace("https", "http");
    for (url, name, files, named) in [
        (
            &url,
            "w",
            Some(&stranger),
            "the coordinator's certificate is signed by another CA",
        ),
        (
            &url,
            "w",
            Some(&unknown),
            "the coordinator does not know the CA of this certificate",
        ),
        (
            &url,
            "w",
            Some(&mixed),
            "it is not the key of tls_certificate",
        ),
        (
            &url,
            "open",
            Some(&open),
            "others can read this secret; `chmod 600",
        ),
        (
            &url,
            "vic",
            Some(&viewer),
            "it is fovea://eyes/viewer/vic, and this program needs a certificate of a worker",
        ),
        (
            &url,
            "x",
            Some(&worker),
            "name is \"x\", and tls_certificate is that of worker \"w\"",
        ),
        (&url, "w", None, "needs a certificate or a token"),
        (
            &plain,
            "w",
            None,
            "it speaks TLS; write https:// in the address",
        ),
        (&plain, "w", Some(&worker), "is an address without TLS"),
    ] {
        let (code, log) = turned_away(path, url, name, files);
        assert!(log.contains(named), "{named}: {log}");
        assert_eq!(code, Some(2), "{named}: {log}");
    }
    // And people: the command line says the same, with the same code.
    let output = Command::new(fovea_tests::binary("fovea"))
        .args(["--coordinator", &url, "runs"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("needs a certificate or a token"), "{text}");
    assert_eq!(output.status.code(), Some(2), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_make_show_and_renew_what_a_cluster_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("certs");
    let certificates = Certificates::create(path.clone());
    let fovea = |args: &[&str]| {
        let output = Command::new(fovea_tests::binary("fovea"))
            .args(args)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let folder = path.to_str().expect("UTF-8");
    let init = ["certs", "init", "--cluster", "eyes", "--dir", folder];
    let (code, text) = fovea(&init);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("ca.pem exists already; --if-missing"),
        "{text}"
    );
    let before = std::fs::read(path.join("ca.pem")).unwrap();
    std::fs::remove_file(path.join("admin.pem")).unwrap();
    let (code, text) = fovea(&[&init[..], &["--if-missing"]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(std::fs::read(path.join("ca.pem")).unwrap(), before);
    assert!(path.join("admin.pem").exists());
    let (code, text) = fovea(&[
        "certs",
        "init",
        "--cluster",
        "ears",
        "--if-missing",
        "--dir",
        folder,
    ]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("is fovea://eyes/coordinator/coordinator, and not fovea://ears"),
        "{text}"
    );

    let worker = certificates.member(Role::Worker, "w");
    let file = worker.certificate.to_str().expect("UTF-8");
    let key = std::fs::read(&worker.key).unwrap();
    let (code, text) = fovea(&["certs", "show", file]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("fovea://eyes/worker/w"), "{text}");
    assert!(
        text.contains("364 days left") || text.contains("365 days left"),
        "{text}"
    );
    let (code, text) = fovea(&["certs", "renew", file, "--days", "20", "--dir", folder]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("19 days left") || text.contains("20 days left"),
        "{text}"
    );
    assert_eq!(std::fs::read(&worker.key).unwrap(), key, "the key stays");
    let (code, text) = fovea(&["certs", "issue", "worker", "w", "--dir", folder]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("worker-w.pem exists already; `fovea certs renew`"),
        "{text}"
    );
    let (code, text) = fovea(&["certs", "issue", "boss", "w", "--dir", folder]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("use coordinator, worker, viewer, submitter or admin"),
        "{text}"
    );
    for file in std::fs::read_dir(&path).unwrap().flatten() {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        let is_key = file.path().extension().is_some_and(|end| end == "key");
        assert_eq!(
            mode,
            if is_key { 0o600 } else { 0o644 },
            "{:?}",
            file.path()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_under_tls_outlives_the_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let prepared = synthetic_dataset(dir.path(), PATIENTS, SIZE);
    let mut cluster = Cluster::start_secure(dir.path(), 1);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let run = cluster.submit(spec("watched", 1)).await;
    let mut command = Command::new(fovea_tests::binary("fovea"));
    command
        .args(["--coordinator", &cluster.url(), "watch", &run.id])
        .envs(environment(&cluster.certificates().admin()));
    let mut watch = Process::start(command, dir.path().join("watch.log"));
    cluster.wait_step(&run.id, 1).await;
    cluster.coordinator.signal(libc::SIGKILL);
    cluster.coordinator.wait(Duration::from_secs(30));
    cluster.restart_coordinator();
    cluster.wait_completed(&run.id).await;
    let status = watch.wait(Duration::from_secs(60));
    assert!(status.success(), "{}", watch.log());
}
