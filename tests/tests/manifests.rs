//! The files of deploy/ are what they should be: rendered, valid for the oldest and the newest version of Kubernetes,
//! without a setting that the programs do not have, and without a complaint of the linters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fovea_tests::binary;
use serde_json::Value;
use toml::Table;

/// The versions of Kubernetes whose schemas the manifests meet, the oldest and the newest.
const KUBERNETES: [&str; 2] = ["1.29", "1.37"];

/// Objects that extensions of Kubernetes define. There are no schemas of them here: they are not validated.
const UNVALIDATED: [&str; 1] = ["kueue.x-k8s.io/v1beta1 LocalQueue"];

/// The longest line of YAML, as in code.
const YAMLLINT: &str = "{extends: default, rules: {line-length: {max: 125}, document-start: disable, \
                        comments: {min-spaces-from-content: 1}}}";

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository is there")
}

/// A program of the environment that scripts/deploy_tools.py makes.
fn tool(name: &str) -> Command {
    let path = root().join(".deploy-tools/bin").join(name);
    assert!(
        path.exists(),
        "{} is not there; run `make deploy-tools`",
        path.display()
    );
    Command::new(path)
}

fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"))
}

/// Standard output of a command that must not fail.
fn stdout(command: &mut Command) -> String {
    let out = output(command);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}{error}");
    text
}

fn manifests(arguments: &[&str]) -> Command {
    let mut command = tool("python");
    command
        .arg(root().join("scripts/manifests.py"))
        .args(arguments);
    command
}

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

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a folder");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{} is empty", path.display());
    folders
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for path in folders(from) {
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(fs::copy(&path, &target).expect("a file can be copied")),
        }
    }
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

/// The programs' keys, by the name of the variable.
fn keys(program: &str) -> BTreeSet<String> {
    let text = stdout(&mut program_command(
        program,
        &BTreeMap::new(),
        &["--dump-config"],
    ));
    let table: Table = text.parse().expect("TOML");
    let names = table
        .keys()
        .map(|key| format!("FOVEA_{}", key.to_uppercase()));
    names.collect()
}

fn program_command(
    program: &str,
    environment: &BTreeMap<String, String>,
    arguments: &[&str],
) -> Command {
    let mut command = Command::new(binary(program));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOVEA_")) {
        command.env_remove(name);
    }
    command.envs(environment).args(arguments);
    command
}

/// What is wrong with the configuration of a program: variables that are no keys, and what the program itself says about
/// the file and the values.
fn configuration(
    program: &str,
    environment: &BTreeMap<String, String>,
    file: Option<&str>,
) -> Vec<String> {
    let known = keys(program);
    let ours = environment.keys().filter(|name| name.starts_with("FOVEA_"));
    let mut wrong: Vec<String> = ours
        .filter(|name| !known.contains(*name))
        .map(|name| format!("{program} has no key for {name}"))
        .collect();
    let mut environment = environment.clone();
    if file.is_none() {
        // Where `health` asks; a file that only adds to another need not say so.
        let ops = environment.entry("FOVEA_OPS_LISTEN".into());
        ops.or_insert_with(|| "127.0.0.1:7072".into());
    }
    let mut arguments = Vec::new();
    let mut written = tempfile::NamedTempFile::new().expect("a file can be made");
    let path = written.path().to_str().expect("UTF-8").to_owned();
    if let Some(text) = file {
        written
            .write_all(text.as_bytes())
            .expect("a file can be written");
        arguments.extend(["--config", &path]);
    }
    // It validates the configuration, then finds that nobody listens (1).
    arguments.push("health");
    let out = output(&mut program_command(program, &environment, &arguments));
    if out.status.code() == Some(2) {
        wrong.push(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    wrong
}

/// The program of an image, if it has a configuration.
fn program(image: &str) -> Option<&'static str> {
    let programs = [
        ("coordinator", "fovea-coordinator"),
        ("worker", "fovea-worker"),
    ];
    programs
        .into_iter()
        .find(|(part, _)| image.contains(part))
        .map(|(_, program)| program)
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
        (
            "allow_insecure = true",
            "allow_insecure = false",
            "allow_insecure",
        ),
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

#[cfg_attr(
    not(has_manifests),
    ignore = "needs .deploy-tools: run `make deploy-tools`"
)]
#[test]
fn compose_sets_what_the_programs_know() {
    for name in ["compose.yaml", "compose.gpu.yaml"] {
        let file = root().join("deploy/docker").join(name);
        let text = stdout(&mut manifests(&["yaml", file.to_str().expect("UTF-8")]));
        let compose: Value = serde_json::from_str(&text).expect("JSON");
        let mut seen = 0;
        for (service, settings) in compose["services"].as_object().expect("services") {
            let Some(image) = settings["image"].as_str() else {
                continue;
            };
            let program = program(image).unwrap_or_else(|| panic!("{service} runs {image}"));
            let variables = settings["environment"].as_object().expect("variables");
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let mut environment: BTreeMap<String, String> = variables
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect();
            if program == "fovea-worker" {
                // Its entry point.
                environment.insert("FOVEA_ADVERTISE".into(), "0123456789ab".into());
            }
            let wrong = configuration(program, &environment, None);
            assert!(wrong.is_empty(), "{name}: {service}: {wrong:?}");
            seen += 1;
        }
        assert_eq!(seen, 2, "{name}");
    }
}

