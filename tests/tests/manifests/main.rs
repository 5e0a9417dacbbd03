//! The files of deploy/ are what they should be: rendered, valid for the oldest and the newest version of Kubernetes,
//! without a setting that the programs do not have, and without a complaint of the linters.

mod kubernetes;
mod slurm;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use fovea_tests::binary;
use serde_json::Value;

use crate::tools::{
    configuration, folders, keys, manifests, output, program, program_command, root, stdout, tool,
};

/// The longest line of YAML, as in code.
const YAMLLINT: &str = "{extends: default, rules: {line-length: {max: 125}, document-start: disable, \
                        comments: {min-spaces-from-content: 1}}}";

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
    let tls = fs::read_to_string(root().join("deploy/systemd/tls.conf")).expect("a drop-in");
    // Each file that systemd hands over is used.
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        assert!(
            tls.contains(&format!("LoadCredential={name}:/etc/fovea/")),
            "{name}"
        );
        assert!(tls.contains(&format!("=%d/{name}")), "{name}");
    }
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
        // As with its drop-in.
        let text = format!("{}\n{tls}", text.replace("/opt/fovea/bin", here));
        fs::write(&file, text).expect("a file can be written");
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
            .arg(deploy.join("monitoring"))
            .arg(deploy.join("kubernetes")),
    );
}
