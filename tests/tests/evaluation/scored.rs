//! Bits of the scores, and what is recorded.

use super::*;

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
    assert!(said.contains("give --labels referable"), "{said}");

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
