//! deploy/kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fovea_security::{Identity, Role};
use serde_json::Value;

use crate::tools::{configuration, copy_folder, folders, manifests, program, root, stdout};

/// The versions of Kubernetes whose schemas the manifests meet, the oldest and the newest.
const KUBERNETES: [&str; 2] = ["1.29", "1.37"];

/// Objects that extensions of Kubernetes define. There are no schemas of them here: they are not validated.
const UNVALIDATED: [&str; 4] = [
    "cert-manager.io/v1 Certificate",
    "cert-manager.io/v1 Issuer",
    "kueue.x-k8s.io/v1beta1 LocalQueue",
    "monitoring.coreos.com/v1 PodMonitor",
];

/// The objects of an overlay.
fn render(folder: &Path) -> Vec<Value> {
    let folder = folder.to_str().expect("UTF-8");
    let text = stdout(&mut manifests(&["render", folder]));
    serde_json::from_str(&text).expect("a list")
}

/// The overlays, and one with each component alone.
fn overlays(copy: &Path) -> Vec<PathBuf> {
    let kubernetes = root().join("deploy/kubernetes");
    copy_folder(&kubernetes, copy);
    for component in folders(&copy.join("components")) {
        let name = component.file_name().expect("a name").to_string_lossy();
        let overlay = copy.join("overlays").join(format!("only-{name}"));
        fs::create_dir(&overlay).expect("a folder can be made");
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../base]\n\
             components: [../../components/{name}]\n"
        );
        fs::write(overlay.join("kustomization.yaml"), text).expect("a file can be written");
    }
    folders(&copy.join("overlays"))
}

fn validate(objects: &[Value], version: &str) -> Value {
    let mut child = manifests(&["validate", version])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the validation starts");
    let mut input = child.stdin.take().expect("it has an input");
    let text = serde_json::to_string(objects).expect("JSON");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let out = child.wait_with_output().expect("it ends");
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).expect("JSON")
}

/// What is wrong with the configuration of all containers of these objects, and how many were looked at.
fn containers(objects: &[Value]) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for object in objects {
        let pod = &object["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().into_iter().flatten() {
            let image = container["image"].as_str().expect("an image");
            let program = program(image).unwrap_or_else(|| panic!("{image} is none of Fovea's"));
            seen += 1;
            wrong.extend(configuration(
                program,
                &environment(container),
                Some(&config_file(objects, pod, container)),
            ));
        }
    }
    (seen, wrong)
}

fn environment(container: &Value) -> BTreeMap<String, String> {
    let variables = container["env"].as_array().into_iter().flatten();
    let pair = |variable: &Value| {
        let name = variable["name"].as_str().expect("a name").to_owned();
        // What the kubelet fills in.
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => "fd00::3".to_owned(),
            Some("metadata.name") => "fovea-worker-5d4b8-x7k2p".to_owned(),
            Some(other) => panic!("{name} is taken from {other}"),
            None => variable["value"].as_str().expect("a value").to_owned(),
        };
        (name, value)
    };
    variables.map(pair).collect()
}

/// The text of the file that `--config` names, from the ConfigMap that is mounted there.
fn config_file(objects: &[Value], pod: &Value, container: &Value) -> String {
    let find = |list: &Value, key: &str, value: &str| {
        let mut all = list.as_array().into_iter().flatten();
        let found = all.find(|thing| thing[key] == value);
        found
            .unwrap_or_else(|| panic!("no {key} {value:?} in {list}"))
            .clone()
    };
    let arguments = container["args"].as_array().expect("arguments");
    let [flag, path] = arguments.as_slice() else {
        panic!("{arguments:?}")
    };
    assert_eq!(flag, "--config");
    let path = Path::new(path.as_str().expect("a path"));
    let folder = path.parent().and_then(Path::to_str).expect("a folder");
    let mount = find(&container["volumeMounts"], "mountPath", folder);
    let volume = find(
        &pod["volumes"],
        "name",
        mount["name"].as_str().expect("a name"),
    );
    let map = objects
        .iter()
        .find(|object| {
            object["kind"] == "ConfigMap"
                && object["metadata"]["name"] == volume["configMap"]["name"]
        })
        .unwrap_or_else(|| panic!("{volume} names no ConfigMap"));
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let text = map["data"][name].as_str();
    text.unwrap_or_else(|| panic!("{name} is not in {map}"))
        .to_owned()
}

