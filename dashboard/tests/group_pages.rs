//! A group's page: its variants in their order, what was dropped, its chart, and its runs.

#[allow(dead_code)]
mod data;

use data::NOW;
use data::groups::{folds, page, sweep};
use fovea_core::run::{Phase as Core, Run};
use fovea_core::selection::GroupPause;
use fovea_dashboard::model::{GroupPage, GroupRow, GroupState};
use fovea_dashboard::page::group;
use scraper::{ElementRef, Html, Selector};

fn select<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

fn texts(page: &Html, selector: &str) -> Vec<String> {
    let text = |element: ElementRef| element.text().collect::<String>().trim().to_owned();
    select(page, selector).into_iter().map(text).collect()
}

fn drawn(of: &GroupPage) -> Html {
    let parts = group(of, NOW).parts;
    Html::parse_document(
        &parts
            .into_iter()
            .map(|part| part.html.0)
            .collect::<String>(),
    )
}

fn drawn_page(of: &(fovea_core::group::Group, Vec<Run>)) -> Html {
    drawn(&page(of))
}

#[test]
fn a_sweep_ranks_its_variants_and_says_what_was_dropped() {
    let of = page(&sweep(3, 3));
    // Variants 2 and 5 go on; the others were dropped at the first rung.
    let order: Vec<(usize, usize)> = of.variants.iter().map(|v| (v.variant, v.epochs)).collect();
    assert_eq!(order[..2].iter().map(|v| v.1).collect::<Vec<_>>(), [5, 5]);
    let mut leading = [order[0].0, order[1].0];
    leading.sort_unstable();
    assert_eq!(leading, [1, 4]);
    let shown = drawn(&of);
    let heads = texts(&shown, "#variants thead th");
    assert_eq!(
        heads,
        [
            "Place",
            "Variant",
            "AUC",
            "Deviation",
            "Epochs",
            "train.batch",
            "train.learning_rate",
            "Runs",
            "State"
        ]
    );
    let first = texts(&shown, "#variants tbody tr:first-child > *");
    let leader = &of.variants[0];
    assert_eq!(
        first[..2],
        ["1".to_owned(), format!("v{}", leader.variant + 1)]
    );
    assert_eq!(first[5..7], leader.settings[..]);
    assert_eq!(first[2], format!("{:.3}", leader.spread.unwrap().mean));
    assert_eq!(
        first[3],
        format!("{:.3}", leader.spread.unwrap().sd.unwrap())
    );
    // Its runs are named by their folds, with their phases for those who do not see the colour.
    let chips = select(&shown, "#variants tbody tr:first-child .chip");
    let names: Vec<&str> = chips.iter().filter_map(|c| c.attr("aria-label")).collect();
    assert!(names[0].contains(": fold 1, "), "{names:?}");
    assert_eq!(
        texts(&shown, "#variants tbody tr:first-child .chip"),
        ["f1", "f2", "f3"]
    );
    let last = texts(&shown, "#variants tbody tr:last-child td:last-child");
    assert!(
        last[0].starts_with("dropped") && last[0].contains("after epoch 3: place"),
        "{last:?}"
    );
    assert!(!last[0].contains("fovea resume"), "{last:?}");
    let plan = texts(&shown, "#plan dd");
    assert_eq!(plan[0], "8, 16");
    assert_eq!(plan[2], "6, every combination of these, each with 3 runs");
    assert!(
        plan[3].starts_with(
            "after epochs 3 and 6 the variants are ranked by AUC and one of 3 goes on."
        ),
        "{plan:?}"
    );
    // One line for each variant, and one mark for each rung.
    assert_eq!(select(&shown, "#chart svg.c path.c-line").len(), 6);
    assert_eq!(select(&shown, "#chart svg.c .c-mark").len(), 2);
    assert_eq!(select(&shown, "#chart .lines-key li").len(), 6);
    assert_eq!(select(&shown, "#runs tbody tr").len(), 18);
    assert!(
        select(&shown, "#runs tfoot").is_empty(),
        "a mean over variants says nothing"
    );
    assert_eq!(texts(&shown, "#figures .value")[3], "2 of 6");
}

#[test]
fn cancelling_changes_no_decision_and_finishes_nothing() {
    let (group, mut runs) = sweep(3, 3);
    for run in &mut runs {
        run.phase = Core::Cancelled;
    }
    let of = page(&(group, runs));
    let shown = drawn(&of);
    // Those that went on are cancelled, the others were dropped before.
    let tile = texts(&shown, "#figures .tile:last-child");
    assert!(tile[0].contains("0 of 6"), "{tile:?}");
    assert!(tile[0].contains("4 dropped, 2 cancelled"), "{tile:?}");
    let last = texts(&shown, "#variants tbody tr:last-child td:last-child");
    assert!(last[0].starts_with("dropped"), "{last:?}");
    let runs = texts(&shown, "#figures .tile:first-child");
    assert!(!runs[0].contains("100 %"), "{runs:?}");
}

