//! Prediction: offline and on the cluster, with the bits of an evaluation, and nothing of it stays.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fovea_proto::pb;
use fovea_tests::{Cluster, binary, synthetic_dataset};

const SIZE: u32 = 64;
const PATIENTS: u32 = 20;
/// What both programs exit with where a photograph cannot be read.
const SOME_UNREADABLE: i32 = 9;

/// One virtual rank, so that the batches of an evaluation are those of the photographs in their order.
fn spec() -> pb::RunSpec {
    pb::RunSpec {
        name: "pred".into(),
        dataset: "synthetic".into(),
        seed: Some(5),
        train: Some(pb::TrainSpec {
            epochs: Some(1),
            virtual_ranks: Some(1),
            batch: Some(4),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(1),
            max: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    }
}

type Rows = Vec<HashMap<String, String>>;

fn table(path: &Path) -> Rows {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    reader
        .deserialize()
        .map(|row| row.expect("a row"))
        .collect()
}

fn offline(args: &[&str]) -> Output {
    Command::new(binary("fovea-worker"))
        .arg("predict")
        .args(args)
        .output()
        .expect("fovea-worker starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A run that was evaluated and exported.
struct Evaluated {
    run: pb::Run,
    /// Scores of the held-out photographs.
    rows: Rows,
    /// These photographs, in the same order.
    files: Vec<PathBuf>,
    model: PathBuf,
}

/// Trains on `prepared`, whose photographs are in `keep`. Offline, the model has the scores of an evaluation.
async fn scored_alike(
    cluster: &Cluster,
    spec: pb::RunSpec,
    prepared: &Path,
    keep: &Path,
) -> Evaluated {
    let at = |name: &str| keep.join(name);
    cluster.fovea(&["dataset", "add", text(prepared)]);
    let run = cluster.submit(spec).await;
    let run = cluster.wait_completed(&run.id).await;
    let evaluated = at("evaluated.csv");
    let newest = ["--checkpoint", "newest"];
    let which = [&["evaluate", &run.id][..], &newest].concat();
    cluster.fovea(&[&which[..], &["--csv", text(&evaluated)]].concat());
    let rows = table(&evaluated);
    assert_eq!(rows.len() as u64, run.validation_samples);
    let images = at("photographs").join("images");
    let files: Vec<PathBuf> = rows
        .iter()
        .map(|row| images.join(format!("{}.jpeg", row["image"])))
        .collect();
    let model = at("model.safetensors");
    let which = [&["export", &run.id][..], &newest].concat();
    cluster.fovea(&[&which[..], &["-o", text(&model)]].concat());

    let scores = at("offline.csv");
    let mut args = vec![text(&model)];
    args.extend(files.iter().map(|file| text(file)));
    args.extend(["-o", text(&scores)]);
    let done = offline(&args);
    assert!(done.status.success(), "{done:?}");
    let predicted = table(&scores);
    assert_eq!(predicted.len(), rows.len());
    for (predicted, evaluated) in predicted.iter().zip(&rows) {
        for column in ["p0", "p1", "patient", "eye"] {
            assert_eq!(predicted[column], evaluated[column], "{column}: other bits");
        }
        assert_eq!(predicted["score"], evaluated["p_positive"]);
    }
    Evaluated {
        run,
        rows,
        files,
        model,
    }
}

/// Whatever their size, with the classifier once for the whole image or at every place of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn larger_photographs_are_trained_on_and_scored() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let cluster = Cluster::start(keep.path(), 1);
    for (size, pooling) in [
        (299, pb::Pooling::Dense),
        (448, pb::Pooling::Global),
        (512, pb::Pooling::Dense),
    ] {
        let folder = keep.path().join(size.to_string());
        std::fs::create_dir(&folder).expect("a folder");
        let prepared = synthetic_dataset(&folder, 10, size);
        let mut spec = spec();
        spec.model = Some(pb::ModelSpec {
            pooling: Some(pooling.into()),
            ..Default::default()
        });
        let Evaluated { run, .. } = scored_alike(&cluster, spec, &prepared, &folder).await;
        cluster.fovea(&["runs", "rm", &run.id, "--with-checkpoints", "--yes"]);
        cluster.fovea(&["dataset", "rm", "synthetic", "--yes"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn photographs_are_scored_as_in_an_evaluation_and_nothing_of_them_stays() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| keep.path().join(name);
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let cluster = Cluster::start(keep.path(), 1);
    let Evaluated {
        run,
        rows: evaluated,
        files,
        model,
    } = scored_alike(&cluster, spec(), &prepared, keep.path()).await;
    let files: Vec<&str> = files.iter().map(|file| text(file)).collect();

    // On the cluster: the same table, to the byte, with everything that can be asked for. A file that is no photograph
    // changes neither.
    let broken = at("broken.jpeg");
    std::fs::write(&broken, b"no photograph").expect("a file");
    let more = |out: &Path, maps: &Path| -> Vec<String> {
        let mut args: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        args.insert(3, text(&broken).to_owned());
        let options = [
            "--rotations",
            "--fuse-eyes",
            "-o",
            text(out),
            "--maps",
            text(maps),
        ];
        args.extend(options.map(String::from));
        args
    };
    let outs = ["here", "there"].map(|name| (at(&format!("{name}.csv")), at(name)));
    let [here, there] = outs.each_ref().map(|(out, maps)| more(out, maps));
    let args: Vec<&str> = std::iter::once(text(&model))
        .chain(here.iter().map(String::as_str))
        .collect();
    let done = offline(&args);
    assert_eq!(done.status.code(), Some(SOME_UNREADABLE), "{done:?}");
    let mut args = vec!["predict", &run.id, "--checkpoint", "newest"];
    args.extend(there.iter().map(String::as_str));
    let done = cluster.try_fovea(&args);
    assert_eq!(done.status.code(), Some(SOME_UNREADABLE), "{done:?}");
    let [here, there] = outs
        .each_ref()
        .map(|(out, _)| std::fs::read_to_string(out).expect("a table"));
    assert_eq!(here, there, "the cluster says something else");
    let rows = table(&outs[0].0);
    assert_eq!(rows.len(), files.len() + 1);
    assert!(!rows[3]["error"].is_empty() && rows[3]["score"].is_empty());
    // An evaluation with rotations has the same bits.
    let rotated = at("rotated.csv");
    let which = ["evaluate", &run.id, "--checkpoint", "newest", "--rotations"];
    cluster.fovea(&[&which[..], &["--csv", text(&rotated)]].concat());
    let scored = rows.iter().filter(|row| row["error"].is_empty());
    let rotated = table(&rotated);
    assert_eq!(rotated.len(), files.len());
    assert_ne!(rotated[0]["p1"], evaluated[0]["p1"], "upright scores");
    for (predicted, evaluated) in scored.zip(&rotated) {
        for column in ["p0", "p1", "patient", "eye"] {
            assert_eq!(predicted[column], evaluated[column], "{column}: other bits");
        }
    }
    for row in rows.iter().filter(|row| row["error"].is_empty()) {
        let name = &row["map"];
        let [a, b] = outs
            .each_ref()
            .map(|(_, maps)| std::fs::read(maps.join(name)).expect("a picture"));
        assert!(a == b, "{name}: other maps");
        assert!(!row["patient_score"].is_empty());
    }

    // A report shows where the model looked in the photographs that it is most wrong about.
    let report = at("report.html");
    let of = [
        "report",
        &run.id,
        "--checkpoint",
        "newest",
        "--overwrite",
        "-o",
    ];
    let with = |folder: &Path| {
        let more = [text(&report), "--photographs", text(folder)];
        cluster.try_fovea(&[&of[..], &more[..]].concat())
    };
    let done = with(&prepared);
    assert!(done.status.success(), "{done:?}");
    let page = std::fs::read_to_string(&report).expect("the report");
    let errors = page.matches("class=\"file\"").count();
    assert!(errors > 0, "a network that hardly learnt is never wrong");
    assert_eq!(page.matches("and where the model looked").count(), errors);
    std::fs::create_dir(at("other")).expect("a folder");
    let other = synthetic_dataset(&at("other"), PATIENTS + 1, SIZE);
    let refused = with(&other);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        message.contains("give the folder that was added"),
        "{message}"
    );

    // Nothing of it stays, and nothing is recorded.
    let listed = cluster.fovea(&["--json", "dataset", "list", "--all"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let after = cluster.run(&run.id).await;
    let evaluated: Vec<&str> = after.evaluations.iter().map(|e| &*e.run_id).collect();
    assert_eq!(
        evaluated.len(),
        1,
        "the evaluation with rotations: {evaluated:?}"
    );
    let runs = cluster.fovea(&["runs"]);
    assert!(!runs.contains("predict"), "{runs}");

    // What is kept can be predicted, and nothing else.
    let kept = at("kept.csv");
    cluster.fovea(&["predict", &run.id, files[0], "--keep", "-o", text(&kept)]);
    let listed = cluster.fovea(&["--json", "dataset", "list", "--all"]);
    let name = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .find(|dataset| dataset["scale"] == "none")
        .expect("the dataset is kept")["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert!(!cluster.fovea(&["dataset", "list"]).contains(&name));
    let refused = cluster.try_fovea(&["evaluate", &run.id, "--dataset", &name]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(4) && message.contains("fovea predict"),
        "{message}"
    );
    let mut training = spec();
    training.dataset = name.clone();
    let refused = cluster
        .runs()
        .await
        .submit(pb::SubmitRequest {
            spec: Some(training),
        })
        .await;
    let message = refused
        .expect_err("nothing can be learnt from it")
        .message()
        .to_owned();
    assert!(message.contains("without grades"), "{message}");
    let scoring = format!("{}.predict", run.id);
    let ids = cluster.fovea(&["--json", "runs"]);
    let id = ids
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .find_map(|run| Some(run["id"].as_str()?.to_owned()).filter(|id| id.starts_with(&scoring)))
        .expect("the run that scored is kept");
    cluster.fovea(&["runs", "rm", &id, "--with-checkpoints", "--yes"]);
    cluster.fovea(&["dataset", "rm", &name, "--yes"]);
}
