//! The test part of a dataset.

use std::path::Path;

use super::{SIZE, spec};
use fovea_tests::Cluster;

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
