//! The pods of deploy/kubernetes under Podman: not root, on a root file system that cannot be written.
//!
//! There is no Kubernetes here. Podman reads the objects as `kubectl kustomize` renders them, with what it does not know
//! replaced: the StatefulSet by a pod of its template, Secrets by folders with the owner and mode that Kubernetes gives
//! their files, the pod's address and the Service's name by addresses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fovea_tests::free_port;
use serde_json::{Value, json};

use crate::client::Client;
use crate::site::{base_image, certificates, must, root, site};

/// A Podman with its images and containers in a folder of its own.
struct Podman {
    dir: PathBuf,
}

impl Podman {
    fn start(dir: &Path) -> Self {
        // Podman would raise the limits to a million, which not everybody may.
        let limits =
            "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n";
        fs::write(dir.join("containers.conf"), limits).expect("a file can be written");
        let podman = Self {
            dir: dir.to_owned(),
        };
        let base = base_image();
        must(&mut podman.command(&[
            "import",
            base.to_str().expect("UTF-8"),
            "debian:bookworm-slim",
        ]));
        for target in ["coordinator", "worker-cpu"] {
            must(
                podman
                    .command(&["build", "--quiet", "--network", "none", "--target", target])
                    .args(["--build-arg", "BASE=localhost/debian:bookworm-slim"])
                    .args(["--format", "docker"])
                    .args(["--tag", &format!("fovea/{target}"), "--file"])
                    .arg(root().join("deploy/docker/Dockerfile"))
                    .arg(&site().prefix),
            );
        }
        podman
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", self.dir.join("containers.conf"))
            .arg("--root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .arg("--tmpdir")
            .arg(self.dir.join("tmp"))
            .args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"])
            .args(arguments);
        command
    }

    /// Starts a pod, with the ConfigMaps that it may need beside it.
    fn play(&self, objects: &[&Value]) {
        let texts: Vec<String> = objects.iter().map(ToString::to_string).collect();
        let file = self.dir.join("objects.yaml");
        fs::write(&file, texts.join("\n---\n")).expect("a file can be written");
        must(self.command(&["play", "kube"]).arg(&file));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["coordinator-coordinator", "worker-worker"] {
                let logs = self.command(&["logs", "--tail", "60", name]).output();
                eprintln!("{name}: {logs:?}");
            }
        }
        let _ = self.command(&["pod", "rm", "--force", "--all"]).output();
        let _ = self
            .command(&["network", "rm", "--force", "podman-default-kube-network"])
            .output();
        // Images are mounted; this unmounts them.
        let _ = self.command(&["system", "reset", "--force"]).output();
    }
}

/// The objects of the overlay for any cluster.
fn rendered() -> Vec<Value> {
    let text = must(
        Command::new(root().join(".deploy-tools/bin/python"))
            .arg(root().join("scripts/manifests.py"))
            .args(["render", "deploy/kubernetes/overlays/demo-cpu"])
            .current_dir(root()),
    );
    serde_json::from_str(&text).expect("a list")
}

/// A pod of the template of this kind of object, on ports of this machine.
fn pod(objects: &[Value], kind: &str, name: &str, ports: &[(u16, u16)]) -> Value {
    let object = objects.iter().find(|object| object["kind"] == kind);
    let template = &object.unwrap_or_else(|| panic!("no {kind}"))["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": template["metadata"]["labels"] },
        "spec": template["spec"],
    });
    let container = &mut pod["spec"]["containers"][0];
    let image = container["image"].as_str().expect("an image");
    container["image"] = json!(format!("localhost/{image}:latest"));
    for port in container["ports"].as_array_mut().expect("ports") {
        let (_, host) = ports
            .iter()
            .find(|(inside, _)| port["containerPort"] == *inside)
            .unwrap_or_else(|| panic!("{port} is not expected"));
        port["hostPort"] = json!(host);
        port["hostIP"] = json!("127.0.0.1");
    }
    pod
}

