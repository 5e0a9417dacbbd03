//! On what a figure was computed, and how its interval was made.

use fovea_core::spec::Head;
use fovea_evaluation::{Draws, Estimate, Method};
use maud::{Markup, html};

use crate::model::Labels;
use crate::number::{NO_INTERVAL, SAME, WILSON, count};

/// How the intervals of `estimates` were made, in a sentence or two.
pub(super) fn intervals<'a>(
    draws: Draws,
    estimates: impl Iterator<Item = &'a Option<Estimate>>,
) -> String {
    let all: Vec<&Estimate> = estimates.flatten().collect();
    let any = |method| all.iter().any(|e| e.method == method);
    let mut out = String::new();
    if any(Method::Bootstrap) {
        out += &format!(
            "95\u{a0}% intervals: bootstrap, {} draws of patients, seed {}.",
            count(u64::from(draws.number)),
            draws.seed
        );
    }
    if any(Method::Wilson) {
        out += &format!(
            " {WILSON} Wilson's 95\u{a0}% interval by the number of patients, as every draw gives the same."
        );
    }
    let undefined = |method| {
        let of = all.iter().filter(|e| e.method == method);
        of.map(|e| e.undefined).max().unwrap_or(0)
    };
    if any(Method::None) {
        out += &format!(
            " {NO_INTERVAL} Defined in too few draws: in up to {} of {} it is not.",
            count(u64::from(undefined(Method::None))),
            count(u64::from(draws.number))
        );
    }
    if any(Method::Same) {
        out += &format!(
            " {SAME} All draws gave the same value: they cannot tell how much it would change."
        );
    }
    // Those of a figure without an interval from the draws are left out of nothing.
    let left_out = undefined(Method::Bootstrap);
    if left_out > 0 {
        out += &format!(
            " In up to {} draws a figure with an interval from them is not defined; these are left out.",
            count(u64::from(left_out))
        );
    }
    out.trim().into()
}

/// How to read the report.
pub(super) fn section(labels: &Labels) -> Markup {
    html! {
        section id="method" {
            h2 { "How the figures are made" }
            dl class="terms" {
                dt { "Positive" }
                dd { "A photograph is called positive if the probabilities of the positive classes, added up, reach the threshold." }
                dt { "95\u{a0}% interval" }
                dd {
                    "Patients are drawn again and again, with replacement and with all their photographs, and the figure is computed \
                     of each draw; the interval is from percentile 2.5 to 97.5 (Efron and Tibshirani, 1993). Where a share is 0 or 1, \
                     every draw gives the same, and the interval is Wilson's (1927), with patients for the number. Two eyes of a patient are not independent: an interval over photographs would be too narrow. \
                     It tells what chance does to this set of patients. It tells nothing of other cameras, clinics or graders."
                }
                dt { "AUC" }
                dd { "Area under the ROC curve: how often a positive photograph gets a higher probability than a negative one. \
                      0.5 is guessing." }
                dt { "Sensitivity, specificity" }
                dd { "Share of the positive photographs that are called positive, and of the negative ones that are not." }
                dt { "PPV, NPV" }
                dd { "Positive and negative predictive value: share of those called positive that are positive, and of the others \
                      that are negative. Both change with how frequent the disease is." }
                dt { "Kappa" }
                dd { "Cohen's kappa of the " (labels.named()) " with quadratic weights: agreement beyond chance, where two grades off \
                      count four times as much as one. 1 is perfect, 0 is chance." }
                @if labels.head == Head::Ordinal {
                    dt { "Median class" }
                    dd { "The highest class that is reached with a probability above one half: the prediction of a model that was \
                          trained on the order of the classes." }
                }
                dt { "ECE, Brier score" }
                dd { "Expected calibration error: mean distance of predicted probability and observed share in ten bins; it is too \
                      large in small sets. Brier score: mean square of the difference of probability and truth. 0 is best for both." }
                dt { "Fellow-eye reference" }
                dd { "What copying the grade of the patient's other eye would score, with no model. A patient's eyes mostly have \
                      the same grade, so it is high." }
                dt { (crate::number::DASH) }
                dd { "The figure is not defined, such as a sensitivity where nothing is positive." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interval_has_its_own_reason() {
        let draws = Draws {
            number: 2000,
            seed: 0,
        };
        let of = |method, undefined| {
            Some(Estimate {
                value: 0.0,
                low: 0.0,
                high: 0.0,
                method,
                undefined,
            })
        };
        let say = |all: &[Option<Estimate>]| intervals(draws, all.iter());
        let same = say(&[of(Method::Same, 3)]);
        assert_eq!(
            same,
            "§ All draws gave the same value: they cannot tell how much it would change."
        );
        let few = say(&[of(Method::None, 1500), of(Method::Wilson, 1900)]);
        assert!(
            few.contains("‡ Defined in too few draws: in up to 1,500 of 2,000 it is not."),
            "{few}"
        );
        assert!(!few.contains("left out"), "{few}");
        let some = say(&[of(Method::Bootstrap, 2), of(Method::None, 1500)]);
        assert!(some.contains("In up to 2 draws"), "{some}");
    }
}
