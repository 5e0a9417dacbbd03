//! Run files and overrides, as tables of input and message.

use std::path::Path;

use fovea_core::spec::{BestBy, Head, Init, Strategy};

use super::*;

const MINIMAL: &str = "name = \"dr\"\ndataset = \"eyepacs\"\n";

fn file(text: &str) -> RunFile {
    RunFile::parse("run.toml", Path::new("/runs"), text).expect("TOML")
}

fn complaint(text: &str) -> String {
    match RunFile::parse("run.toml", Path::new("/runs"), text).and_then(|f| f.spec()) {
        Ok(spec) => panic!("accepted: {spec:?}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_minimal_file_is_the_recipe() {
    let spec = file(MINIMAL).spec().unwrap();
    assert_eq!(spec.name, "dr");
    assert_eq!(spec.train, Default::default());
}

#[test]
fn mistakes_are_reported_with_line_key_and_hint() {
    let cases = [
        // A misspelt key, in its table.
        (
            "[train]\nlerning_rate = 0.1",
            "run.toml:4: train.lerning_rate: there is no such key; did you mean train.learning_rate?",
        ),
        // A right key in the wrong place.
        (
            "epochs = 3",
            "run.toml:3: epochs: there is no such key; did you mean train.epochs?",
        ),
        // A misspelt table.
        (
            "[tarin]\nepochs = 3",
            "run.toml:3: tarin: there is no such key; did you mean train?",
        ),
        // Nothing like it.
        (
            "[workers]\noptimizer = 1",
            "run.toml:4: workers.optimizer: there is no such key; known here: device, max, min, mixed",
        ),
        // The right table makes no name alike.
        (
            "[train]\nnope = 1",
            "run.toml:4: train.nope: there is no such key; known here: ",
        ),
        // Wrong types.
        (
            "[train]\nbatch = \"many\"",
            "run.toml:4: train.batch: \"many\" is not a whole number, 0 or more",
        ),
        (
            "[train]\n\nbatch = -1",
            "run.toml:5: train.batch: -1 is not a whole number, 0 or more",
        ),
        (
            "[train]\nrotate = 1",
            "run.toml:4: train.rotate: 1 is not true or false",
        ),
        (
            "[model]\ninit = \"xaver\"",
            "run.toml:4: model.init: \"xaver\" is not one of \"xavier\", \"msra\"; did you mean \"xavier\"?",
        ),
        ("train = 3", "run.toml:3: train: is a table; write [train]"),
        // Impossible values, from the spec's own rules.
        (
            "[model]\nclasses = 3",
            "run.toml:4: model.classes: 3 is neither 2 (binary) nor 5",
        ),
        ("[model]\nfrozen = [\"conv9\"]", "run.toml:4: model.frozen:"),
        // Label schemes.
        (
            "[model]\nlabels = \"grade\"",
            "run.toml:4: model.labels: \"grade\" is not one of \"any_dr\", \"referable\", \"four_classes\", \"grades\"; did you mean \"grades\"?",
        ),
        (
            "[model]\nclasses = 2\nlabels = \"grades\"",
            "run.toml:5: model.labels: \"grades\" means model.classes = 5, and run.toml:4 says 2: leave one of them out",
        ),
        (
            "[model]\nlabels = \"any_dr\"\npositive_from = 2",
            "run.toml:4: model.labels: \"any_dr\" means model.positive_from = 1, and run.toml:5 says 2",
        ),
        (
            "[model]\nhead = \"ordinal\"",
            "run.toml:4: model.head: two classes have no order: leave it out, or give model.labels",
        ),
        (
            "[model]\nlabels = \"four_classes\"\npositive_from = 4",
            "run.toml:5: model.positive_from: 4 is not a class of its own",
        ),
        (
            "[workers]\nmin = 3",
            "run.toml:4: workers.min: 3 is not in 1..=2",
        ),
        // What is checked and kept.
        (
            "[train]\ndigest_evry = 5",
            "run.toml:4: train.digest_evry: there is no such key; did you mean train.digest_every?",
        ),
        (
            "[train]\nkeep_last = 5",
            "run.toml:4: train.keep_last: there is no such key; did you mean checkpoint.keep_last?",
        ),
        (
            "[checkpoint]\nkeep_last = -1",
            "run.toml:4: checkpoint.keep_last: -1 is not a whole number, 0 or more",
        ),
        (
            "[checkpoint]\nkeep_best = \"acu\"",
            "run.toml:4: checkpoint.keep_best: \"acu\" is not one of \"none\", \"auc\", \"loss\", \"kappa\"; did you mean \"auc\"?",
        ),
        // Not TOML at all.
        ("[train\nbatch = 1", "run.toml:3: not TOML: "),
        ("seed = 1\nseed = 2", "run.toml:4: not TOML: "),
    ];
    for (text, expected) in cases {
        let printed = complaint(&format!("{MINIMAL}{text}"));
        assert!(
            printed.contains(expected),
            "{text:?}\n printed {printed:?}\n not  {expected:?}"
        );
        assert_eq!(
            printed.lines().count(),
            1,
            "more than one complaint: {printed}"
        );
    }
}

/// A name of the command line replaces what the file says otherwise, and contradicts only the command line.
#[test]
fn label_schemes_have_names() {
    let spec = |text: &str, sets: &[&str]| {
        let mut file = file(&format!("{MINIMAL}[model]\n{text}"));
        sets.iter().for_each(|set| file.set(set));
        let spec = file.spec().map_err(|e| e.to_string())?;
        Ok::<_, String>((
            spec.model.classes,
            spec.model.positive_from,
            spec.model.head,
        ))
    };
    let softmax = |classes, from| Ok((classes, from, Head::Softmax));
    assert_eq!(spec("", &[]), softmax(2, 2));
    assert_eq!(spec("labels = 'referable'", &[]), softmax(2, 2));
    assert_eq!(spec("labels = 'any_dr'", &[]), softmax(2, 1));
    assert_eq!(spec("labels = 'four_classes'", &[]), softmax(4, 2));
    assert_eq!(
        spec("labels = 'grades'\nclasses = 5\npositive_from = 1", &[]),
        softmax(5, 1)
    );
    let all = "classes = 2\npositive_from = 3";
    assert_eq!(
        spec(all, &["model.labels=grades", "model.head=ordinal"]),
        Ok((5, 3, Head::Ordinal))
    );
    assert_eq!(spec(all, &["model.labels=any_dr"]), softmax(2, 1));
    let both = spec(all, &["model.labels=grades", "model.classes=4"]).unwrap_err();
    assert!(
        both.contains("--set model.classes=4 says 4: leave one"),
        "{both}"
    );
}

#[test]
fn what_is_missing_is_named() {
    assert!(complaint("name = \"a\"").contains("run.toml: dataset: is missing; name a dataset"));
    assert!(complaint("dataset = \"a\"").contains("run.toml: name: is missing"));
    assert!(complaint("name = \"a\"\ndataset = \"../x\"").contains("run.toml:2: dataset: "));
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let printed = complaint("name = 3\nsede = 1\n[train]\nbatch = true\nephocs = 1\n");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 5, "{printed}");
    for (line, start) in lines.iter().zip([
        "run.toml:1: name:",
        "run.toml:2: sede:",
        "run.toml:4: train.batch:",
        "run.toml:5: train.ephocs:",
        "run.toml: dataset:",
    ]) {
        assert!(
            line.starts_with(start),
            "{line} does not start with {start}"
        );
    }
}

#[test]
fn overrides_win_over_the_file_and_are_validated_alike() {
    let mut file = file(&format!("{MINIMAL}[train]\nepochs = 5"));
    for assignment in [
        "train.epochs=7",
        "train.learning_rate = 1",
        "model.init=msra",
        "model.frozen=[]",
        "name=123",
        "dataset=other.v2",
        "model.weights=a b=c.caffemodel",
        "train.rotate=false",
        "train.digest_every=0",
        "checkpoint.keep_last=0",
        "checkpoint.keep_best=kappa",
    ] {
        file.set(assignment);
    }
    let spec = file.spec().unwrap();
    assert_eq!(spec.train.epochs, 7);
    assert_eq!(spec.train.learning_rate, 1.0);
    assert_eq!(spec.model.init, Init::Msra);
    assert!(spec.model.frozen.is_empty());
    assert_eq!(spec.name, "123");
    assert_eq!(spec.dataset.as_str(), "other.v2");
    assert_eq!(spec.model.weights, "a b=c.caffemodel");
    assert!(!spec.train.rotate);
    assert_eq!(spec.train.digest_every, 0);
    assert_eq!(spec.checkpoint.keep_last, 0);
    assert_eq!(spec.checkpoint.keep_best, BestBy::Kappa);
}

#[test]
fn bad_overrides_are_named() {
    for (assignment, expected) in [
        ("train.epochs", "--set train.epochs: write it as key=value"),
        (
            "train.epoch=3",
            "--set train.epoch=3: train.epoch: there is no such key; did you mean train.epochs?",
        ),
        (
            "train={}",
            "--set train={}: train: is a table; set a key of it, such as train.",
        ),
        (
            "train.epochs=many",
            "--set train.epochs=many: train.epochs: \"many\" is not a whole number",
        ),
        (
            "train.epochs=0",
            "--set train.epochs=0: train.epochs: 0 is not between",
        ),
    ] {
        let mut file = file(MINIMAL);
        file.set(assignment);
        let printed = file.spec().unwrap_err().to_string();
        assert!(printed.contains(expected), "{assignment}: {printed}");
    }
}

#[test]
fn defaults_of_a_command_yield_to_the_file() {
    let mut file = file(&format!("{MINIMAL}[workers]\nmin = 1"));
    file.set_default("workers.min", 2, "-n 2");
    file.set_default("workers.max", 2, "-n 2");
    let spec = file.spec().unwrap();
    assert_eq!((spec.workers.min, spec.workers.max), (1, 2));
    file.set_by_flag("dataset", "prepared", "--dataset prepared");
    assert_eq!(file.spec().unwrap().dataset.as_str(), "prepared");
}

/// The files that people start from must be runs.
#[test]
fn the_example_files_are_runs() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for name in ["run.toml", "demo-synthetic.toml", "demo-fundus.toml"] {
        let mut file = RunFile::read(&deploy.join(name)).unwrap();
        file.set_default("dataset", "demo", "test");
        if let Err(e) = file.spec() {
            panic!("deploy/{name}: {e}");
        }
    }
    let recipes = std::fs::read_dir(deploy.join("recipes")).unwrap();
    let mut strategies = Vec::new();
    for path in recipes.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|ending| ending == "toml") {
            match RunFile::read(&path).and_then(|file| file.spec()) {
                Ok(spec) => strategies.push(spec.model.strategy()),
                Err(e) => panic!("{}: {e}", path.display()),
            }
        }
    }
    for strategy in Strategy::ALL {
        assert!(strategies.contains(&strategy), "no recipe for {strategy}");
    }
}

