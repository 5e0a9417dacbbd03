//! What the jobs of deploy/slurm give their programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::tools::root;

/// In the place of a program: prints what it is told about TLS.
const PROGRAM: &str = "#!/bin/sh\nenv | grep -E '^FOVEA_(TLS_|ALLOW_INSECURE|NAME)' | sort\n";

/// Runs a job's script as on a node, with these variables in the submitting shell.
fn job(dir: &Path, script: &str, variables: &[(&str, &str)]) -> Output {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).expect("a folder can be made");
    for program in ["fovea-coordinator", "fovea-worker"] {
        let path = bin.join(program);
        fs::write(&path, PROGRAM).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    }
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOVEA_")) {
        command.env_remove(name);
    }
    command
        .arg(root().join("deploy/slurm").join(script))
        .args(["dataset", "run.toml"])
        .env("SHARED", dir.join("shared"))
        .env("SCRATCH", dir.join("scratch"))
        .env("PREFIX", dir)
        .env("SLURM_ARRAY_TASK_ID", "3")
        .envs(variables.iter().copied())
        .output()
        .expect("bash starts")
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn a_coordinators_job_without_certificates_stops_and_says_how_to_make_them() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    for script in ["coordinator.sbatch", "one-allocation.sbatch"] {
        let out = job(dir.path(), script, &[]);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{script}: {error}");
        for named in ["shared/certs", "certs init", "FOVEA_ALLOW_INSECURE=true"] {
            assert!(error.contains(named), "{script}: {named}: {error}");
        }
    }
    let insecure = ("FOVEA_ALLOW_INSECURE", "true");
    let out = job(dir.path(), "coordinator.sbatch", &[insecure]);
    assert_eq!(text(&out.stdout), "FOVEA_ALLOW_INSECURE=true\n");
    let out = job(dir.path(), "workers.sbatch", &[]);
    let names = text(&out.stdout);
    assert!(
        names.starts_with("FOVEA_NAME=") && names.ends_with("-3\n"),
        "{names}"
    );
}

#[test]
fn jobs_use_their_own_certificates_and_not_those_of_who_submits_them() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let certs = dir.path().join("shared/certs");
    fs::create_dir_all(&certs).expect("a folder can be made");
    for (script, name) in [
        ("coordinator.sbatch", "coordinator"),
        ("workers.sbatch", "worker-slurm"),
    ] {
        let person = ["CERTIFICATE", "KEY", "CA"].map(|key| format!("FOVEA_TLS_{key}"));
        let person: Vec<(&str, &str)> = person.iter().map(|key| (&**key, "/home/ann/x")).collect();
        let out = job(dir.path(), script, &person);
        let at = certs.display();
        let expected = format!(
            "FOVEA_TLS_CA={at}/ca.pem\nFOVEA_TLS_CERTIFICATE={at}/{name}.pem\nFOVEA_TLS_KEY={at}/{name}.key\n"
        );
        assert_eq!(
            text(&out.stdout),
            expected,
            "{script}: {}",
            text(&out.stderr)
        );
    }
}
