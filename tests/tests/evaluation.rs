//! Evaluating a model: what is scored on the cluster has the bits of the run's own scores, whoever scores and whatever
//! happens meanwhile, and every use is recorded.

use std::path::Path;
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset};
use tonic::Code;

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;
/// The coordinator removes files a moment after it says that a run has ended.
const DEADLINE: Duration = Duration::from_secs(30);

fn spec(name: &str) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(5),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(4),
            batch: Some(3),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(1),
            max: Some(2),
        }),
        ..Default::default()
    }
}

async fn evaluate(
    cluster: &Cluster,
    run: &pb::Run,
    step: u64,
    part: pb::Part,
) -> Result<pb::EvaluateResponse, tonic::Status> {
    let request = pb::EvaluateRequest {
        run_id: run.id.clone(),
        step,
        dataset: String::new(),
        part: part.into(),
        ..Default::default()
    };
    let reply = cluster.runs().await.evaluate(request).await;
    reply.map(tonic::Response::into_inner)
}

/// What was scored, and the probabilities' bits.
async fn scores(cluster: &Cluster, run: &str, step: u64) -> (pb::ScoresInfo, Vec<u32>) {
    let request = pb::ScoresRequest {
        run_id: run.to_owned(),
        step,
        maps: false,
    };
    let reply = cluster.runs().await.scores(request).await;
    let mut stream = reply.expect("there are scores").into_inner();
    let (mut info, mut bits) = (None, Vec::new());
    while let Some(part) = stream.message().await.expect("the stream goes on") {
        info = info.or(part.info);
        bits.extend(part.probabilities.iter().map(|p| p.to_bits()));
    }
    (info.expect("what they are comes first"), bits)
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let name =
        |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    entries.map(name).collect()
}