/// The default list of frozen layers is that of fine-tuning.
#[test]
fn what_a_strategy_freezes_need_not_be_said() {
    let of = |model: &str| {
        let text = format!("name = 'dr'\ndataset = 'd'\n[model]\n{model}");
        let spec = file(&text).spec();
        spec.map(|spec| spec.model)
    };
    let probe =
        of("strategy = 'linear_probe'\nweights = 'bvlc'\ntap = 'inception_4a/output'").unwrap();
    assert_eq!(probe.frozen, [""; 0]);
    assert_eq!(probe.layout().unwrap().trainable_len(), 2 * 512 + 2);
    assert_eq!(of("strategy = 'from_scratch'").unwrap().frozen, [""; 0]);
    // Without weights a run is trained from scratch, whether it says so or not.
    assert_eq!(of("").unwrap().frozen, [""; 0]);
    assert_eq!(of("weights = 'bvlc'").unwrap().frozen.len(), 2);
    assert_eq!(
        of("strategy = 'fine_tune'\nweights = 'bvlc'")
            .unwrap()
            .frozen
            .len(),
        2
    );
    let error = of("strategy = 'from_scratch'\nfrozen = ['conv1/7x7_s2']").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("run.toml:5: model.frozen: from_scratch trains every layer"),
        "{error}"
    );
    let complaint = complaint("name = 'dr'\ndataset = 'd'\n[model]\nstrategy = 'fine_tun'");
    assert!(
        complaint.contains("did you mean \"fine_tune\"?"),
        "{complaint}"
    );
}

/// Each line of deploy/run.toml states its default: deleting one changes nothing.
#[test]
fn the_example_run_has_every_key_with_its_default() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let file = RunFile::read(&deploy.join("run.toml")).unwrap();
    let text = std::fs::read_to_string(deploy.join("run.toml")).unwrap();
    let schema = Schema::new();
    let mut missing = Vec::new();
    for (key, default) in schema.leaves() {
        let name = key.rsplit('.').next().unwrap();
        match file.given.get(key) {
            // These two have none.
            Some(_) if ["name", "dataset"].contains(&key.as_str()) => {}
            Some(given) => assert_eq!(&given.value, default, "{key} is not its default"),
            None if text.contains(&format!("\n# {name} = ")) => {}
            None => missing.push(key),
        }
    }
    assert!(missing.is_empty(), "deploy/run.toml lacks {missing:?}");
}
