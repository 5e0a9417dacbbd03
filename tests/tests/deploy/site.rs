//! What the tests of all engines share: the installed programs, a dataset, a run and the weights that it must end in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fovea_tests::{synthetic_dataset, tensors};

/// Steps of a few hundredths of a second, for long enough that faults fall into them.
const RUN: &str = r#"
name = "deploy"
dataset = "synthetic"

[model]
init = "xavier"

[train]
epochs = 24
virtual_ranks = 4
batch = 1
threads = 1

[checkpoint]
every_epochs = 2
"#;

/// Things that are made once.
#[derive(Debug)]
pub struct Site {
    /// Where deploy/install.sh put the programs.
    pub prefix: PathBuf,
    pub dataset: PathBuf,
    pub run_file: PathBuf,
    /// The tensors of an undisturbed run.
    pub expected: BTreeMap<String, Vec<u8>>,
}

/// The repository.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository is there")
}

/// Runs a command that must succeed, and returns its standard output.
pub fn must(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| {
        panic!("{command:?} does not start: {e}; run `scripts/deploy_engines.sh`")
    });
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{command:?}: {}: {text}{error}",
        out.status
    );
    text
}

/// A small Debian that images are made from.
pub fn base_image() -> PathBuf {
    let base = root().join(".deploy-tools/base.tar");
    assert!(
        base.exists(),
        "{} is not there; run `scripts/deploy_engines.sh`",
        base.display()
    );
    base
}

/// Makes certificates for a coordinator, an admin and the workers of this name in a folder.
pub fn certificates(dir: &Path, worker: &str) {
    let fovea = site().prefix.join("bin/fovea");
    let mut init = Command::new(&fovea);
    must(
        init.args(["certs", "init", "--cluster", "deploy", "--dir"])
            .arg(dir),
    );
    let mut issue = Command::new(&fovea);
    must(
        issue
            .args(["certs", "issue", "worker", worker, "--dir"])
            .arg(dir),
    );
}

/// The site, made at the first call.
pub fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(make)
}

fn make() -> Site {
    // Below target, so that programs can be linked to and `cargo clean` removes it.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deploy");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder can be made");
    let prefix = dir.join("fovea");
    must(Command::new(root().join("deploy/install.sh")).arg(&prefix));
    let dataset = synthetic_dataset(&dir, 48, 32);
    let run_file = dir.join("run.toml");
    fs::write(&run_file, RUN).expect("a file can be written");
    let data = dir.join("undisturbed");
    must(
        Command::new(prefix.join("bin/fovea"))
            .args(["local", "-n", "1", "--dataset"])
            .arg(&dataset)
            .arg("--data-dir")
            .arg(&data)
            .arg(&run_file),
    );
    let model =
        fs::read(data.join("deploy-1/model.safetensors")).expect("the run has written its model");
    Site {
        prefix,
        dataset,
        run_file,
        expected: tensors(&model),
    }
}
