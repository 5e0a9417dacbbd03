//! The page of a run: what its figures are of, and what is left out where it does not apply.

#[allow(dead_code)]
mod data;

use data::NOW;
use fovea_dashboard::model::Scored;
use fovea_dashboard::page::{overview, run};
use fovea_dashboard::{Here, Sheet, document};
use fovea_evaluation::Method;
use scraper::{ElementRef, Html, Selector};

fn select<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

fn text(element: &ElementRef) -> String {
    element.text().collect()
}

fn parsed(sheet: &Sheet) -> Html {
    Html::parse_document(&document(&data::shell(Here::Runs, None), sheet))
}

#[test]
fn the_page_of_an_evaluation_shows_its_results_and_nothing_that_does_not_apply() {
    let page = data::run_page(&data::evaluation(10));
    let shown = parsed(&run(&page, "c", NOW));
    let tiles: Vec<String> = select(&shown, "#results dt").iter().map(text).collect();
    assert_eq!(
        tiles,
        [
            "AUC",
            "Kappa",
            "Accuracy",
            "Sensitivity",
            "Specificity",
            "Loss",
            "Run",
            "Checkpoint",
            "Scored"
        ]
    );
    let validation = &page.epochs[0].validation;
    let values: Vec<String> = select(&shown, "#results .value").iter().map(text).collect();
    assert_eq!(values[0], format!("{:.3}", validation.auc.unwrap()));
    assert_eq!(values[2], "70.0\u{202f}%");
    assert_eq!(
        select(&shown, "#results .facts a")[0].attr("href"),
        Some("/runs/retina-7")
    );
    let heads: Vec<String> = select(&shown, "h2").iter().map(text).collect();
    assert_eq!(heads, ["Results", "Workers", "Events", "Spec"]);
    let all = text(&select(&shown, "main")[0]);
    for absent in ["Training samples", "virtual ranks", "Progress"] {
        assert!(!all.contains(absent), "{absent}");
    }
    let front = parsed(&overview(&data::overview(), NOW));
    let ended = text(&select(&front, "#ended tbody tr")[0]);
    assert!(
        ended.contains("test part of eyepacs-512, scored with retina-7 step 770"),
        "{ended}"
    );
}

#[test]
fn the_newest_and_the_best_auc_are_told_apart() {
    let mut training = data::training(7, 7);
    training.epochs[4].validation.auc = Some(0.987);
    let shown = parsed(&run(&data::run_page(&training), "c", NOW));
    let tile = text(&select(&shown, "#figures .tile")[3]);
    let newest = training.epochs[6].validation.auc.unwrap();
    assert_eq!(
        tile,
        format!("AUC{newest:.3}newest epoch, 7; best checkpoint: 0.987 of epoch 5")
    );
    training.spec.checkpoint.keep_best = fovea_core::spec::BestBy::Loss;
    let shown = parsed(&run(&data::run_page(&training), "c", NOW));
    let tile = text(&select(&shown, "#figures .tile")[3]);
    assert!(tile.ends_with(", by validation loss"), "{tile}");
}

#[test]
fn throughput_is_that_of_full_steps() {
    let training = data::training(7, 7);
    let mut page = data::run_page(&training);
    if let Some(newest) = &mut page.row.newest {
        (newest.images, newest.phases.forward_ms) = (2, 0.0);
    }
    let shown = parsed(&run(&page, "c", NOW));
    let lead = text(&select(&shown, "#throughput .lead")[0]);
    assert_eq!(
        lead,
        "413 images a second, mean of its last steps; a step of 256 images takes the reporting worker 620\u{a0}ms."
    );
    assert!(text(&select(&shown, "#throughput .key")[0]).contains("forward 170"));
    page.full_step = None;
    let shown = parsed(&run(&page, "c", NOW));
    let lead = text(&select(&shown, "#throughput .lead")[0]);
    assert_eq!(lead, "413 images a second, mean of its last steps.");
    assert!(select(&shown, "#throughput .stack").is_empty());
}

#[test]
fn losses_of_any_size_fit_and_one_step_is_a_point() {
    let mut page = data::run_page(&data::run(9, 0));
    page.losses = vec![(1.0, 6_680_647_041_024.0)];
    if let Some(progress) = data::training(9, 0).progress {
        page.row.newest = Some(fovea_core::run::StepReport {
            loss: 6_680_647_041_024.0,
            ..progress
        });
    }
    let shown = parsed(&run(&page, "c", NOW));
    assert_eq!(text(&select(&shown, "#figures .value")[2]), "6.68e12");
    assert_eq!(
        select(&shown, "#curves svg[aria-label=Loss] circle").len(),
        1
    );
    let ticks = select(&shown, "#curves svg[aria-label=Loss] .c-tick text");
    let longest = ticks.iter().map(|tick| text(tick).chars().count()).max();
    assert!(longest <= Some(8), "{longest:?}");
    // Nothing was evaluated: a word, and no empty axes.
    let charts: Vec<&str> = select(&shown, "#curves svg")
        .iter()
        .filter_map(|c| c.attr("aria-label"))
        .collect();
    assert_eq!(charts, ["Loss", "Learning rate"]);
    assert!(text(&select(&shown, "#curves")[0]).contains("No epoch was evaluated yet."));
}

#[test]
fn an_ended_run_waits_for_nothing() {
    let mut failed = data::run(9, 0);
    failed.phase = fovea_core::run::Phase::Failed {
        reason: "run.failed: use a smaller `train.learning_rate`".into(),
    };
    let mut page = data::run_page(&failed);
    page.scored = Scored::Missing("Add it: `fovea dataset add`.".into());
    let shown = parsed(&run(&page, "c", NOW));
    let all = text(&select(&shown, "main")[0]);
    assert!(!all.contains(" yet"), "{all}");
    assert!(!all.contains('`'), "{all}");
    let code: Vec<String> = select(&shown, "#head code, #roc code")
        .iter()
        .map(text)
        .collect();
    assert_eq!(code, ["train.learning_rate", "fovea dataset add"]);
}

#[test]
fn marks_are_explained_where_they_are_used() {
    let mut page = data::run_page(&data::training(7, 7));
    let note = |page: &_| {
        let shown = parsed(&run(page, "c", NOW));
        let notes = select(&shown, "#roc .two figcaption");
        notes.iter().map(text).collect::<String>()
    };
    let Scored::Known { evaluated, .. } = &mut page.scored else {
        panic!("no figures")
    };
    let mut every = vec![
        &mut evaluated.auc,
        &mut evaluated.kappa,
        &mut evaluated.accuracy,
    ];
    for at in &mut evaluated.points {
        every.extend([
            &mut at.sensitivity,
            &mut at.specificity,
            &mut at.ppv,
            &mut at.npv,
        ]);
    }
    for estimate in every.into_iter().flatten() {
        estimate.method = Method::Bootstrap;
    }
    assert_eq!(note(&page), "");
    if let Scored::Known { evaluated, .. } = &mut page.scored
        && let Some(auc) = &mut evaluated.auc
    {
        auc.method = Method::Same;
    }
    assert_eq!(note(&page), "§ No interval: all draws gave the same.");
}
