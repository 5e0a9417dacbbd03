//! Sweeps as tables of file, variants and message.

use super::*;

const RUN: &str = "name = \"dr\"\ndataset = \"eyes\"\n[train]\nepochs = 10\n[model]\nclasses = 5\n";

/// A folder with run.toml and a sweep of it.
fn read(text: &str) -> Result<Sweep, RunFileError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run.toml"), RUN).unwrap();
    let path = folder.path().join("sweep.toml");
    std::fs::write(&path, format!("run = \"run.toml\"\n{text}")).unwrap();
    Sweep::read(&path, &["train.power=1.0".into()])
}

fn labels(text: &str) -> Vec<String> {
    let sweep = read(text).unwrap();
    sweep.variants.into_iter().map(|(label, _)| label).collect()
}

/// The last part of the message: the folder is another each time.
fn complaint(text: &str) -> String {
    let error = match read(text).and_then(|sweep| {
        let specs = sweep.variants.iter().map(|(_, file)| file.spec().map(drop));
        specs.collect::<Result<Vec<()>, _>>()
    }) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    };
    error[error.find("sweep.toml").unwrap_or(0)..].to_owned()
}

#[test]
fn a_grid_has_every_combination() {
    let text = "[vary]\ntrain.batch = [8, 16]\n\"train.learning_rate\" = [0.001, 0.003]\n";
    assert_eq!(
        labels(text),
        [
            "train.batch=8 train.learning_rate=0.001",
            "train.batch=8 train.learning_rate=0.003",
            "train.batch=16 train.learning_rate=0.001",
            "train.batch=16 train.learning_rate=0.003",
        ]
    );
    let sweep = read(text).unwrap();
    let spec = sweep.variants[2].1.spec().unwrap();
    assert_eq!((spec.train.batch, spec.train.learning_rate), (16, 0.001));
    assert_eq!(
        (spec.train.power, &*spec.dataset.to_string()),
        (1.0, "eyes")
    );
    // Lists and texts, and labels in the place of the file's own classes.
    let text =
        "[vary.model]\nlabels = [\"referable\", \"grades\"]\nfrozen = [[], [\"conv1/7x7_s2\"]]\n";
    let sweep = read(text).unwrap();
    let specs: Vec<(u32, usize)> = sweep
        .variants
        .iter()
        .map(|(_, file)| {
            file.spec()
                .map(|s| (s.model.classes, s.model.frozen.len()))
                .unwrap()
        })
        .collect();
    assert_eq!(specs, [(2, 0), (5, 0), (2, 1), (5, 1)]);
    assert_eq!(
        sweep.variants[2].0,
        "model.frozen=[\"conv1/7x7_s2\"] model.labels=referable"
    );
}

#[test]
fn a_random_sweep_draws_the_same_again() {
    let text = "method = \"random\"\nsamples = 20\nseed = 3\n[vary]\ntrain.batch = { min = 4, max = 32 }\n\
        train.learning_rate = { min = 1e-4, max = 1e-2, scale = \"log\" }\n";
    let first = labels(text);
    assert_eq!(first, labels(text));
    assert_ne!(first, labels(&text.replace("seed = 3", "seed = 4")));
    assert_eq!(first.len(), 20);
    let sweep = read(text).unwrap();
    let mut below = 0;
    for (_, file) in &sweep.variants {
        let train = file.spec().unwrap().train;
        assert!((4..=32).contains(&train.batch), "{}", train.batch);
        assert!(
            (1e-4..=1e-2).contains(&train.learning_rate),
            "{}",
            train.learning_rate
        );
        // Three digits, as in the label.
        let short: f64 = format!("{:.2e}", train.learning_rate).parse().unwrap();
        assert_eq!(train.learning_rate, short);
        below += u32::from(train.learning_rate < 1e-3);
    }
    assert!(
        (5..=15).contains(&below),
        "{below} of 20 are below the middle"
    );
    // Another key changes nothing of what is drawn for this one.
    let more = format!("{text}train.momentum = [0.8, 0.9]\n");
    let rate = |label: &String| {
        label
            .split(' ')
            .find(|part| part.contains("rate"))
            .map(str::to_owned)
    };
    let rates: Vec<_> = first.iter().map(rate).collect();
    assert_eq!(rates, labels(&more).iter().map(rate).collect::<Vec<_>>());
    // All that there are.
    let few = "method = \"random\"\nsamples = 3\n[vary]\ntrain.batch = [4, 8, 16]\n";
    assert_eq!(labels(few).len(), 3);
}

