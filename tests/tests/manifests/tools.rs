//! What the tests share: the tools, and the programs' own opinion of a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fovea_tests::binary;
use toml::Table;

pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository is there")
}

/// A program of the environment that `make deploy-tools` makes.
pub fn tool(name: &str) -> Command {
    let path = root().join(".deploy-tools/bin").join(name);
    assert!(
        path.exists(),
        "{} is not there; run `make deploy-tools`",
        path.display()
    );
    Command::new(path)
}

pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"))
}

/// Standard output of a command that must not fail.
pub fn stdout(command: &mut Command) -> String {
    let out = output(command);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}{error}");
    text
}

pub fn manifests(arguments: &[&str]) -> Command {
    let mut command = tool("python");
    command
        .arg(root().join("scripts/manifests.py"))
        .args(arguments);
    command
}

pub fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a folder");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{} is empty", path.display());
    folders
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for path in folders(from) {
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(fs::copy(&path, &target).expect("a file can be copied")),
        }
    }
}

/// The programs' keys, by the name of the variable.
pub fn keys(program: &str) -> BTreeSet<String> {
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

pub fn program_command(
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
pub fn configuration(
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
pub fn program(image: &str) -> Option<&'static str> {
    let programs = [
        ("coordinator", "fovea-coordinator"),
        ("worker", "fovea-worker"),
    ];
    programs
        .into_iter()
        .find(|(part, _)| image.contains(part))
        .map(|(_, program)| program)
}