/// Each word that looks like a variable of ours, in every file of deploy/, is a key of one of the programs.
#[test]
fn every_variable_in_deploy_is_a_key() {
    let known: BTreeSet<String> = ["fovea-coordinator", "fovea-worker"]
        .into_iter()
        .flat_map(keys)
        .collect();
    let mut files = vec![root().join("deploy")];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(folders(&path));
            continue;
        }
        let text = fs::read_to_string(&path).expect("a text");
        // A variable of an image would override the configuration file that somebody mounts.
        let image = path.file_name().is_some_and(|name| name == "Dockerfile");
        assert!(!(image && text.contains("FOVEA_")), "{}", path.display());
        for rest in text.split("FOVEA_").skip(1) {
            let part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            let name = format!("FOVEA_{}", &rest[..end]);
            // In prose: "FOVEA_ and the key in capitals".
            if end > 0 {
                assert!(
                    known.contains(&name),
                    "{}: {name} is no key",
                    path.display()
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[cfg_attr(
    not(has_manifests),
    ignore = "needs .deploy-tools: run `make deploy-tools`"
)]
#[test]
fn units_are_valid_and_confined() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    for (unit, instance, exposure) in [
        (
            "fovea-coordinator.service",
            "fovea-coordinator.service",
            "20",
        ),
        ("fovea-worker@.service", "fovea-worker@1.service", "20"),
    ] {
        let text = fs::read_to_string(root().join("deploy/systemd").join(unit)).expect("a unit");
        let start = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .expect("a command");
        let mut words = start.split_whitespace();
        let path = words.next().expect("a program");
        let name = path
            .strip_prefix("/opt/fovea/bin/")
            .expect("a program of ours");
        let program = binary(name);
        // Its options exist, and the example file that the unit's head names is valid.
        let mut options: Vec<String> = words
            .map(|word| match word {
                "/etc/fovea/coordinator.toml" => {
                    root().join("deploy/coordinator.toml").display().to_string()
                }
                "/etc/fovea/worker.toml" => root().join("deploy/worker.toml").display().to_string(),
                "${STATE_DIRECTORY}" | "${CACHE_DIRECTORY}" => "/var/lib/somewhere".into(),
                "%i" => "1".into(),
                other => other.to_owned(),
            })
            .collect();
        options.push("--dump-config".into());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let dumped = stdout(&mut program_command(name, &BTreeMap::new(), &options));
        assert!(
            dumped.contains("data_dir = \"/var/lib/somewhere\""),
            "{dumped}"
        );
        // The programs are where this test finds them.
        let here = program.parent().and_then(Path::to_str).expect("UTF-8");
        let file = dir.path().join(instance);
        fs::write(&file, text.replace("/opt/fovea/bin", here)).expect("a file can be written");
        let out = output(
            Command::new("systemd-analyze")
                .args(["verify", "--man=no"])
                .arg(&file),
        );
        let complaints = String::from_utf8_lossy(&out.stderr);
        // Of this unit; the machine's own may be broken.
        let ours: Vec<&str> = complaints
            .lines()
            .filter(|line| line.contains("fovea"))
            .collect();
        assert!(ours.is_empty() && out.status.success(), "{complaints}");
        stdout(
            Command::new("systemd-analyze")
                .args(["security", "--no-pager", "--offline=true"])
                .args(["--threshold", exposure])
                .arg(&file),
        );
    }
}

#[cfg_attr(
    not(has_manifests),
    ignore = "needs .deploy-tools: run `make deploy-tools`"
)]
#[test]
fn linters_have_nothing_to_say() {
    let deploy = root().join("deploy");
    let jobs = folders(&deploy.join("slurm"));
    stdout(tool("shellcheck").args(jobs).arg(deploy.join("install.sh")));
    stdout(tool("hadolint").arg(deploy.join("docker/Dockerfile")));
    stdout(
        tool("yamllint")
            .args(["--strict", "-d", YAMLLINT])
            .arg(deploy.join("docker"))
            .arg(deploy.join("kubernetes")),
    );
}