#[test]
fn folds_seeds_and_selection_are_read() {
    let sweep = read("name = \"lr\"\nfolds = 3\nseeds = [0, 1]\n[vary]\ntrain.batch = [8, 16]\n[selection]\nhalving = [2, 5]\n").unwrap();
    assert_eq!((sweep.folds, &sweep.seeds[..]), (3, &[0, 1][..]));
    let selection = sweep.selection.unwrap();
    let halving = Halving {
        after: vec![2, 5],
        keep_one_of: 3,
    };
    assert_eq!(
        (selection.by, selection.halving, selection.patience),
        (BestBy::Auc, Some(halving), None)
    );
    assert_eq!(sweep.base.text("name"), Some("lr"));
    let sweep =
        read("[vary]\ntrain.batch = [8, 16]\n[selection]\nmetric = \"loss\"\npatience = 2\n")
            .unwrap();
    let selection = sweep.selection.unwrap();
    assert_eq!(
        (selection.by, selection.halving, selection.patience),
        (BestBy::Loss, None, Some(2))
    );
}

#[test]
fn mistakes_are_reported_with_key_and_hint() {
    for (text, said) in [
        ("[vary]\n", "sweep.toml: vary: names no key"),
        (
            "vari = 1\n[vary]\ntrain.batch = [1]\n",
            "sweep.toml:2: unknown field `vari`",
        ),
        (
            "[vary]\ntrain.batch = 8\n",
            "sweep.toml: vary.train.batch: write a list of values, such as [8]",
        ),
        (
            "[vary]\ntrain.batch = []\n",
            "vary.train.batch: has no values",
        ),
        (
            "[vary]\ntrain.batch = [8, 8]\n",
            "vary.train.batch: has 8 twice",
        ),
        (
            "[vary]\ntrain.bach = [8]\n",
            "sweep.toml: train.bach=8: train.bach: there is no such key; did you mean train.batch?",
        ),
        (
            "[vary]\ntrain.batch = [\"x\"]\n",
            "sweep.toml: train.batch=x: train.batch: ",
        ),
        (
            "[vary]\nname = [\"a\"]\n",
            "vary.name: a sweep gives its runs their names",
        ),
        ("[vary]\nseed = [1]\n", "vary.seed: a sweep gives"),
        (
            "[vary]\ntrain.batch = { min = 1, max = 9 }\n",
            "vary.train.batch: a grid needs a list",
        ),
        (
            "samples = 3\n[vary]\ntrain.batch = [1]\n",
            "samples: is for method = \"random\"",
        ),
        (
            "method = \"random\"\n[vary]\ntrain.batch = [1]\n",
            "samples: say how many",
        ),
        (
            "method = \"random\"\nsamples = 0\n[vary]\ntrain.batch = [1]\n",
            "samples: 0 is not 1 to 100",
        ),
        (
            "method = \"random\"\nsamples = 4\n[vary]\ntrain.batch = [1, 2]\n",
            "only 2 different combinations were found of 4",
        ),
        (
            "method = \"bayes\"\n[vary]\ntrain.batch = [1]\n",
            "sweep.toml:2: unknown variant `bayes`",
        ),
        (
            "method = \"random\"\nsamples = 4\n[vary]\ntrain.batch = { min = 9, max = 1 }\n",
            "vary.train.batch: min 9 is not below max 1",
        ),
        (
            "method = \"random\"\nsamples = 4\n[vary]\ntrain.learning_rate = { min = 0.0, max = 1.0, scale = \"log\" }\n",
            "a logarithmic range is of positive numbers",
        ),
        (
            "method = \"random\"\nsamples = 4\n[vary]\ntrain.learning_rate = { min = 0.1, max = 1.0, step = 1 }\n",
            "step: is no key of a range",
        ),
        (
            "[vary]\ntrain.batch = [1, 2]\n[selection]\nkeep_one_of = 2\n",
            "selection.keep_one_of: is for halving",
        ),
        (
            "[vary]\ntrain.batch = [1, 2]\n[selection]\nmetric = \"f1\"\n",
            "unknown variant `f1`, expected one of `auc`, `kappa`, `loss`",
        ),
        (
            "[vary]\ntrain.batch = [1, 2]\n[selection]\nmetric = \"none\"\n",
            "unknown variant `none`, expected one of `auc`, `kappa`, `loss`",
        ),
    ] {
        let found = complaint(text);
        assert!(found.contains(said), "{found}\n    not {said}");
    }
    let values: Vec<String> = (1..=11).map(|n| n.to_string()).collect();
    let list = values.join(", ");
    let large = format!("[vary]\ntrain.batch = [{list}]\ntrain.epochs = [{list}]\n");
    assert!(complaint(&large).contains("more than the 100 variants"));
    let missing = Sweep::read(Path::new("/nowhere/sweep.toml"), &[]).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("there is no such file; deploy/sweep.toml is an example")
    );
}