#[test]
fn what_was_drawn_is_no_grid() {
    let (mut drawn, runs) = sweep(12, 0);
    // Each variant has a rate of its own, and one of two batches.
    for (at, label) in drawn.variants.iter_mut().enumerate() {
        let (batch, rate) = ([8, 16][at % 2], 0.0001 * (at + 1) as f64);
        *label = format!("train.batch={batch} train.learning_rate={rate:.4}");
    }
    let shown = drawn_page(&(drawn, runs));
    let plan = texts(&shown, "#plan dd");
    assert_eq!(plan[..3], ["8, 16", "24 drawn, 0.000100 to 0.00240", "24"]);
    // A grid of as many says so.
    let grid = drawn_page(&sweep(12, 0));
    let plan = texts(&grid, "#plan dd");
    assert_eq!(
        plan[1..3],
        [
            "12 values, 0.000500 to 0.00600",
            "24, every combination of these"
        ]
    );
    let mut one = sweep(3, 3);
    if let Some(selection) = &mut one.0.selection
        && let Some(halving) = &mut selection.halving
    {
        halving.after.truncate(1);
    }
    let caption = texts(&drawn_page(&one), "#chart figcaption");
    assert!(
        caption[0].ends_with("A dotted line marks the rung."),
        "{caption:?}"
    );
}

#[test]
fn of_many_lines_twelve_are_told_apart_and_one_table_is_enough_for_single_runs() {
    let of = page(&sweep(50, 0));
    let shown = drawn(&of);
    assert_eq!(select(&shown, "#chart svg.c path.c-line").len(), 100);
    assert_eq!(select(&shown, "#chart svg.c .c-rest path").len(), 88);
    assert_eq!(select(&shown, "#chart .lines-key li").len(), 12);
    assert_eq!(select(&shown, "#variants .variant svg").len(), 12);
    assert!(select(&shown, "#runs").is_empty());
    let links = select(&shown, "#variants td a.id");
    assert_eq!(links.len(), 100);
}

#[test]
fn folds_have_mean_and_deviation_of_those_that_completed() {
    let mut made = folds();
    let of = page(&made);
    let shown = drawn(&of);
    assert!(select(&shown, "#variants, #plan").is_empty());
    let heads = texts(&shown, "#runs thead th");
    assert_eq!(heads[..4], ["Run", "Fold", "Phase", "Epochs"]);
    assert_eq!(
        texts(&shown, "#runs tfoot th"),
        ["Mean of 3 completed", "Deviation"]
    );
    let aucs: Vec<f64> = made.1[..3]
        .iter()
        .map(|r| r.epochs[11].validation.auc.unwrap())
        .collect();
    let mean = aucs.iter().sum::<f64>() / 3.0;
    let deviation = (aucs.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let foot = texts(&shown, "#runs tfoot td:nth-child(2)");
    assert_eq!(foot, [format!("{mean:.3}"), format!("{deviation:.3}")]);
    assert_eq!(select(&shown, "#head a.danger").len(), 1);
    assert_eq!(texts(&shown, "#head .badge"), ["under way"]);
    assert_eq!(texts(&shown, "#figures .value")[1], format!("{mean:.3}"));
    assert!(!heads.contains(&"Reason".to_owned()), "{heads:?}");

    // One that was removed keeps its place.
    let (group_of, runs) = &made;
    let mut rows: Vec<_> = runs
        .iter()
        .map(|run| Some((run, data::row(run, None))))
        .collect();
    rows[4] = None;
    let no = Err("lr-g30 belongs to ann".to_owned());
    let gone = GroupPage::of(group_of, &rows, false, no);
    let shown = drawn(&gone);
    let row = texts(&shown, "#runs tbody tr:last-child > *");
    assert_eq!(row[..3], ["lr.f5-35", "5", "removed"]);
    assert!(select(&shown, "#runs tbody tr:last-child a").is_empty());
    assert!(select(&shown, "#head a.danger").is_empty());
    assert!(texts(&shown, "#head .actions")[0].contains("belongs to ann"));

    for run in &mut made.1 {
        run.phase = Core::Completed;
    }
    let ended = page(&made);
    assert!(!ended.may_cancel, "there is nothing left to cancel");
    assert_eq!(ended.row.state, GroupState::Completed);
}

#[test]
fn the_state_of_a_group_follows_from_its_runs_and_its_selection() {
    let (group_of, mut runs) = folds();
    let state = |runs: &[Run], deciding| {
        let runs: Vec<Option<&Run>> = runs.iter().map(Some).collect();
        GroupRow::of(&group_of, &runs, deciding).state
    };
    assert_eq!(state(&runs, false), GroupState::UnderWay);
    runs[3].phase = Core::Paused;
    assert_eq!(state(&runs, false), GroupState::Queued);
    runs[4].phase = Core::Cancelled;
    assert_eq!(state(&runs, true), GroupState::Deciding);
    assert_eq!(state(&runs, false), GroupState::Paused);
    // What the selection has stopped waits for nobody.
    runs[3].group_pause = Some(GroupPause {
        rung: None,
        reason: "stopped early".into(),
    });
    assert_eq!(state(&runs, false), GroupState::Ended, "one was cancelled");
    runs[4].phase = Core::Completed;
    assert_eq!(state(&runs, false), GroupState::Completed);
}