#[cfg_attr(
    not(has_manifests),
    ignore = "needs .deploy-tools: run `make deploy-tools`"
)]
#[test]
fn kubernetes_accepts_every_overlay() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let mut unvalidated = BTreeSet::new();
    for overlay in overlays(&dir.path().join("kubernetes")) {
        let objects = render(&overlay);
        for version in KUBERNETES {
            let result = validate(&objects, version);
            let name = overlay.display();
            assert_eq!(
                result["errors"],
                serde_json::json!([]),
                "{name} for {version}"
            );
            assert!(
                result["valid"]
                    .as_array()
                    .is_some_and(|all| all.len() >= 13),
                "{name}: {result}"
            );
            let others = result["unvalidated"].as_array().expect("a list");
            unvalidated.extend(
                others
                    .iter()
                    .map(|kind| kind.as_str().expect("a kind").to_owned()),
            );
        }
        let (seen, wrong) = containers(&objects);
        assert_eq!(seen, 2, "{}", overlay.display());
        assert!(wrong.is_empty(), "{}: {wrong:?}", overlay.display());
        let names = match overlay.ends_with("only-insecure") {
            true => [None, None],
            false => ["coordinator", "worker"].map(|role| Some(format!("fovea-{role}-tls"))),
        };
        assert_eq!(secrets(&objects), names.into(), "{}", overlay.display());
    }
    // New ones are named here by a person.
    assert_eq!(unvalidated, UNVALIDATED.map(str::to_owned).into());
}

#[cfg_attr(
    not(has_manifests),
    ignore = "needs .deploy-tools: run `make deploy-tools`"
)]
#[test]
fn mistakes_in_kubernetes_manifests_are_found() {
    let base = root().join("deploy/kubernetes/overlays/demo-cpu");
    let objects = serde_json::to_string(&render(&base)).expect("JSON");
    let changed = |from: &str, to: &str| -> Vec<Value> {
        assert!(objects.contains(from), "{from}");
        serde_json::from_str(&objects.replace(from, to)).expect("JSON")
    };
    for (from, to, named) in [
        ("FOVEA_ADVERTISE", "FOVEA_ADVERTIZE", "FOVEA_ADVERTIZE"),
        ("ops_listen = ", "ops_lisen = ", "ops_lisen"),
        (
            "on_stop = \\\"hand-over\\\"",
            "on_stop = \\\"handover\\\"",
            "on_stop",
        ),
        ("timeout_ms = 5000", "timeout_ms = 5", "timeout_ms"),
        ("FOVEA_TLS_CERTIFICATE", "FOVEA_TLS_CERT", "FOVEA_TLS_CERT"),
        ("FOVEA_TLS_CA", "FOVEA_TLS_CAS", "tls_ca is missing"),
    ] {
        let (_, wrong) = containers(&changed(from, to));
        assert!(
            wrong.iter().any(|text| text.contains(named)),
            "{named}: {wrong:?}"
        );
    }
    for (from, to) in [
        ("readOnlyRootFilesystem", "readonlyRootFilesystem"),
        ("\"replicas\":2", "\"replicas\":\"two\""),
    ] {
        for version in KUBERNETES {
            let result = validate(&changed(from, to), version);
            assert_ne!(
                result["errors"],
                serde_json::json!([]),
                "{to} for {version}"
            );
        }
    }
}

