//! `fovea baseline` as a process: figures, files, comparison with scores, refusals.

use crate::common;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{prepared_of, stderr, stdout};
use fovea_dataset::{Dataset, Split};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

fn baseline(dataset: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fovea"))
        .arg("baseline")
        .arg(dataset)
        .args(["--labels", "any_dr", "--draws", "100"])
        .args(more)
        .output()
        .unwrap()
}

fn records(output: &Output) -> Vec<Value> {
    let text = stdout(output);
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[track_caller]
fn refused(output: &Output, code: i32, said: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(stderr(output).contains(said), "{}", stderr(output));
}

#[test]
fn baselines_are_judged_and_compared_with_scores_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let set = prepared_of(dir.path(), 16, 96);
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (scores, masks) = (at("scores.csv"), at("masks"));
    let output = baseline(
        &set,
        &[
            "--json",
            "--features",
            "acharya2009,nayak2008",
            "--csv",
            &scores,
            "--masks",
            &masks,
        ],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let all = records(&output);
    let dataset = Dataset::open(&set).unwrap();
    let validation = dataset.index().of(Split::Validation).len();
    let named = |kind: &str| {
        let of_kind = all.iter().filter(|r| r["type"] == kind);
        of_kind
            .map(|r| r["name"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let names = ["acharya2009 svm-rbf", "nayak2008 mlp"];
    assert_eq!(
        (named("baseline"), named("compared")),
        (names.to_vec(), names.to_vec())
    );
    let first = &all[0];
    assert_eq!(first["samples"], validation as u64);
    assert_eq!(first["dataset_digest"], dataset.manifest().digest.as_str());
    assert_eq!(first["chosen"]["parameters"][0][0], "C");
    assert!(
        first["auc"]["low"].as_f64() <= first["auc"]["value"].as_f64(),
        "{first}"
    );
    assert!(all[3]["difference"]["to"] == names[0] && all[2]["difference"].is_null());

    // One row a photograph, and pictures of all of them: there are few.
    let file = at("scores-acharya2009-svm-rbf.csv");
    let rows = fs::read_to_string(&file).unwrap();
    assert_eq!(rows.lines().count(), validation + 1);
    assert!(
        rows.starts_with("image,patient,eye,grade,label,p0,p1,p_positive\n"),
        "{rows}"
    );
    assert!(Path::new(&at("scores-nayak2008-mlp.csv")).exists());
    let pictures: Vec<_> = fs::read_dir(&masks)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(pictures.len() >= 4 && pictures.len() <= 16, "{pictures:?}");
    let picture = image::open(&pictures[0]).unwrap();
    assert_eq!((picture.width(), picture.height()), (1024, 512));
    // Nothing is replaced unasked, and nothing measured in vain.
    refused(
        &baseline(
            &set,
            &["--features", "acharya2009,nayak2008", "--csv", &scores],
        ),
        1,
        "scores-acharya2009",
    );

    // The same again has the same bits, so there is no difference to the file.
    let given = format!("net={file}");
    let output = baseline(&set, &["--features", "acharya2009", "--scores", &given]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("prepared at 96 pixels"),
        "{}",
        stderr(&output)
    );
    let text = stdout(&output);
    let row = |name: &str| {
        let found = text.lines().rfind(|l| l.starts_with(name));
        found.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    assert!(row("model").contains("AUC minus that of net"), "{text}");
    assert!(row("acharya2009 svm-rbf ").contains("+0.000"), "{text}");
    let after = |line: String| line.split_once("  ").unwrap().1.trim().to_owned();
    let figures = after(row("net "));
    assert!(
        row("acharya2009 svm-rbf ").contains(figures.split("  ").next().unwrap()),
        "{text}"
    );
    assert!(text.contains("fellow eye: "), "{text}");
}

#[test]
fn features_of_a_network_are_used_in_the_order_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let set = prepared_of(dir.path(), 16, 32);
    let dataset = Dataset::open(&set).unwrap();
    let samples = || Split::ALL.into_iter().flat_map(|s| dataset.index().of(s));
    // The second number tells the grade, with a little noise.
    let values: Vec<u8> = samples()
        .enumerate()
        .flat_map(|(at, s)| {
            [
                0.1 * (at % 3) as f32,
                f32::from(s.grade) + 0.01 * (at % 5) as f32,
                1.0,
            ]
        })
        .flat_map(f32::to_le_bytes)
        .collect();
    let write = |name: &str, rows: usize, digest: &str| {
        let tensor = TensorView::new(Dtype::F32, vec![rows, 3], &values[..rows * 12]).unwrap();
        let metadata = [
            ("fovea_features", "1"),
            ("dataset_digest", digest),
            ("layer", "pool5/7x7_s1"),
        ];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let file = dir.path().join(name);
        safetensors::serialize_to_file([("features", tensor)], Some(metadata), &file).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let digest = dataset.manifest().digest.as_str();
    let file = write("good.safetensors", samples().count(), digest);
    let output = baseline(
        &set,
        &["--json", "--features", "cnn", "--cnn-features", &file],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let all = records(&output);
    assert_eq!(all[0]["name"], "cnn svm-linear");
    assert_eq!(all[0]["auc"]["value"], 1.0);
    for (file, said) in [
        (
            write("other.safetensors", samples().count(), "abc"),
            "digest abc",
        ),
        (write("short.safetensors", 3, digest), "3 rows of 3 numbers"),
    ] {
        refused(
            &baseline(&set, &["--features", "cnn", "--cnn-features", &file]),
            2,
            said,
        );
    }
    refused(&baseline(&set, &["--features", "cnn"]), 2, "go together");
}

/// Everything that is refused is refused before a photograph is measured.
#[test]
fn what_does_not_fit_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let set = prepared_of(dir.path(), 16, 32);
    let dataset = Dataset::open(&set).unwrap();
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    let validation = dataset.index().of(Split::Validation);
    for sample in validation {
        let patient = dataset.index().patient(sample.patient).unwrap();
        let label = u8::from(sample.grade >= 1);
        rows.insert(
            sample.image.clone(),
            format!(
                "{},{patient},,{},{label},0.25,0.75,0.75",
                sample.image, sample.grade
            ),
        );
    }
    let head = "image,patient,eye,grade,label,p0,p1,p_positive";
    let first = rows.keys().next().cloned().unwrap();
    let scores = |name: &str, head: &str, rows: &BTreeMap<String, String>| {
        let file = dir.path().join(name);
        let rows: Vec<&str> = rows.values().map(String::as_str).collect();
        fs::write(&file, format!("{head}\n{}\n", rows.join("\n"))).unwrap();
        format!("net={}", file.display())
    };
    let with = |change: &dyn Fn(&mut BTreeMap<String, String>)| {
        let mut rows = rows.clone();
        change(&mut rows);
        rows
    };
    let line = rows[&first].clone();
    for (name, file, said) in [
        (
            "a",
            scores("a", "image,label", &rows),
            "its columns are image,label",
        ),
        (
            "b",
            scores("b", head, &with(&|r| drop(r.remove(&first)))),
            "it has no row for image",
        ),
        (
            "c",
            scores(
                "c",
                head,
                &with(&|r| drop(r.insert("~".into(), line.replace(&first, "nobody")))),
            ),
            "image nobody is not in this part",
        ),
        (
            "d",
            scores(
                "d",
                head,
                &with(&|r| drop(r.insert("~".into(), line.clone()))),
            ),
            "are of the same photograph",
        ),
        (
            "e",
            scores(
                "e",
                head,
                &with(&|r| {
                    drop(r.insert(
                        first.clone(),
                        line.replace("0.25,0.75,0.75", "0.2,0.75,0.75"),
                    ))
                }),
            ),
            "row 1: the probabilities add up to 0.95",
        ),
        (
            "f",
            scores(
                "f",
                head,
                &with(&|r| {
                    drop(r.insert(first.clone(), line.replace("0.25,0.75,0.75", "x,0.75,0.75")))
                }),
            ),
            "row 1: p0 is \"x\"",
        ),
        (
            "g",
            scores(
                "g",
                head,
                &with(&|r| {
                    let turned = [(",0,0.25", ",1,0.25"), (",1,0.25", ",0,0.25")];
                    let (from, to) = turned
                        .into_iter()
                        .find(|(from, _)| line.contains(from))
                        .unwrap();
                    r.insert(first.clone(), line.replace(from, to));
                }),
            ),
            "score the model with the same labels",
        ),
    ] {
        let output = baseline(&set, &["--scores", &file]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(said),
            "{name}: {}",
            stderr(&output)
        );
    }
    refused(&baseline(&set, &["--split", "test"]), 2, "has no test part");
    refused(
        &baseline(&set, &["--positive-from", "2"]),
        2,
        "leave --positive-from out",
    );
    refused(
        &baseline(&set, &["--classifier", "mlp", "--kernel", "linear"]),
        2,
        "--kernel is for a support vector machine",
    );
    refused(&baseline(dir.path(), &[]), 1, "is not a prepared dataset");
    refused(&baseline(&set, &["--scores", "net"]), 2, "NAME=FILE");
    let pack = set.join(&dataset.manifest().packs[0].file);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[7] ^= 1;
    fs::write(&pack, bytes).unwrap();
    refused(&baseline(&set, &[]), 1, "is damaged");
}

#[test]
fn photographs_that_were_changed_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let drawings = dir.path().join("drawings");
    prepared_of(dir.path(), 8, 32);
    let set = dir.path().join("changed");
    let output = Command::new(env!("CARGO_BIN_EXE_fovea"))
        .args([
            "prepare",
            "--size",
            "64",
            "--preprocess",
            "ben-graham",
            "--out",
        ])
        .arg(&set)
        .arg(&drawings)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    refused(
        &baseline(&set, &[]),
        2,
        "was prepared with --preprocess ben-graham",
    );
}
