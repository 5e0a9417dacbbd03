//! Tokens as people use them: workers join with one, a person logs in with another, and a worker is shut out.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fovea_security::authority::{Authority, Options};
use fovea_security::{Identity, Role, write_private};
use fovea_tests::{Cluster, Process, binary, launch, synthetic_dataset};
use time::OffsetDateTime;

const PATIENCE: Duration = Duration::from_secs(60);

/// A file with a new token.
fn token(cluster: &Cluster, dir: &Path, args: &[&str]) -> PathBuf {
    let text = cluster.fovea(&[&["token", "create"], args].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    let path = dir.join(format!("{}.token", args.concat().replace("--", "")));
    write_private(&path, &text).unwrap();
    path
}

/// A worker that joins with a token.
fn joining(url: &str, dir: &Path, name: &str, token: &Path) -> Process {
    let program = binary("fovea-worker");
    let mut command = launch::worker_on("cpu", &program, &dir.join(name), url, name);
    command.env("FOVEA_JOIN_TOKEN_FILE", token);
    Process::start(command, dir.join(format!("{name}.log")))
}

/// `fovea` as somebody with a home folder of their own and no certificate.
fn as_person(url: &str, home: &Path, args: &[&str]) -> Output {
    with(url, home, &[], args)
}

/// The same with files in the environment.
fn with(url: &str, home: &Path, files: &[(&str, &PathBuf)], args: &[&str]) -> Output {
    Command::new(binary("fovea"))
        .args(["--coordinator", url])
        .args(args)
        .env("XDG_CONFIG_HOME", home)
        .envs(files.iter().copied())
        .output()
        .expect("fovea starts")
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// The ids of the connected workers, as soon as there are so many.
fn ids(cluster: &Cluster, count: usize) -> Vec<String> {
    let shown = cluster.fovea_until(&["--json", "workers"], |text| text.lines().count() == count);
    let id = |line: &str| {
        let worker: serde_json::Value = serde_json::from_str(line).unwrap();
        worker["id"].as_str().unwrap().to_owned()
    };
    shown.lines().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_join_a_person_logs_in_and_a_worker_is_shut_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let prepared = synthetic_dataset(path, 24, 64);
    let cluster = Cluster::start_secure(path, 0);
    let url = cluster.url();
    cluster.fovea(&["dataset", "add", prepared.to_str().unwrap()]);

    let join = token(&cluster, path, &["--role", "worker", "--uses", "2"]);
    let mut workers = ["node-a", "node-b"].map(|name| joining(&url, path, name, &join));
    let joined = ids(&cluster, 2);
    for name in ["node-a-", "node-b-"] {
        assert!(joined.iter().any(|id| id.starts_with(name)), "{joined:?}");
    }
    let mut late = joining(&url, path, "node-c", &join);
    assert_eq!(late.wait(PATIENCE).code(), Some(2), "{}", late.log());
    let log = late.log();
    assert!(log.contains("is used up: 2 workers have joined"), "{log}");

    let ann = token(&cluster, path, &["--role", "submitter", "--name", "ann"]);
    let home = path.join("ann");
    let before = as_person(&url, &home, &["runs"]);
    assert_eq!(before.status.code(), Some(2), "{}", text(&before));
    assert!(text(&before).contains("fovea login"), "{}", text(&before));
    let login = as_person(&url, &home, &["login", "--from", ann.to_str().unwrap()]);
    let said = text(&login);
    assert!(login.status.success(), "{said}");
    let expected = "as ann, submitter of the cluster eyes, by token ";
    assert!(said.contains(expected), "{said}");
    // What else could speak for her is named, and what does.
    let admin = cluster.certificates().admin();
    let with_ca = [("FOVEA_TLS_CA", &admin.ca)];
    let whoami = with(&url, &home, &with_ca, &["whoami"]);
    let said = text(&whoami);
    assert!(whoami.status.success(), "{said}");
    assert!(
        said.contains("ann, submitter of the cluster eyes"),
        "{said}"
    );
    assert!(
        said.contains("the CA of --tls-ca (or FOVEA_TLS_CA) is not used"),
        "{said}"
    );
    let with_certificate = [
        ("FOVEA_TLS_CERTIFICATE", &admin.certificate),
        ("FOVEA_TLS_KEY", &admin.key),
        ("FOVEA_TLS_CA", &admin.ca),
    ];
    let whoami = with(&url, &home, &with_certificate, &["whoami"]);
    let said = text(&whoami);
    assert!(
        said.contains("admin of the cluster eyes, by certificate"),
        "{said}"
    );
    let speaks = "your certificate (--tls-certificate or FOVEA_TLS_CERTIFICATE) speaks for you";
    assert!(said.contains(speaks), "{said}");
    let login = ["login", "--from", ann.to_str().unwrap()];
    let said = text(&with(&url, &home, &with_certificate, &login));
    assert!(
        said.contains("logged in to") && said.contains(speaks),
        "{said}"
    );
    let file = path.join("run.toml");
    let toml = "name = \"joined\"\ndataset = \"synthetic\"\n[train]\nepochs = 40\nbatch = 3\nvirtual_ranks = 4\n\
                [workers]\nmin = 1\nmax = 2\n[checkpoint]\nevery_epochs = 0\nevery_steps = 5\n";
    std::fs::write(&file, toml).unwrap();
    let submitted = as_person(&url, &home, &["submit", file.to_str().unwrap()]);
    assert!(submitted.status.success(), "{}", text(&submitted));
    let may_not = as_person(&url, &home, &["token", "list"]);
    assert!(text(&may_not).contains("of an admin"), "{}", text(&may_not));

    // By the id of its process, which is what people see.
    cluster.wait_step("joined-1", 2).await;
    let denied = joined.iter().find(|id| id.starts_with("node-b-")).unwrap();
    let said = cluster.fovea(&["worker", "deny", denied, "--reason", "sold"]);
    assert!(
        said.contains("is denied; 1 process was disconnected"),
        "{said}"
    );
    assert_eq!(
        workers[1].wait(PATIENCE).code(),
        Some(2),
        "{}",
        workers[1].log()
    );
    let log = workers[1].log();
    assert!(log.contains("is denied (sold)"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    // It goes on without the worker, and is hers to stop.
    let step = cluster.run("joined-1").await.progress.unwrap().step;
    cluster.wait_step("joined-1", step + 5).await;
    let cancelled = as_person(&url, &home, &["cancel", "joined-1"]);
    assert!(cancelled.status.success(), "{}", text(&cancelled));
    cluster.wait_end("joined-1").await;
    let audit = cluster.fovea(&["runs", "audit", "joined-1"]);
    assert!(audit.contains("clean"), "{audit}");

    // An identity that is kept needs no token any more.
    workers[0].signal(libc::SIGKILL);
    workers[0].wait(PATIENCE);
    std::fs::remove_file(&join).unwrap();
    let mut again = joining(&url, path, "node-a", &join);
    let end = Instant::now() + PATIENCE;
    while !again.log().contains("worker.started: ") {
        assert!(
            again.status().is_none() && Instant::now() < end,
            "{}",
            again.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let back = ids(&cluster, 1);
    let name = |id: &str| id.rsplitn(3, '-').nth(2).unwrap().to_owned();
    assert!(
        joined.iter().any(|id| name(id) == name(&back[0])),
        "{back:?}"
    );

    let out = as_person(&url, &home, &["logout"]);
    assert!(text(&out).contains("logged out"), "{}", text(&out));
    let after = as_person(&url, &home, &["runs"]);
    assert_eq!(after.status.code(), Some(2), "{}", text(&after));
}

/// A token that could not be shown is nobody's: the command fails, and says how to make it void.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_nobody_could_read_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start_secure(dir.path(), 0);
    let admin = cluster.certificates().admin();
    for form in [&[][..], &["--json"]] {
        // Nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let lost = Command::new(binary("fovea"))
            .args(["--coordinator", &cluster.url()])
            .args(form)
            .args(["token", "create", "--role", "viewer", "--name", "vic"])
            .env("FOVEA_TLS_CERTIFICATE", &admin.certificate)
            .env("FOVEA_TLS_KEY", &admin.key)
            .env("FOVEA_TLS_CA", &admin.ca)
            .env("XDG_CONFIG_HOME", dir.path())
            .stdout(writer)
            .output()
            .unwrap();
        let said = text(&lost);
        assert_eq!(lost.status.code(), Some(1), "{said}");
        let listed = cluster.fovea(&["--json", "token", "list"]);
        let made: serde_json::Value =
            serde_json::from_str(listed.lines().next().unwrap_or("{}")).unwrap();
        let id = made["id"].as_str().unwrap_or_default();
        let cure = format!("Nobody has token {id}: make it void with `fovea token revoke {id}`");
        assert!(said.contains(&cure), "{said}");
        assert!(!said.contains("It is shown this once"), "{said}");
        cluster.fovea(&["token", "revoke", id]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_cluster_does_not_reach_this_one() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [cluster, other] = [&ours, &theirs].map(|dir| Cluster::start_secure(dir.path(), 0));
    let join = token(&other, ours.path(), &["--role", "worker"]);
    let mut worker = joining(&cluster.url(), ours.path(), "w", &join);
    assert_eq!(worker.wait(PATIENCE).code(), Some(2), "{}", worker.log());
    let log = worker.log();
    assert!(
        log.contains("belongs to another cluster than the token"),
        "{log}"
    );
    let admin = token(&other, ours.path(), &["--role", "admin", "--name", "eve"]);
    let login = ["login", "--from", admin.to_str().unwrap()];
    let login = as_person(&cluster.url(), ours.path(), &login);
    let said = text(&login);
    assert_eq!(login.status.code(), Some(2), "{said}");
    assert!(said.contains("another cluster than the token"), "{said}");
    let plain = cluster.url().replace("https", "http");
    // Each time, however fast the connection is closed.
    for _ in 0..5 {
        let runs = as_person(&plain, ours.path(), &["runs"]);
        let said = text(&runs);
        assert_eq!(runs.status.code(), Some(2), "{said}");
        assert!(said.contains("it speaks TLS; write https://"), "{said}");
    }
    let mut worker = joining(&plain, ours.path(), "v", &join);
    assert_eq!(worker.wait(PATIENCE).code(), Some(2), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("must not be sent in plain text"), "{log}");
}

/// Puts an identity into a worker's data folder, as if it had joined so many hours ago.
fn joined_before(cluster: &Cluster, data: &Path, name: &str, hours: i64) {
    let made = cluster.certificates();
    let (ca, now) = (made.admin().ca, OffsetDateTime::now_utc());
    let authority = Authority::read(&ca, &made.ca_key(), now).unwrap();
    let identity = Identity::new("eyes", Role::Worker, name).unwrap();
    let options = Options {
        days: Some(1),
        hosts: Vec::new(),
    };
    let then = now - time::Duration::hours(hours);
    let pair = authority.issue(&identity, &options, then).unwrap();
    let folder = data.join("identity");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(ca, folder.join("ca.pem")).unwrap();
    write_private(&folder.join("key.pem"), &pair.key).unwrap();
    std::fs::write(folder.join("certificate.pem"), &pair.certificate).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_in_time_and_one_that_has_expired_needs_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let cluster = Cluster::start_secure(path, 0);
    let gone = path.join("gone.token");
    joined_before(&cluster, &path.join("old/worker-data"), "old", 20);
    let certificate = path.join("old/worker-data/identity/certificate.pem");
    let before = std::fs::read_to_string(&certificate).unwrap();
    let mut worker = joining(&cluster.url(), path, "old", &gone);
    let id = ids(&cluster, 1).remove(0);
    assert!(id.starts_with("old-"), "{id}");
    let end = Instant::now() + PATIENCE;
    while !worker.log().contains("identity.renewed: ") || !worker.log().contains("tls.reloaded: ") {
        assert!(
            worker.status().is_none() && Instant::now() < end,
            "{}",
            worker.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_ne!(std::fs::read_to_string(&certificate).unwrap(), before);
    assert_eq!(ids(&cluster, 1), [id], "its session has ended");

    joined_before(&cluster, &path.join("late/worker-data"), "late", 25);
    let mut late = joining(&cluster.url(), path, "late", &gone);
    assert_eq!(late.wait(PATIENCE).code(), Some(2), "{}", late.log());
    let log = late.log();
    assert!(
        log.contains("has expired on") && log.contains("gone.token"),
        "{log}"
    );
    let join = token(&cluster, path, &["--role", "worker"]);
    let _again = joining(&cluster.url(), path, "late", &join);
    let back = ids(&cluster, 2);
    assert!(back.iter().any(|id| id.starts_with("late-")), "{back:?}");
}
