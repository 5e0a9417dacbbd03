//! The tables of a group's page: variants, best first, and runs.

use fovea_core::metrics::Evaluation;
use fovea_core::spread::Spread;
use fovea_report::charts::{MOST_TOLD_APART, many_swatch};
use maud::{Markup, html};

use super::pieces::{counted, phase, plain, prose, run_link, scrolled, section, some};
use super::{Part, part};
use crate::model::{GroupPage, MemberRow, Phase, VariantRow, in_words};

/// The variants, the best first.
pub(super) fn variants(of: &GroupPage) -> Part {
    let by = of.row.by;
    let one_each = of.members.len() <= of.variants.len();
    let content = html! {
        (scrolled("Variants", html! {
            table class="variants" {
                thead {
                    tr {
                        th scope="col" class="n room" { "Place" }
                        th scope="col" { "Variant" }
                        th scope="col" class="n" { (by.title()) }
                        @if !one_each { th scope="col" class="n room" { "Deviation" } }
                        th scope="col" class="n room" { "Epochs" }
                        @if of.keys.is_empty() { th scope="col" { "Settings" } }
                        @for key in &of.keys { th scope="col" class="n key-name" { (parts(key)) } }
                        th scope="col" { @if one_each { "Run" } @else { "Runs" } }
                        th scope="col" { "State" }
                    }
                }
                tbody {
                    @for (place, row) in of.variants.iter().enumerate() {
                        tr class=[(place == 0 && row.spread.is_some()).then_some("best")] {
                            td class="n room" { (place + 1) }
                            th scope="row" class="variant" {
                                @if place < MOST_TOLD_APART { (many_swatch(place)) } @else { span class="no-line" {} }
                                "v" (row.variant + 1)
                            }
                            td class="n" { (some(row.spread.map(|s| s.mean), 3)) }
                            @if !one_each { td class="n room" { (some(row.spread.and_then(|s| s.sd), 3)) } }
                            td class="n room" { (row.epochs) }
                            @if of.keys.is_empty() { td class="why" { (row.label) } }
                            @for value in &row.settings { td class="n" { (value) } }
                            td class="chips" { (chips(of, row, one_each)) }
                            td class="why" { (standing(of, row)) }
                        }
                    }
                }
            }
        }))
        p class="about more" {
            "First those that came furthest, then by the mean over the runs. The best of many variants looks better than it is on the photographs \
             that it was chosen by; judge it on others. Intervals over patients: " code { "fovea group evaluate " (of.row.id) }
        }
    };
    let heading = counted("Variants", of.variants.len());
    part("variants", section("variants", &heading, content))
}

/// Links to the runs of a variant, each named by its fold and seed.
fn chips(of: &GroupPage, row: &VariantRow, one_each: bool) -> Markup {
    html! {
        @for at in &row.runs {
            @let member = &of.members[*at];
            @match &member.row {
                Some(run) if one_each => (run_link(&run.id)),
                Some(run) => a class=(format!("chip b-{}", run.phase.name())) href=(format!("/runs/{}", run.id))
                    aria-label=(format!("{}: {}, {}", run.id, member.short(of.row.differs), run.phase.name())) { (letters(member, of)) },
                None => span class="chip gone" { (letters(member, of)) " removed" },
            }
            " "
        }
    }
}

/// As in the names of runs: `f1`, `s0`, or both.
fn letters(member: &MemberRow, of: &GroupPage) -> String {
    let fold = member.fold.filter(|_| of.row.differs.folds.is_some());
    let fold = fold.map(|fold| format!("f{}", fold.index));
    let seed = (of.row.differs.seeds > 1).then(|| format!("s{}", member.seed));
    let parts: Vec<String> = fold.into_iter().chain(seed).collect();
    parts.join(" ")
}

/// Where a variant is: the phases of its runs, and why it goes no further.
fn standing(of: &GroupPage, row: &VariantRow) -> Markup {
    let members = || row.runs.iter().map(|at| &of.members[*at]);
    let phases = Phase::ALL.into_iter().map(Some).chain([None]).map(|phase| {
        let of = |member: &&MemberRow| member.row.as_ref().map(|row| row.phase) == phase;
        (phase, members().filter(of).count())
    });
    let phases: Vec<_> = phases.filter(|(_, n)| *n > 0).collect();
    let reason = members()
        .filter_map(|member| member.row.as_ref())
        .find_map(|row| {
            let tells = matches!(row.phase, Phase::Failed | Phase::Paused);
            tells
                .then(|| first(&row.reason))
                .filter(|reason| !reason.is_empty())
        });
    // The badge says the first word.
    let dropped = row
        .dropped
        .as_deref()
        .map(|why| first(why).trim_start_matches("dropped "));
    html! {
        @match &phases[..] {
            _ if dropped.is_some() => span class="badge" { "dropped" },
            [(Some(only), _)] => (phase(*only)),
            _ => (in_words(&phases)),
        }
        @if let Some(why) = dropped.or(reason) { span class="sub" { (prose(why)) } }
    }
}

