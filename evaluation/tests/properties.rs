//! What must hold for any samples.

use fovea_core::spec::Scheme;
use fovea_evaluation::{
    Choice, Draws, Eye, Method, Sample, Samples, SamplesError, Wanted, choose, evaluate, fellow_eye,
};
use proptest::prelude::*;

const DRAWS: Draws = Draws {
    number: 300,
    seed: 5,
};

/// Patient, grade and P(grade >= 2) of one photograph.
type Photograph = (u8, u8, u8);

fn sample(&(patient, grade, p): &Photograph) -> Sample {
    let p = f32::from(p) / 255.0;
    Sample {
        patient: format!("p{patient:03}"),
        eye: None,
        grade,
        label: usize::from(grade >= 2),
        probabilities: vec![1.0 - p, p],
    }
}

fn samples(photographs: &[Photograph]) -> Samples {
    let all: Vec<Sample> = photographs.iter().map(sample).collect();
    Samples::new(&all, Scheme::softmax(2, 1)).unwrap()
}

fn photographs() -> impl Strategy<Value = Vec<Photograph>> {
    prop::collection::vec((0..30u8, 0..5u8, any::<u8>()), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Only what was measured counts, not the order in which workers sent it.
    #[test]
    fn the_order_of_the_samples_does_not_matter(photographs in photographs(), turn in 0..80usize) {
        let mut turned = photographs.clone();
        turned.rotate_left(turn % photographs.len());
        turned.reverse();
        let points = choose(&samples(&photographs), Wanted::default());
        prop_assert_eq!(&points, &choose(&samples(&turned), Wanted::default()));
        let (a, b) = (evaluate(&samples(&photographs), &points, DRAWS), evaluate(&samples(&turned), &points, DRAWS));
        prop_assert_eq!(a.auc, b.auc);
        prop_assert_eq!(a.kappa, b.kappa);
        prop_assert_eq!(a.points, b.points);
        prop_assert_eq!(a.confusion, b.confusion);
    }

    /// A second, equal photograph of every eye says nothing new: an interval over images would become narrower.
    #[test]
    fn copies_of_photographs_do_not_make_a_result_surer(photographs in photographs()) {
        let twice: Vec<Photograph> = photographs.iter().chain(&photographs).copied().collect();
        let once = evaluate(&samples(&photographs), &[], DRAWS);
        let twice = evaluate(&samples(&twice), &[], DRAWS);
        prop_assert_eq!(once.auc, twice.auc);
        prop_assert_eq!(once.accuracy, twice.accuracy);
    }

    #[test]
    fn points_reach_what_is_wanted_and_intervals_hold_the_value(
        photographs in photographs(),
        sensitivity in 0.0..=1.0f64,
        specificity in 0.0..=1.0f64,
    ) {
        let all = samples(&photographs);
        let points = choose(&all, Wanted { sensitivity, specificity });
        let result = evaluate(&all, &points, DRAWS);
        for at in &result.points {
            match at.point.choice {
                Choice::HighSensitivity => prop_assert!(at.sensitivity.unwrap().value >= sensitivity),
                Choice::HighSpecificity => prop_assert!(at.specificity.unwrap().value >= specificity),
                Choice::Youden | Choice::Half => {}
            }
            for share in [at.sensitivity, at.specificity, at.ppv, at.npv].into_iter().flatten() {
                prop_assert!(share.low <= share.value && share.value <= share.high, "{share:?}");
                prop_assert!((0.0..=1.0).contains(&share.low) && (0.0..=1.0).contains(&share.high));
                // Certainty is never claimed.
                prop_assert!(share.low < share.high || share.method != Method::Wilson);
            }
        }
        let by_grade = result.points.iter().flat_map(|at| at.grades.iter().map(|calls| (calls.samples, calls.share)));
        let by_bin = result.reliability.iter().map(|bin| (bin.samples, bin.positive));
        for (samples, share) in by_grade.chain(by_bin) {
            prop_assert_eq!(share.is_some(), samples > 0);
            let Some(share) = share else { continue };
            prop_assert!(share.low <= share.value && share.value <= share.high, "{share:?}");
            prop_assert!(share.low < share.high || matches!(share.method, Method::None | Method::Same), "{share:?}");
            // All or none: Wilson's, so that it is not taken for certain.
            prop_assert_eq!(share.method == Method::Wilson, share.value == 0.0 || share.value == 1.0);
        }
        for at in &result.points {
            let called: u64 = at.grades.iter().map(|calls| calls.called).sum();
            prop_assert_eq!(called, at.true_positives + at.false_positives);
            let found = at.grades.iter().filter(|calls| calls.grade >= 2).map(|calls| calls.called);
            prop_assert_eq!(found.sum::<u64>(), at.true_positives);
        }
        let sum: u64 = result.confusion.iter().flatten().sum();
        prop_assert_eq!(sum, photographs.len() as u64);
        prop_assert_eq!(result.reliability.iter().map(|b| b.samples).sum::<u64>(), sum);
    }
}

#[test]
fn each_point_is_the_best_of_its_kind() {
    // Scores of the positive: .9 .8 .6 .3; of the negative: .7 .4 .2 .1.
    let scores = [
        (2, 230),
        (2, 204),
        (2, 153),
        (2, 77),
        (0, 179),
        (0, 102),
        (0, 51),
        (0, 26),
    ];
    let photographs: Vec<Photograph> = (0u8..).zip(scores).map(|(n, (g, p))| (n, g, p)).collect();
    let points = choose(
        &samples(&photographs),
        Wanted {
            sensitivity: 0.75,
            specificity: 0.75,
        },
    );
    let found: Vec<(Choice, u8)> = points
        .iter()
        .map(|p| (p.choice, (p.threshold * 255.0).round() as u8))
        .collect();
    assert_eq!(
        found,
        [
            (Choice::HighSensitivity, 153),
            (Choice::HighSpecificity, 153),
            (Choice::Youden, 204),
            (Choice::Half, 128),
        ]
    );
    // Nothing to choose by.
    let points = choose(&samples(&photographs[..4]), Wanted::default());
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].choice, Choice::Half);
}

