//! Which transfer strategy suits a dataset: the four scenarios of transfer learning, applied to its size.
//!
//! Source of the rules: A. Karpathy, "Transfer Learning", CS231n course notes, which the article on diabetic retinopathy that
//! Fovea implements (A. Trivedi 2016) follows. The rules say "few" and "many" without numbers; [`FEW`] and [`MANY`] are ours.

use crate::spec::Strategy;

/// Fewer training photographs than this are few.
pub const FEW: u64 = 1_000;
/// So many training photographs, or more, are many.
pub const MANY: u64 = 20_000;
/// A class that the smallest one is so many times smaller than is worth a remark.
const UNBALANCED: u64 = 4;

/// What a decision needs to know of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Training photographs of each ICDR grade.
    pub by_grade: [u64; 5],
    /// Whether the weights were learnt from photographs like these, and not from ImageNet's.
    pub alike: bool,
    /// The first grade that counts as positive.
    pub positive_from: u8,
}

/// How many photographs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Few,
    Some,
    Many,
}

/// What to try first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    pub amount: Amount,
    pub strategy: Strategy,
    /// Keys of run.toml with their values as TOML.
    pub settings: Vec<(&'static str, &'static str)>,
    /// Why, in sentences.
    pub reasons: Vec<String>,
    /// What to compare with, and what else to look at, in sentences.
    pub remarks: Vec<String>,
}

/// The advice for a dataset.
pub fn advise(situation: &Situation) -> Advice {
    let photographs: u64 = situation.by_grade.iter().sum();
    let amount = match photographs {
        n if n < FEW => Amount::Few,
        n if n < MANY => Amount::Some,
        _ => Amount::Many,
    };
    // As in deploy/recipes: a classifier alone takes more epochs, which cost little, and no higher rate than it names.
    let probe = [
        ("model.strategy", "\"linear_probe\""),
        ("train.epochs", "60"),
        ("train.head_lr_mult", "1.0"),
    ];
    let tune = ("model.strategy", "\"fine_tune\"");
    let first_frozen = ("model.frozen", "[\"conv1/7x7_s2\", \"conv2/3x3_reduce\"]");
    let (strategy, settings, why) = match (amount, situation.alike) {
        (Amount::Few, true) => (
            Strategy::LinearProbe,
            probe.to_vec(),
            "Few photographs like those of the weights: the last features fit already, and training more than a linear classifier \
             on them would overfit.",
        ),
        (Amount::Few, false) => (
            Strategy::LinearProbe,
            [
                &probe[..1],
                &[("model.tap", "\"inception_4b/output\"")],
                &probe[1..],
            ]
            .concat(),
            "Few photographs unlike those of the weights: training all layers may overfit, and the last features are about the \
             objects that the weights were trained on. Features of an earlier layer are more general.",
        ),
        (Amount::Some, _) => (
            Strategy::FineTune,
            vec![tune, first_frozen],
            "Enough photographs to train most layers. The first ones see edges and colours, which are the same everywhere, so they \
             stay as they are.",
        ),
        (Amount::Many, true) => (
            Strategy::FineTune,
            vec![tune, ("model.frozen", "[]")],
            "Many photographs like those of the weights: all layers can be trained further without overfitting.",
        ),
        (Amount::Many, false) => (
            Strategy::FineTune,
            vec![tune, ("model.frozen", "[]")],
            "Many photographs unlike those of the weights: the network could be trained from scratch, but trained weights are \
             mostly the better start, so all layers are trained from them.",
        ),
    };
    let mut remarks = vec![compare(amount, situation.alike)];
    remarks.extend(balance(situation));
    Advice {
        amount,
        strategy,
        settings,
        reasons: vec![why.to_owned()],
        remarks,
    }
}