/// The Secrets with the certificates of all pods; None for a pod that goes without TLS, and says so.
///
/// # Panics
/// The program would not find the files there, would refuse the key, or has another name than its certificate.
fn secrets(objects: &[Value]) -> BTreeSet<Option<String>> {
    let mut secrets = BTreeSet::new();
    for object in objects {
        let pod = &object["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().into_iter().flatten() {
            let variables = environment(container);
            let coordinator = container["name"] == "coordinator";
            let secret = variables
                .contains_key("FOVEA_TLS_KEY")
                .then(|| secret(pod, container, &variables));
            let insecure = variables.contains_key("FOVEA_ALLOW_INSECURE");
            assert_eq!(insecure, coordinator && secret.is_none(), "{variables:?}");
            let named = variables.contains_key("FOVEA_NAME");
            assert_eq!(named, !coordinator && secret.is_none(), "{variables:?}");
            secrets.insert(secret);
        }
    }
    let services = objects.iter().filter(|object| object["kind"] == "Service");
    let protocols: Vec<&Value> = services
        .map(|service| &service["spec"]["ports"][0]["appProtocol"])
        .filter(|protocol| !protocol.is_null())
        .collect();
    let expected = match secrets.contains(&None) {
        true => "kubernetes.io/h2c",
        false => "https",
    };
    assert_eq!(protocols, [expected]);
    secrets
}

/// The Secret that this container's three files come from.
fn secret(pod: &Value, container: &Value, variables: &BTreeMap<String, String>) -> String {
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let mut names = BTreeSet::new();
    for (variable, file) in [
        ("FOVEA_TLS_CERTIFICATE", "tls.crt"),
        ("FOVEA_TLS_KEY", "tls.key"),
        ("FOVEA_TLS_CA", "ca.crt"),
    ] {
        let path = Path::new(&variables[variable]);
        assert!(path.ends_with(file), "{}", path.display());
        let folder = path.parent().and_then(Path::to_str).expect("a folder");
        let mount = mounts.iter().find(|mount| mount["mountPath"] == folder);
        let mount = mount.unwrap_or_else(|| panic!("nothing is mounted at {folder}"));
        // With subPath a new Secret would not be seen.
        assert!(mount["subPath"].is_null(), "{mount}");
        let volumes = pod["volumes"].as_array().expect("volumes");
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"]);
        let secret = &volume.expect("a volume")["secret"];
        // Kubernetes makes files of root; the group is that of the program.
        assert_eq!(secret["defaultMode"], 0o440, "{secret}");
        let security = &pod["securityContext"];
        assert_eq!(security["fsGroup"], security["runAsGroup"]);
        names.insert(secret["secretName"].as_str().expect("a name").to_owned());
    }
    assert_eq!(names.len(), 1, "{names:?}");
    names.pop_first().expect("a name")
}

#[cfg_attr(
    not(has_manifests),
    ignore = "needs .deploy-tools: run `make deploy-tools`"
)]
#[test]
fn cert_manager_makes_the_secrets_that_the_pods_mount() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let all = overlays(&dir.path().join("kubernetes"));
    let overlay = all.iter().find(|path| path.ends_with("only-cert-manager"));
    let objects = render(overlay.expect("the component"));
    let of_kind = |kind: &str| -> Vec<&Value> {
        let found = objects.iter().filter(|object| object["kind"] == kind);
        found.collect()
    };
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let issuers: BTreeSet<String> = of_kind("Issuer")
        .into_iter()
        .map(|issuer| text(&issuer["metadata"]["name"]))
        .collect();
    let mut made = BTreeMap::new();
    for certificate in of_kind("Certificate") {
        let spec = &certificate["spec"];
        assert!(
            issuers.contains(&text(&spec["issuerRef"]["name"])),
            "{spec}"
        );
        if spec["isCA"] == true {
            continue;
        }
        let usages = spec["usages"].as_array().expect("usages");
        for usage in ["server auth", "client auth"] {
            assert!(usages.iter().any(|one| one == usage), "{spec}");
        }
        let [uri] = spec["uris"].as_array().expect("URIs").as_slice() else {
            panic!("{spec}")
        };
        let identity: Identity = text(uri).parse().expect("an identity");
        assert_eq!(identity.cluster(), "fovea");
        made.insert(identity.role(), text(&spec["secretName"]));
    }
    let roles: Vec<Role> = made.keys().copied().collect();
    assert_eq!(roles, [Role::Coordinator, Role::Worker, Role::Admin]);
    made.remove(&Role::Admin);
    let made: BTreeSet<Option<String>> = made.into_values().map(Some).collect();
    assert_eq!(secrets(&objects), made);
}
