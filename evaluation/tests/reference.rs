//! Figures of random cases agree with scikit-learn, and intervals with a plain bootstrap. `scripts/metrics_reference.py`
//! makes the cases.

use fovea_core::spec::{Head, Scheme};
use fovea_evaluation::{
    Choice, Draws, Estimate, Method, PairError, Point, Sample, Samples, auc_difference, evaluate,
};
use serde_json::Value;

fn cases() -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("reference.json")).unwrap();
    all["cases"].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    let all = value.as_array().unwrap();
    all.iter().map(|v| v.as_f64().unwrap()).collect()
}

fn samples(case: &Value) -> Samples {
    let labels = numbers(&case["label"]);
    let probabilities = case["probabilities"].as_array().unwrap();
    let all: Vec<Sample> = numbers(&case["patient"])
        .into_iter()
        .zip(labels)
        .zip(probabilities)
        .map(|((patient, label), probabilities)| Sample {
            patient: format!("{patient:03}"),
            eye: None,
            grade: label as u8,
            label: label as usize,
            probabilities: numbers(probabilities)
                .into_iter()
                .map(|p| p as f32)
                .collect(),
        })
        .collect();
    let count = |key: &str| case[key].as_u64().unwrap() as usize;
    let scheme = Scheme {
        classes: count("classes"),
        positive_class: count("positive_class"),
        head: match case["head"].as_str() {
            None => Head::Softmax,
            Some(_) => Head::Ordinal,
        },
    };
    Samples::new(&all, scheme).unwrap()
}

const HALF: [Point; 1] = [Point {
    choice: Choice::Half,
    threshold: 0.5,
}];

#[test]
fn figures_agree_with_scikit_learn() {
    let few = Draws { number: 1, seed: 0 };
    let all = cases();
    assert!(all.len() >= 52);
    for (number, case) in all.iter().enumerate() {
        let result = evaluate(&samples(case), &HALF, few);
        let expected = &case["figures"];
        let at_half = &result.points[0];
        let mut figures = vec![
            ("auc", result.auc, &expected["auc"]),
            ("macro AUC", result.macro_auc, &expected["macro_auc"]),
            ("kappa", result.kappa, &expected["kappa"]),
            ("accuracy", result.accuracy, &expected["accuracy"]),
            ("brier", result.brier, &expected["brier"]),
            (
                "calibration_error",
                result.calibration_error,
                &expected["calibration_error"],
            ),
            ("sensitivity", at_half.sensitivity, &expected["sensitivity"]),
            ("specificity", at_half.specificity, &expected["specificity"]),
            ("ppv", at_half.ppv, &expected["ppv"]),
            ("npv", at_half.npv, &expected["npv"]),
        ];
        for (class, recall) in result.recall.iter().enumerate() {
            figures.push(("recall", *recall, &expected["recall"][class]));
        }
        for (name, found, expected) in figures {
            match (found, expected.as_f64()) {
                (None, None) => {}
                (Some(found), Some(expected)) => assert!(
                    (found.value - expected).abs() < 1e-6,
                    "case {number}: {name} is {}, scikit-learn says {expected}",
                    found.value
                ),
                other => panic!("case {number}: {name}: {other:?}"),
            }
        }
        let confusion = serde_json::to_value(&result.confusion).unwrap();
        assert_eq!(confusion, expected["confusion"], "case {number}");
    }
}

/// Both bootstraps draw at random: their ends differ by a share of the interval's width.
#[test]
fn intervals_agree_with_a_plain_bootstrap() {
    let draws = Draws {
        number: 20_000,
        seed: 1,
    };
    let mut compared = 0;
    for (number, case) in cases().iter().enumerate() {
        let Some(expected) = case["intervals"].as_object() else {
            continue;
        };
        let result = evaluate(&samples(case), &HALF, draws);
        let found = |name: &str| -> Estimate {
            match name {
                "auc" => result.auc,
                "accuracy" => result.accuracy,
                "sensitivity" => result.points[0].sensitivity,
                other => panic!("{other}"),
            }
            .unwrap()
        };
        for (name, ends) in expected {
            let ends = numbers(ends);
            let found = found(name);
            if found.method == Method::Wilson {
                assert_eq!(ends[0], ends[1], "case {number}: {name}");
                assert!(found.low < ends[0] || found.high > ends[1]);
                continue;
            }
            let allowed = 0.05 * (ends[1] - ends[0]);
            assert!(
                (found.low - ends[0]).abs() < allowed && (found.high - ends[1]).abs() < allowed,
                "case {number}: {name}: {found:?}, expected {ends:?}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 20, "{compared}");
}

/// The samples of a model of two classes.
fn of_scores(pair: &Value, scores: &str) -> Vec<Sample> {
    let patients = numbers(&pair["patient"]).into_iter();
    let labels = numbers(&pair["label"]);
    let both = patients.zip(labels).zip(numbers(&pair[scores]));
    both.map(|((patient, label), p)| Sample {
        patient: format!("{patient:03}"),
        eye: None,
        grade: label as u8,
        label: label as usize,
        probabilities: vec![(1.0 - p) as f32, p as f32],
    })
    .collect()
}

#[test]
fn differences_of_aucs_agree_with_a_plain_bootstrap() {
    let draws = Draws {
        number: 20_000,
        seed: 1,
    };
    let all: Value = serde_json::from_str(include_str!("reference.json")).unwrap();
    let pairs = all["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 6);
    for (number, pair) in pairs.iter().enumerate() {
        let [first, second] = ["first", "second"]
            .map(|name| Samples::new(&of_scores(pair, name), Scheme::softmax(2, 1)).unwrap());
        let found = auc_difference(&first, &second, draws).unwrap().unwrap();
        let expected = pair["difference"].as_f64().unwrap();
        assert!(
            (found.value - expected).abs() < 1e-6,
            "pair {number}: {found:?}, scikit-learn says {expected}"
        );
        let ends = numbers(&pair["interval"]);
        let allowed = 0.05 * (ends[1] - ends[0]);
        assert!(
            (found.low - ends[0]).abs() < allowed && (found.high - ends[1]).abs() < allowed,
            "pair {number}: {found:?}, expected {ends:?}"
        );
        let turned = auc_difference(&second, &first, draws).unwrap().unwrap();
        assert_eq!(turned.value, -found.value);
        let apart = (turned.low + found.high).abs() + (turned.high + found.low).abs();
        assert!(apart < 1e-12, "{turned:?}, {found:?}");
    }
}

#[test]
fn models_on_other_photographs_are_not_compared() {
    let all: Value = serde_json::from_str(include_str!("reference.json")).unwrap();
    let first = of_scores(&all["pairs"][0], "first");
    let ready = |samples: &[Sample]| Samples::new(samples, Scheme::softmax(2, 1)).unwrap();
    let draws = Draws::default();
    let mut other = first.clone();
    other[3].label = 1 - other[3].label;
    for (other, sample) in [
        (&other[..], 3),
        (&first[..first.len() - 1], first.len() - 1),
    ] {
        let compared = auc_difference(&ready(&first), &ready(other), draws);
        assert_eq!(compared, Err(PairError { sample }));
    }
}