/// What else is worth a run.
fn compare(amount: Amount, alike: bool) -> String {
    match (amount, alike) {
        (Amount::Few, _) => {
            "The rule warns of overfitting and does not measure it: submit the article's recipe, fine_tune with the first two \
             layers frozen, too, and compare both on the validation split (`fovea submit --folds 5` when that is small)."
        }
        (Amount::Some, true) => {
            "A linear_probe takes minutes and shows how far the features of the weights go by themselves."
        }
        (Amount::Some, false) => {
            "With fewer than 5,000 photographs a linear_probe on an earlier layer is worth the minutes that it takes."
        }
        (Amount::Many, true) => "Compare with the first two layers frozen: a step is faster.",
        (Amount::Many, false) => {
            "from_scratch with model.auxiliary = 0.3 and more epochs is the other way; compare both."
        }
    }
    .to_owned()
}

/// Whether the classes are of very different size.
fn balance(situation: &Situation) -> Option<String> {
    let (below, above) = situation
        .by_grade
        .split_at(usize::from(situation.positive_from));
    let [negative, positive] = [below, above].map(|grades| grades.iter().sum::<u64>());
    let (small, large) = (negative.min(positive), negative.max(positive));
    if small == 0 {
        return Some(format!(
            "All photographs are on one side of model.positive_from = {}: choose another one, or the run is refused.",
            situation.positive_from
        ));
    }
    (large >= UNBALANCED * small).then(|| {
        format!(
            "The classes are unbalanced ({negative} negative, {positive} positive). The article advises to balance them: \
             train.imbalance = \"class_weights\" or \"oversample\". Others measured that this can hurt, so compare with \"none\"."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(photographs: u64, alike: bool) -> Advice {
        advise(&Situation {
            by_grade: [photographs / 2, 0, photographs.div_ceil(2), 0, 0],
            alike,
            positive_from: 2,
        })
    }

    #[test]
    fn the_four_scenarios() {
        for (photographs, alike, strategy, settings) in [
            (999, true, Strategy::LinearProbe, 3),
            (999, false, Strategy::LinearProbe, 4),
            (1_000, false, Strategy::FineTune, 2),
            (19_999, true, Strategy::FineTune, 2),
            (20_000, true, Strategy::FineTune, 2),
            (88_000, false, Strategy::FineTune, 2),
        ] {
            let advice = of(photographs, alike);
            assert_eq!(advice.strategy, strategy, "{photographs} {alike}");
            assert_eq!(advice.settings.len(), settings, "{photographs} {alike}");
            assert!(!advice.reasons.is_empty() && !advice.remarks.is_empty());
        }
        let frozen = |advice: Advice| {
            let of =
                |(key, value): &(&str, &'static str)| (*key == "model.frozen").then_some(*value);
            advice.settings.iter().find_map(of)
        };
        assert_eq!(frozen(of(88_000, false)), Some("[]"));
        assert!(frozen(of(5_000, false)).unwrap().contains("conv1/7x7_s2"));
        assert_eq!(frozen(of(100, false)), None);
    }

    /// Every setting is a key and a value that a spec takes.
    #[test]
    fn advice_makes_a_valid_spec() {
        for photographs in [10, 5_000, 88_000] {
            for alike in [true, false] {
                let advice = of(photographs, alike);
                let mut text = String::from("name = 'a'\ndataset = 'd'\nmodel.weights = 'w'\n");
                for (key, value) in &advice.settings {
                    text += &format!("{key} = {value}\n");
                }
                if advice.strategy == Strategy::LinearProbe {
                    text += "model.frozen = []\n";
                }
                let spec: crate::spec::RunSpec = toml::from_str(&text).unwrap();
                spec.validate().unwrap();
                assert_eq!(spec.model.strategy(), advice.strategy);
            }
        }
    }

    #[test]
    fn classes_of_unequal_size_are_remarked() {
        let remarks = |by_grade, positive_from| {
            advise(&Situation {
                by_grade,
                alike: false,
                positive_from,
            })
            .remarks
            .join(" ")
        };
        assert!(!remarks([30, 0, 10, 0, 0], 2).contains("unbalanced"));
        assert!(remarks([40, 0, 10, 0, 0], 2).contains("(40 negative, 10 positive)"));
        assert!(remarks([10, 30, 0, 10, 0], 1).contains("(10 negative, 40 positive)"));
        assert!(remarks([10, 30, 0, 0, 0], 2).contains("one side"));
    }
}
