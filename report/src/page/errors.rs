//! Photographs about which the model is most wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::model::{Labels, Report, WorstError, grade};
use crate::number::{DASH, decimals};

pub(super) fn section(report: &Report) -> Markup {
    let Some(errors) = &report.worst_errors else {
        return html! {};
    };
    let is_missed = |error: &&WorstError| error.label >= report.labels.positive_class;
    let missed: Vec<&WorstError> = errors.all.iter().filter(is_missed).collect();
    let alarms: Vec<&WorstError> = errors.all.iter().filter(|e| !is_missed(e)).collect();
    html! {
        section id="errors" {
            h2 { "Worst errors" }
            p class="lead" {
                "Photographs of the part \"" (errors.part) "\" whose probability is furthest from their label, the worst first. \
                 Look at them: some are errors of the model, some of the label, some photographs cannot be judged. \
                 The list names photographs and patients; treat this file as you treat the data set."
            }
            @if errors.all.iter().any(|error| error.heat_map.is_some()) {
                p class="lead" {
                    "Beside each photograph a class activation map: where the model found evidence for " (report.labels.positive) ",                      the brighter the more, each on its own scale. It is coarse, and no outline of lesions."
                }
            }
            (group("Low probability, but ", &missed, &report.labels))
            (group("High probability, but no ", &alarms, &report.labels))
        }
    }
}

fn group(title: &str, errors: &[&WorstError], labels: &Labels) -> Markup {
    html! {
        h3 { (title) (labels.positive) }
        @if errors.is_empty() {
            p { "None." }
        } @else {
            ol class="errors" { @for error in errors { (card(error, labels)) } }
        }
    }
}

fn card(error: &WorstError, labels: &Labels) -> Markup {
    let class = labels
        .classes
        .get(error.predicted)
        .map_or(DASH, String::as_str);
    let p = error.p_positive.clamp(0.0, 1.0);
    html! {
        li {
            @if let Some(png) = &error.heat_map {
                img src=(format!("data:image/png;base64,{}", STANDARD.encode(png)))
                    alt=(format!("{}, and where the model looked", error.image));
            }
            p class="file" { (error.image) }
            div class="gauge" aria-hidden="true" { span class="gauge-fill" style=(format!("width:{:.1}%", 100.0 * p)) {} }
            dl {
                div { dt { "P(positive)" } dd { b { (probability(p)) } } }
                div { dt { "Label" } dd { (grade(error.grade)) } }
                div { dt { "Model" } dd { (class) } }
                div { dt { "Patient" } dd { (error.patient) } }
                @if let Some(quality) = &error.quality { div { dt { "Quality" } dd { (quality) } } }
            }
        }
    }
}

/// A probability that is not quite 0 or 1 is not written as if it were.
fn probability(p: f64) -> String {
    match p {
        p if p > 0.0 && p < 0.0005 => "<0.001".into(),
        p if p < 1.0 && p > 0.9995 => ">0.999".into(),
        p => decimals(p, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_keep_their_side() {
        let all = [0.0, 0.0001, 0.0005, 0.5, 0.9999, 1.0].map(probability);
        assert_eq!(
            all,
            ["0.000", "<0.001", "0.001", "0.500", ">0.999", "1.000"]
        );
    }
}