/// A folder in the place of the pod's Secret.
fn mount_secret(pod: &mut Value, certs: &Path, name: &str) {
    let folder = certs.join("secrets").join(name);
    fs::create_dir_all(&folder).expect("a folder can be made");
    for (from, key) in [
        (format!("{name}.pem"), "tls.crt"),
        (format!("{name}.key"), "tls.key"),
        ("ca.pem".into(), "ca.crt"),
    ] {
        let file = folder.join(key);
        fs::copy(certs.join(from), &file).expect("a file can be copied");
        must(Command::new("chown").arg("0:65532").arg(&file));
        must(Command::new("chmod").arg("0440").arg(&file));
    }
    let volumes = pod["spec"]["volumes"].as_array_mut().expect("volumes");
    let secret = volumes.iter_mut().find(|volume| volume["name"] == "tls");
    *secret.expect("a Secret") = json!({ "name": "tls", "hostPath": { "path": folder } });
}

#[test]
#[ignore = "starts pods in Podman: `make test-deploy` runs it"]
fn the_pods_train_without_root_on_a_read_only_root() {
    let site = site();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let podman = Podman::start(dir.path());
    let objects = rendered();
    let maps: Vec<&Value> = objects
        .iter()
        .filter(|object| object["kind"] == "ConfigMap")
        .collect();
    assert_eq!(maps.len(), 2);

    let certs = dir.path().join("certs");
    certificates(&certs, "pod");
    let grpc = free_port();
    let mut coordinator = pod(
        &objects,
        "StatefulSet",
        "coordinator",
        &[(7070, grpc), (7072, free_port())],
    );
    let volumes = coordinator["spec"]["volumes"]
        .as_array_mut()
        .expect("volumes");
    volumes.push(json!({ "name": "data", "persistentVolumeClaim": { "claimName": "fovea-data" } }));
    mount_secret(&mut coordinator, &certs, "coordinator");
    podman.play(&[&maps[..], &[&coordinator]].concat());

    let inspect = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let infra = must(&mut podman.command(&[
        "pod",
        "inspect",
        "coordinator",
        "--format",
        "{{.InfraContainerID}}",
    ]));
    let ip = must(&mut podman.command(&["inspect", infra.trim(), "--format", inspect]));
    let mut worker = pod(
        &objects,
        "Deployment",
        "worker",
        &[(7071, free_port()), (7073, free_port())],
    );
    let variables = worker["spec"]["containers"][0]["env"]
        .as_array_mut()
        .expect("variables");
    for variable in variables.iter_mut() {
        if variable["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP" {
            // It has no peers here.
            *variable = json!({ "name": variable["name"], "value": "127.0.0.1" });
        }
    }
    variables.push(
        json!({ "name": "FOVEA_COORDINATOR", "value": format!("https://{}:7070", ip.trim()) }),
    );
    mount_secret(&mut worker, &certs, "worker-pod");
    podman.play(&[&maps[..], &[&worker]].concat());

    for name in ["coordinator-coordinator", "worker-worker"] {
        let id = must(&mut podman.command(&["exec", name, "id", "-u"]));
        assert_eq!(id.trim(), "65532", "{name}");
        let out = podman
            .command(&["exec", name, "touch", "/opt/file"])
            .output();
        let error = String::from_utf8_lossy(&out.expect("podman starts").stderr).into_owned();
        assert!(error.contains("Read-only file system"), "{name}: {error}");
    }
    let client = Client::new(
        site.prefix.join("bin/fovea"),
        format!("https://127.0.0.1:{grpc}"),
    )
    .with_certificates(&certs);
    let run = client.submit(&site.dataset, &site.run_file);
    client.progresses(&run, 5, 1);
    client.completes(&run, &site.expected, dir.path());
    // Its volume outlives the pod.
    must(&mut podman.command(&["pod", "rm", "--force", "coordinator"]));
    podman.play(&[&maps[..], &[&coordinator]].concat());
    assert_eq!(client.run(&run)["phase"], "completed");
}
