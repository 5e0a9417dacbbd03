//! deploy/docker: images from the installed programs, and compose.yaml with three workers, of which one is killed and one cut off.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fovea_tests::{Process, free_port};

use crate::client::{Client, until};
use crate::site::{base_image, must, root, site};

/// How long a daemon takes to end its containers.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A Docker of our own, and a project of Compose in it.
struct Docker {
    socket: String,
    port: u16,
    daemon: Process,
}

impl Docker {
    fn start(dir: &Path, port: u16) -> Self {
        let socket = format!("unix://{}", dir.join("docker.sock").display());
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("docker.pid"))
            .args(["--host", &socket])
            // The machine's own network stays as it is.
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"]);
        let daemon = Process::start(command, dir.join("dockerd.log"));
        let docker = Self {
            socket,
            port,
            daemon,
        };
        until("dockerd answers", || {
            let out = docker.docker(&["info"]).output().expect("docker starts");
            out.status.success().then_some(())
        });
        docker
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        // Debian's own: it has BuildKit inside.
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_HOST", &self.socket).args(arguments);
        command
    }

    fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command
            .env("DOCKER_HOST", &self.socket)
            .env("COMPOSE_PROJECT_NAME", "foveatest")
            .env("PORT", self.port.to_string())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["--no-ansi", "--file"])
            .arg(root().join("deploy/docker/compose.yaml"))
            .args(arguments);
        command
    }

    /// The process of a container, as the machine sees it.
    fn pid(&self, container: &str) -> String {
        let pid = must(&mut self.docker(&["inspect", "--format", "{{.State.Pid}}", container]));
        pid.trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose(&["logs", "--tail", "60"]).output();
            eprintln!(
                "{}",
                logs.map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
                    .unwrap_or_default()
            );
        }
        let _ = self
            .compose(&["down", "--volumes", "--timeout", "10"])
            .output();
        self.daemon.signal(libc::SIGTERM);
        let end = std::time::Instant::now() + ENDS_WITHIN;
        while self.daemon.is_running() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Builds the images as the head of the Dockerfile says, without a network.
fn build(docker: &Docker) {
    let base = base_image();
    must(&mut docker.docker(&[
        "import",
        base.to_str().expect("UTF-8"),
        "debian:bookworm-slim",
    ]));
    let context: PathBuf = site().prefix.clone();
    for target in ["cli", "coordinator", "worker-cpu"] {
        let mut command =
            docker.docker(&["build", "--quiet", "--network", "none", "--target", target]);
        command
            .env("DOCKER_BUILDKIT", "1")
            .args(["--tag", &format!("fovea/{target}"), "--file"])
            .arg(root().join("deploy/docker/Dockerfile"))
            .arg(&context);
        must(&mut command);
        // As little as they need.
        let alone = [
            "run",
            "--rm",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--network",
            "none",
        ];
        let image = format!("fovea/{target}");
        let version = must(docker.docker(&alone).args([&image, "--version"]));
        assert!(version.starts_with("fovea"), "{version}");
    }
    // The other way round: a worker with CUDA needs its libraries, and says so.
    let mut cuda = docker.docker(&[
        "build",
        "--network",
        "none",
        "--target",
        "worker-cuda",
        "--file",
    ]);
    let out = cuda
        .env("DOCKER_BUILDKIT", "1")
        .arg(root().join("deploy/docker/Dockerfile"))
        .arg(&context)
        .output()
        .expect("docker starts");
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(
        !out.status.success() && error.contains("install.sh --cuda"),
        "{error}"
    );
}

#[test]
#[ignore = "starts a Docker: `make test-deploy` runs it"]
fn compose_survives_kills_and_cuts_and_the_weights_stay() {
    let site = site();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let docker = Docker::start(dir.path(), free_port());
    build(&docker);
    // Nothing is built from it here, but Compose 1.29 wants to see the folder for some of its commands.
    std::fs::create_dir_all(root().join("target/image")).expect("a folder can be made");
    let up = ["up", "--detach", "--no-build", "--scale", "worker=3"];
    must(&mut docker.compose(&up));
    let address = format!("http://127.0.0.1:{}", docker.port);
    let client = Client::new(site.prefix.join("bin/fovea"), address);
    let run = client.submit(&site.dataset, &site.run_file);
    client.progresses(&run, 5, 3);

    // It is started again.
    must(Command::new("kill").args(["-9", &docker.pid("foveatest_worker_1")]));
    client.progresses(&run, 5, 3);

    must(&mut docker.docker(&[
        "network",
        "disconnect",
        "foveatest_default",
        "foveatest_worker_2",
    ]));
    client.progresses(&run, 5, 2);
    must(&mut docker.docker(&[
        "network",
        "connect",
        "foveatest_default",
        "foveatest_worker_2",
    ]));
    client.progresses(&run, 5, 3);

    must(&mut docker.compose(&["restart", "coordinator"]));
    client.progresses(&run, 5, 3);

    // A paused run waits for its people, over a new set of containers, too.
    client.fovea(&["pause", &run]);
    until("the run is paused", || {
        (client.run(&run)["phase"] == "paused").then_some(())
    });
    let stopped = std::time::Instant::now();
    must(&mut docker.compose(&["down"]));
    assert!(
        stopped.elapsed() < Duration::from_secs(90),
        "{:?}",
        stopped.elapsed()
    );
    must(&mut docker.compose(&up));
    client.fovea(&["resume", &run]);
    client.progresses(&run, 5, 3);

    // A run under way goes on by itself.
    must(&mut docker.compose(&["down"]));
    must(&mut docker.compose(&up));
    client.completes(&run, &site.expected, dir.path());
    let names = ["coordinator_1", "worker_1", "worker_2", "worker_3"];
    for name in names.map(|name| format!("foveatest_{name}")) {
        until(&format!("{name} is healthy"), || {
            let format = ["inspect", "--format", "{{.State.Health.Status}}", &name];
            let health = must(&mut docker.docker(&format));
            (health.trim() == "healthy").then_some(())
        });
    }
}