/// One test, so that the dataset is drawn and the cluster is started once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_scored_with_the_same_bits_and_every_use_is_recorded() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let mut cluster = Cluster::start(keep.path(), 2);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let run = cluster.submit(spec("eval")).await;
    let run = cluster.wait_completed(&run.id).await;
    let step = run.total_steps;
    let (info, kept) = scores(&cluster, &run.id, step).await;
    assert_eq!(info.part(), pb::Part::Validation);
    assert_eq!(
        (info.samples, info.classes, info.epoch),
        (run.validation_samples, 2, 1)
    );
    assert_eq!(kept.len() as u64, info.samples * 2);
    let first = scores(&cluster, &run.id, step / 2).await.1;
    assert_ne!(first, kept, "the model learns between two epochs");

    // Beside a baseline on the same photographs: the run's scores need no worker.
    let folder = prepared.to_str().expect("UTF-8");
    let only = ["--features", "nayak2008", "--draws", "100"];
    let with_run = ["--json", "baseline", folder, "--run", &run.id];
    let text = cluster.fovea(&[&with_run[..], &only].concat());
    let compared: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .filter(|record: &serde_json::Value| record["type"] == "compared")
        .collect();
    assert_eq!(compared.len(), 2, "{text}");
    assert_eq!(
        (&compared[0]["name"], &compared[0]["kind"]),
        (&run.id.as_str().into(), &"run".into())
    );
    assert_eq!(compared[1]["difference"]["to"], run.id.as_str());
    let refused = cluster.try_fovea(&["baseline", folder, "--run", &run.id, "--labels", "any_dr"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("give the --labels that it was trained on"),
        "{said}"
    );

    // Scored again by a run of its own, while one of the two workers is killed.
    let made = evaluate(&cluster, &run, step, pb::Part::Validation)
        .await
        .expect("a checkpoint can be evaluated");
    cluster.workers[1].signal(libc::SIGKILL);
    let evaluation = made.run.expect("the evaluation");
    assert!(!made.existed);
    let done = cluster.wait_completed(&evaluation.id).await;
    let asked = done.spec.as_ref().and_then(|s| s.evaluate.clone());
    let asked = asked.expect("the spec says what is evaluated");
    assert_eq!((&*asked.run_id, asked.step), (&*run.id, step));
    assert!(
        scores(&cluster, &done.id, step).await.1 == kept,
        "other bits"
    );
    // Its copy of the checkpoint is gone, that of the run is not.
    let store = cluster.checkpoint_store();
    let copies = store.join(&done.id);
    let end = Instant::now() + DEADLINE;
    while files(&copies).iter().any(|f| f.ends_with(".safetensors")) {
        assert!(Instant::now() < end, "{:?}", files(&copies));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cluster.run(&run.id).await.checkpoints, run.checkpoints);

    let all = evaluate(&cluster, &run, step, pb::Part::All).await;
    let all = all.expect("accepted").run.expect("the evaluation");
    let all = cluster.wait_completed(&all.id).await;
    assert_eq!(
        all.validation_samples,
        run.train_samples + run.validation_samples
    );
    let (info, scored) = scores(&cluster, &all.id, step).await;
    assert_eq!(
        (info.part(), scored.len() as u64),
        (pb::Part::All, info.samples * 2)
    );
    // The index ends with the validation split. Other batches round otherwise.
    let tail = &scored[scored.len() - kept.len()..];
    let distance = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
    let farthest = tail.iter().zip(&kept).map(distance).fold(0.0, f32::max);
    assert!(
        farthest < 1e-5,
        "the validation split is scored otherwise: {farthest}"
    );

    // The same again is the one that is there, also after a restart of the coordinator.
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    let again = evaluate(&cluster, &run, step, pb::Part::All)
        .await
        .expect("accepted");
    assert!(again.existed);
    assert_eq!(again.run.expect("the evaluation").id, all.id);
    assert!(
        scores(&cluster, &run.id, step).await.1 == kept,
        "kept over a restart"
    );
    let uses: Vec<(String, i32, u64)> = cluster
        .run(&run.id)
        .await
        .evaluations
        .into_iter()
        .map(|e| (e.run_id, e.part, e.step))
        .collect();
    let use_of = |id: &str, part: pb::Part| (id.to_owned(), part.into(), step);
    assert_eq!(
        uses,
        [
            use_of(&done.id, pb::Part::Validation),
            use_of(&all.id, pb::Part::All)
        ]
    );

    // The figures: the AUC is the epoch's, and has an interval.
    let text = cluster.fovea(&["--json", "evaluate", &run.id, "--checkpoint", "newest"]);
    let figures: serde_json::Value = serde_json::from_str(text.trim()).expect("one JSON object");
    let epoch = run.epochs.last().and_then(|e| e.validation.clone());
    let auc = epoch.and_then(|v| v.auc).expect("both kinds of labels");
    assert_eq!(figures["auc"]["value"].as_f64(), Some(auc));
    assert!(figures["auc"]["low"].as_f64() < Some(auc), "{figures}");
    assert_eq!(figures["chosen_here"], true);
    let csv = keep.path().join("scores.csv");
    let csv = csv.to_str().expect("UTF-8");
    let text = cluster.fovea(&[
        "evaluate",
        &run.id,
        "--checkpoint",
        "newest",
        "--split",
        "all",
        "--csv",
        csv,
    ]);
    assert!(
        text.contains("the model was trained on these photographs"),
        "{text}"
    );
    let rows = std::fs::read_to_string(csv)
        .expect("the scores")
        .lines()
        .count() as u64;
    assert_eq!(rows, all.validation_samples + 1);

    // The report shows both parts, and is not written over another file.
    let file = keep.path().join("report.html");
    let path = file.to_str().expect("UTF-8");
    cluster.fovea(&["report", &run.id, "--checkpoint", "newest", "-o", path]);
    let page = std::fs::read_to_string(&file).expect("the report");
    for text in [
        &*run.id,
        "Validation split",
        "All photographs",
        &format!("{auc:.3}"),
    ] {
        assert!(page.contains(text), "{text}");
    }
    let again = cluster.try_fovea(&["report", &run.id, "-o", path]);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("--overwrite"),
        "{again:?}"
    );

    // A removed evaluation is made anew; its record stays.
    cluster.fovea(&["runs", "rm", &all.id, "--yes"]);
    let anew = evaluate(&cluster, &run, step, pb::Part::All)
        .await
        .expect("accepted");
    assert!(!anew.existed);
    let anew = cluster
        .wait_completed(&anew.run.expect("the evaluation").id)
        .await;
    assert!(
        scores(&cluster, &anew.id, step).await.1 == scored,
        "other bits"
    );
    assert_eq!(cluster.run(&run.id).await.evaluations.len(), 3);
}

