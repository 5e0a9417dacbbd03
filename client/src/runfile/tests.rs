//! Where a run file's weights are found.

use super::*;

const MINIMAL: &str = "name = \"dr\"\ndataset = \"eyepacs\"\n";

#[test]
fn weights_are_found_from_where_they_were_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = std::fs::canonicalize(folder.path()).unwrap();
    std::fs::write(folder.join("w.caffemodel"), b"abc").unwrap();
    let named = |weights: &str| {
        let text = format!("{MINIMAL}[model]\nweights = \"{weights}\"\n");
        let file = RunFile::parse("run.toml", &folder, &text).unwrap();
        resolve_weights(&file, &file.spec().unwrap())
    };
    // The SHA-256 of "abc", from FIPS 180-2.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let found = Weights::File(WeightsFile {
        path: folder.join("w.caffemodel"),
        sha256: abc.into(),
        bytes: 3,
    });
    assert_eq!(named("w.caffemodel").unwrap(), found);
    assert_eq!(named("./w.caffemodel").unwrap(), found);
    assert_eq!(named("").unwrap(), Weights::None);
    assert_eq!(named("bvlc").unwrap(), Weights::Stored);
    assert_eq!(named(&format!("sha256:{abc}")).unwrap(), Weights::Stored);
    let error = named("not-here.caffemodel").unwrap_err().to_string();
    assert!(
        error.starts_with("run.toml:4: model.weights: ") && error.contains("fovea weights list"),
        "{error}"
    );

    let wrong = format!(
        "{MINIMAL}[model]\nweights = \"w.caffemodel\"\nweights_sha256 = \"{}\"\n",
        "0".repeat(64)
    );
    let file = RunFile::parse("run.toml", &folder, &wrong).unwrap();
    let error = resolve_weights(&file, &file.spec().unwrap()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("run.toml:5: model.weights_sha256:"),
        "{error}"
    );
}