/// A model that ranks perfectly: the bootstrap would say 1 to 1.
#[test]
fn a_perfect_result_is_not_certain() {
    let photographs: Vec<Photograph> = (0..20).map(|n| (n, n % 2 * 3, n % 2 * 200)).collect();
    let result = evaluate(
        &samples(&photographs),
        &choose(&samples(&photographs), Wanted::default()),
        DRAWS,
    );
    let auc = result.auc.unwrap();
    assert_eq!(
        (auc.value, auc.high, auc.method),
        (1.0, 1.0, Method::Wilson)
    );
    assert!((auc.low - 0.7225).abs() < 1e-4, "{auc:?}");
    let sensitivity = result.points[0].sensitivity.unwrap();
    assert!((sensitivity.low - 0.7225).abs() < 1e-4, "{sensitivity:?}");
}

#[test]
fn the_fellow_eye_is_scored_by_its_grade() {
    let eye = |patient: &str, eye, grade: u8| Sample {
        patient: patient.into(),
        eye,
        grade,
        label: grade.into(),
        probabilities: vec![0.2; 5],
    };
    let (left, right) = (Some(Eye::Left), Some(Eye::Right));
    let all = [
        eye("a", left, 0),
        eye("a", right, 0),
        eye("b", left, 3),
        eye("b", right, 1),
        eye("c", left, 4),
        eye("c", right, 2),
        // Without another eye, of unknown side, and a second photograph of an eye.
        eye("d", left, 4),
        eye("e", None, 4),
        eye("e", None, 0),
        eye("c", left, 4),
    ];
    let samples = Samples::new(&all, Scheme::softmax(5, 2)).unwrap();
    let fellow = fellow_eye(&samples, DRAWS).unwrap();
    assert_eq!((fellow.samples, fellow.patients), (7, 3));
    // Positive: b left (fellow 1), c left twice (fellow 2), c right (fellow 4); negative: a (0, 0), b right (fellow 3).
    assert_eq!(fellow.sensitivity.unwrap().value, 0.75);
    assert_eq!(fellow.specificity.unwrap().value, 2.0 / 3.0);
    // Pairs in order: fellow 1 beats 0, 0 of 0, 0, 3; each 2 the same; 4 beats all three.
    assert!((fellow.auc.unwrap().value - (2.0 + 2.0 + 2.0 + 3.0) / 12.0).abs() < 1e-12);
    assert!(
        fellow_eye(
            &Samples::new(&all[6..9], Scheme::softmax(5, 2)).unwrap(),
            DRAWS
        )
        .is_none()
    );
}

#[test]
fn what_is_no_output_of_a_model_is_refused_by_its_number() {
    let good = sample(&(0, 0, 100));
    let with = |change: fn(&mut Sample)| {
        let mut bad = good.clone();
        change(&mut bad);
        Samples::new(&[good.clone(), bad], Scheme::softmax(2, 1)).unwrap_err()
    };
    assert_eq!(
        Samples::new(&[], Scheme::softmax(2, 1)).unwrap_err(),
        SamplesError::Empty
    );
    for (error, said) in [
        (with(|s| s.label = 2), "sample 1: its label is 2"),
        (with(|s| s.grade = 5), "sample 1: its grade is 5"),
        (
            with(|s| s.probabilities.push(0.0)),
            "sample 1: it has 3 probabilities for 2",
        ),
        (
            with(|s| s.probabilities[0] = f32::NAN),
            "sample 1: its probabilities",
        ),
        (with(|s| s.probabilities = vec![0.2, 0.2]), "add up to 1"),
        (with(|s| s.probabilities = vec![-0.5, 1.5]), "from 0 to 1"),
    ] {
        assert!(error.to_string().contains(said), "{error}");
    }
    for (classes, positive) in [(1, 1), (2, 0), (2, 2)] {
        assert!(
            Samples::new(
                std::slice::from_ref(&good),
                Scheme::softmax(classes, positive)
            )
            .is_err()
        );
    }
}
