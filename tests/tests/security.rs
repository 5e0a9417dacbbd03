//! A cluster with TLS, made as people make it: the same bits as without, and programs that say why they are refused.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fovea_proto::pb;
use fovea_security::{Role, TlsFiles};
use fovea_tests::certificates::environment;
use fovea_tests::{Certificates, Cluster, Process, launch, synthetic_dataset, tensors};

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;

fn spec(name: &str) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(5),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(4),
            batch: Some(3),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(1),
            max: Some(2),
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(2),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_under_tls_leaves_the_bits_of_plain_text() {
    let (plain_dir, secure_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let prepared = synthetic_dataset(plain_dir.path(), PATIENTS, SIZE);
    let prepared = prepared.to_str().expect("UTF-8");

    let plain = Cluster::start(plain_dir.path(), 1);
    plain.fovea(&["dataset", "add", prepared]);
    let run = plain.submit(spec("plain")).await;
    let done = plain.wait_completed(&run.id).await;
    let expected = tensors(&plain.checkpoint(&run.id, done.total_steps).await);
    drop(plain);

    let secure = Cluster::start_secure(secure_dir.path(), 2);
    secure.fovea(&["dataset", "add", prepared]);
    let run = secure.submit(spec("secure")).await;
    assert_eq!(run.submitted_by, "admin");
    secure.wait_step(&run.id, 2).await;
    secure.workers[1].signal(libc::SIGKILL);
    let done = secure.wait_completed(&run.id).await;
    let found = tensors(&secure.checkpoint(&run.id, done.total_steps).await);
    assert!(found == expected, "the bits differ");
    let shown = secure.fovea(&["run", &run.id]);
    assert!(shown.contains("by admin"), "{shown}");
    secure.fovea(&["runs", "audit", &run.id]);
    let log = secure.coordinator.log();
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