/// What cannot be evaluated is refused with what to do, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_evaluated_is_refused() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let mut cluster = Cluster::start(keep.path(), 1);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let mut short = spec("short");
    short.train.as_mut().expect("given").epochs = Some(1);
    let run = cluster.submit(short).await;
    let run = cluster.wait_completed(&run.id).await;
    let step = run.total_steps;

    let mut written = spec("written");
    written.evaluate = Some(pb::EvaluateSpec {
        run_id: run.id.clone(),
        step,
        part: pb::Part::All.into(),
        ..Default::default()
    });
    let submit = pb::SubmitRequest {
        spec: Some(written),
    };
    let refused = cluster.runs().await.submit(submit).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("spec.evaluate"), "{refused}");

    let refused = evaluate(&cluster, &run, step + 1, pb::Part::Validation)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("fovea checkpoints"), "{refused}");
    let refused = evaluate(&cluster, &run, step, pb::Part::Test)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("no samples in the part test"),
        "{refused}"
    );
    let refused = evaluate(&cluster, &run, step, pb::Part::Unspecified)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let output = cluster.try_fovea(&["evaluate", &run.id, "--dataset", "nothing"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("nothing"), "{text}");

    // Photographs of another size are other inputs.
    let other = keep.path().join("other");
    let drawings = keep.path().join("drawings-too");
    let at = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    cluster.fovea(&[
        "synthetic",
        "--out",
        &at(&drawings),
        "--patients",
        "8",
        "--size",
        "96",
    ]);
    cluster.fovea(&[
        "prepare",
        &at(&drawings),
        "--out",
        &at(&other),
        "--size",
        "96",
    ]);
    cluster.fovea(&["dataset", "add", &at(&other)]);
    let output = cluster.try_fovea(&["evaluate", &run.id, "--dataset", "other"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("--size 64"), "{text}");

    // So are those that were processed in another way, and both are named. Weights from the run go on with its own
    // photographs only.
    let clahe = keep.path().join("clahe");
    cluster.fovea(&[
        "prepare",
        &at(&drawings),
        "--out",
        &at(&clahe),
        "--size",
        "64",
        "--preprocess",
        "clahe",
    ]);
    cluster.fovea(&["dataset", "add", &at(&clahe)]);
    let both = ["crop, circle, bilinear", "clahe (clip 2, tiles 8), circle"];
    let output = cluster.try_fovea(&["evaluate", &run.id, "--dataset", "clahe"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(both.iter().all(|part| text.contains(part)), "{text}");
    let file = at(&keep.path().join("learnt.safetensors"));
    cluster.fovea(&["checkpoint", "get", &run.id, "-o", &file]);
    cluster.fovea(&["weights", "add", &file]);
    let mut onwards = spec("onwards");
    onwards.model = Some(pb::ModelSpec {
        weights: Some("learnt".into()),
        ..Default::default()
    });
    onwards.dataset = "clahe".into();
    let submit = |spec| pb::SubmitRequest { spec: Some(spec) };
    let mut runs = cluster.runs().await;
    let refused = runs.submit(submit(onwards.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        both.iter().all(|part| refused.message().contains(part)),
        "{refused}"
    );
    // Larger ones of the same kind.
    onwards.dataset = "other".into();
    let accepted = runs.submit(submit(onwards)).await;
    let accepted = accepted.expect("accepted").into_inner();
    cluster.fovea(&["cancel", &accepted.run.expect("a run").id]);

    // Nothing of all that was recorded or begun.
    assert!(cluster.run(&run.id).await.evaluations.is_empty());
    assert!(!cluster.fovea(&["runs"]).contains("short-1."));

    // An evaluation has no audit and is not evaluated itself, and one that nobody can make is cancelled.
    cluster.workers[0].signal(libc::SIGKILL);
    let made = evaluate(&cluster, &run, step, pb::Part::Train)
        .await
        .expect("accepted");
    let waits = made.run.expect("the evaluation");
    for command in [
        ["runs", "audit", &waits.id].as_slice(),
        &["evaluate", &waits.id],
    ] {
        let output = cluster.try_fovea(command);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(&run.id), "{text}");
    }
    cluster.fovea(&["cancel", &waits.id]);
    cluster
        .run_until(&waits.id, |r| r.phase() == pb::Phase::Cancelled)
        .await;
    // Made anew by a worker that comes; the one that was cancelled does not count.
    cluster.add_worker();
    let anew = evaluate(&cluster, &run, step, pb::Part::Train)
        .await
        .expect("accepted");
    assert!(!anew.existed);
    cluster
        .wait_completed(&anew.run.expect("the evaluation").id)
        .await;
}

/// The test part is neither trained on nor chosen by. Only an explicit evaluation reads it, and each use is shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_part_is_used_once_and_that_is_shown() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| keep.path().join(name).to_str().expect("UTF-8").to_owned();
    let cluster = Cluster::start(keep.path(), 1);
    let size = SIZE.to_string();
    cluster.fovea(&[
        "synthetic",
        "--out",
        &path("drawn"),
        "--patients",
        "32",
        "--size",
        "96",
    ]);
    cluster.fovea(&[
        "prepare",
        &path("drawn"),
        "--out",
        &path("three"),
        "--size",
        &size,
        "--test",
        "0.25",
    ]);
    cluster.fovea(&["dataset", "add", &path("three")]);
    let mut three = spec("three");
    three.dataset = "three".into();
    let run = cluster.submit(three).await;
    let run = cluster.wait_completed(&run.id).await;
    let listed: serde_json::Value =
        serde_json::from_str(cluster.fovea(&["--json", "dataset", "list"]).trim()).expect("JSON");
    let test = listed["test_samples"].as_u64().expect("a number");
    assert!(test > 0, "{listed}");
    assert_eq!(run.train_samples + run.validation_samples + test, 64);

    let evaluated = || cluster.fovea(&["evaluate", &run.id, "--split", "test"]);
    let first = evaluated();
    assert!(first.contains(&format!("{test} images")), "{first}");
    assert!(
        first.contains("has used this test part 1 time: "),
        "{first}"
    );
    assert!(!first.contains("look better than they are"), "{first}");
    // The same figures again are no other use.
    let second = evaluated();
    assert!(first.ends_with(&second), "{first}\n{second}");
    let again = cluster.fovea(&[
        "evaluate",
        &run.id,
        "--split",
        "test",
        "--checkpoint",
        "newest",
    ]);
    let uses = cluster.run(&run.id).await.evaluations.len();
    assert!(
        again.contains(&format!("has used this test part {uses} time")),
        "{again}"
    );
    assert!(cluster.fovea(&["run", &run.id]).contains("on three (test)"));
    cluster.fovea(&["report", &run.id, "-o", &path("three.html")]);
    let page = std::fs::read_to_string(path("three.html")).expect("the report");
    let (head, rest) = page.split_once("Validation split").expect("both parts");
    assert!(
        head.contains("Test part") && rest.contains("ROC"),
        "the test part comes first"
    );
    // All photographs hold the test part: a use of it, too.
    let all = cluster.fovea(&["evaluate", &run.id, "--split", "all"]);
    assert!(
        all.contains(&format!(
            "the test part is among these photographs; {} has used this test part {} times: ",
            run.id,
            uses + 1
        )) && all.contains(", all photographs)"),
        "{all}"
    );
    cluster.fovea(&["report", &run.id, "-o", &path("all.html")]);
    let page = std::fs::read_to_string(path("all.html")).expect("the report");
    assert!(page.contains("all of three"), "the use is listed");

    // The same photographs under other names are known by their content.
    let renamed = keep.path().join("renamed");
    let names = rename_all(&keep.path().join("drawn"), &renamed);
    cluster.fovea(&[
        "prepare",
        &path("renamed"),
        "--out",
        &path("again"),
        "--size",
        &size,
    ]);
    cluster.fovea(&["dataset", "add", &path("again")]);
    let other = cluster.fovea(&["evaluate", &run.id, "--dataset", "again"]);
    let trained = format!(
        "the model was trained on {} of the {names} photographs, which are in the training split of three with the same content",
        run.train_samples
    );
    assert!(other.contains(&trained), "{other}");

    // Without its dataset a run can still be judged on others, by the threshold that nobody has chosen, and reported.
    cluster.fovea(&["dataset", "rm", "three", "--yes"]);
    let other = cluster.fovea(&["evaluate", &run.id, "--dataset", "again"]);
    assert!(
        other.contains("operating points, fixed:")
            && other.contains("dataset three of the run was removed"),
        "{other}"
    );
    let said = cluster.try_fovea(&["report", &run.id, "-o", &path("without.html")]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("Data set three") && said.contains("was removed"),
        "{said}"
    );
    let page = std::fs::read_to_string(path("without.html")).expect("the report");
    assert!(page.contains("All photographs of again") && !page.contains("Leak check"));
}

/// Copies a folder of drawn photographs, each under another name of patient and image. Returns how many there are.
fn rename_all(from: &Path, to: &Path) -> usize {
    std::fs::create_dir_all(to.join("images")).expect("a folder");
    let labels = std::fs::read_to_string(from.join("trainLabels.csv")).expect("labels");
    let mut renamed = "image,level\n".to_owned();
    let rows: Vec<&str> = labels.lines().skip(1).collect();
    for row in &rows {
        let (image, grade) = row.split_once(',').expect("two columns");
        let other = image.replace("synthetic", "other");
        assert_ne!(image, other);
        let file = |folder: &Path, name: &str| folder.join("images").join(format!("{name}.jpeg"));
        std::fs::copy(file(from, image), file(to, &other)).expect("a copy");
        renamed += &format!("{other},{grade}\n");
    }
    std::fs::write(to.join("trainLabels.csv"), renamed).expect("labels");
    rows.len()
}