/// A key that may be broken after its points and underscores: there can be several beside each other.
fn parts(key: &str) -> Markup {
    let parts = key.split_inclusive(['.', '_']);
    html! { @for (at, part) in parts.enumerate() { @if at > 0 { wbr; } (part) } }
}

/// The first part of a reason: what follows says which command to use.
fn first(reason: &str) -> &str {
    let text = plain(reason);
    text.split_once(';').map_or(text, |(first, _)| first)
}

/// The runs, with mean and deviation where they differ in nothing that was chosen.
pub(super) fn runs(of: &GroupPage) -> Part {
    let differs = of.row.differs;
    let (folds, seeds) = (differs.folds.is_some(), differs.seeds > 1);
    let reasons = of.members.iter().any(|member| !reason(member).is_empty());
    let content = html! {
        (scrolled("Runs", html! {
            table {
                thead {
                    tr {
                        th scope="col" { "Run" }
                        @if of.is_sweep() { th scope="col" class="n" { "Variant" } }
                        @if folds { th scope="col" class="n" { "Fold" } }
                        @if seeds { th scope="col" class="n" { "Seed" } }
                        th scope="col" { "Phase" }
                        th scope="col" class="n" { "Epochs" }
                        @for (name, room, ..) in FIGURES { th scope="col" class=(if room { "n room" } else { "n" }) { (name) } }
                        @if reasons { th scope="col" class="room" { "Reason" } }
                    }
                }
                tbody { @for member in &of.members { (run(of, member, folds, seeds, reasons)) } }
                @if !of.is_sweep() { (spreads(of, 3 + usize::from(folds) + usize::from(seeds), reasons)) }
            }
        }))
        @if !of.is_sweep() { p class="about more" { (caveat(folds)) " " code { "fovea group evaluate " (of.row.id) } } }
    };
    part(
        "runs",
        section("runs", &counted("Runs", of.members.len()), content),
    )
}

fn caveat(folds: bool) -> &'static str {
    match folds {
        true => {
            "The deviation over folds is also which patients were held out, and is no standard error of the mean. Intervals over patients:"
        }
        false => {
            "The deviation over seeds is what chance in training changes. Intervals over patients:"
        }
    }
}

/// Why a run waits or failed. What its selection dropped, the variants tell.
fn reason(member: &MemberRow) -> &str {
    let row = member.row.as_ref().filter(|_| !member.is_dropped);
    row.map_or("", |row| first(&row.reason))
}

fn run(of: &GroupPage, member: &MemberRow, folds: bool, seeds: bool, reasons: bool) -> Markup {
    let row = member.row.as_ref();
    html! {
        tr {
            th scope="row" { @match row { Some(row) => (run_link(&row.id)), None => (member.id) } }
            @if of.is_sweep() { td class="n" { "v" (member.variant + 1) } }
            @if folds { td class="n" { @if let Some(fold) = member.fold { (fold.index) } } }
            @if seeds { td class="n" { (member.seed) } }
            td { @match row { Some(row) => (phase(row.phase)), None => span class="badge" { "removed" } } }
            td class="n" {
                @match row { Some(row) => { (row.epochs_done) span class="of" { " of " (row.epochs) } }, None => "–" }
            }
            @for (_, room, places, figure) in FIGURES {
                td class=(if room { "n room" } else { "n" }) { (some(member.last().and_then(figure), places)) }
            }
            @if reasons { td class="why room" { (prose(reason(member))) } }
        }
    }
}

type Figure = fn(&Evaluation) -> Option<f64>;

/// Name, whether it is left out where there is little room, decimals, and value.
const FIGURES: [(&str, bool, usize, Figure); 5] = [
    ("AUC", false, 3, |v| v.auc),
    ("Kappa", true, 3, |v| v.quadratic_kappa),
    ("Sensitivity", true, 3, |v| v.sensitivity),
    ("Specificity", true, 3, |v| v.specificity),
    ("Loss", true, 3, |v| Some(v.loss)),
];

/// Mean and deviation of the completed runs, below them.
fn spreads(of: &GroupPage, before: usize, reasons: bool) -> Markup {
    let completed = |member: &&MemberRow| {
        let phase = member.row.as_ref().map(|row| row.phase);
        phase == Some(Phase::Completed)
    };
    let last = || {
        of.members
            .iter()
            .filter(completed)
            .filter_map(MemberRow::last)
    };
    let spread = |figure: Figure| Spread::of(last().filter_map(figure));
    let row = |name: &str, value: fn(Spread) -> Option<f64>| {
        html! {
            tr {
                th scope="row" colspan=(before) { (name) }
                @for (_, room, places, figure) in FIGURES {
                    td class=(if room { "n room" } else { "n" }) { (some(spread(figure).and_then(value), places)) }
                }
                @if reasons { td class="room" {} }
            }
        }
    };
    let number = last().count();
    html! {
        @if number > 0 {
            tfoot {
                (row(&format!("Mean of {number} completed"), |s| Some(s.mean)))
                (row("Deviation", |s| s.sd))
            }
        }
    }
}
