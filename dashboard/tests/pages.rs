//! Pages as a browser's parser sees them: hostile text is text, every page keeps the policy, tables and forms have their names,
//! long lists stay small.

mod data;

use std::time::{Duration, Instant};

use data::NOW;
use fovea_dashboard::model::{Overview, Phase, Scored, WorkerList, WorkerState};
use fovea_dashboard::page::{
    audit, compare, confirm_cancel, confirm_cancel_group, datasets, group, groups, login,
    may_not_submit, message, overview, run, runs, submit, workers,
};
use fovea_dashboard::{Here, SCRIPT, STYLE, Sheet, document};
use scraper::{ElementRef, Html, Selector};

fn select<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

fn text(element: &ElementRef) -> String {
    element.text().collect()
}

fn parsed(sheet: &Sheet) -> Html {
    Html::parse_document(&document(&data::shell(Here::Runs, Some("/live/")), sheet))
}

/// Every page with everything that it can show.
fn all() -> Vec<(&'static str, Sheet)> {
    let training = data::run_page(&data::training(7, 7));
    let audited = training.audit.clone().unwrap();
    let mut bare = data::run_page(&data::run(9, 0));
    (bare.losses, bare.events, bare.workers, bare.audit) = Default::default();
    bare.scored = Scored::Missing("No epoch was evaluated yet.".into());
    vec![
        ("overview", overview(&data::overview(), NOW)),
        ("nothing", overview(&Overview::default(), NOW)),
        ("runs", runs(&data::runs(), NOW)),
        ("no runs", runs(&Default::default(), NOW)),
        ("run", run(&training, "c", NOW)),
        ("new run", run(&bare, "c", NOW)),
        (
            "evaluation",
            run(&data::run_page(&data::evaluation(10)), "c", NOW),
        ),
        ("groups", groups(&data::groups::list(), NOW)),
        ("no groups", groups(&Default::default(), NOW)),
        (
            "sweep",
            group(&data::groups::page(&data::groups::sweep(3, 3)), NOW),
        ),
        (
            "four keys",
            group(&data::groups::page(&data::groups::four_keys()), NOW),
        ),
        (
            "one run each",
            group(&data::groups::page(&data::groups::sweep(7, 0)), NOW),
        ),
        (
            "folds",
            group(&data::groups::page(&data::groups::folds()), NOW),
        ),
        ("cancel group", confirm_cancel_group("lr-g30", "c")),
        ("workers", workers(&data::workers())),
        ("no workers", workers(&Default::default())),
        ("datasets", datasets(&data::datasets())),
        ("no datasets", datasets(&Default::default())),
        (
            "compare",
            compare(&data::compared(), &["b-1 is gone".into()]),
        ),
        ("nothing to compare", compare(&[], &[])),
        (
            "submit",
            submit("c", Some("name = 1"), Some("run file:1: name: is a number")),
        ),
        ("not to submit", may_not_submit("viewer")),
        ("login", login("c", "/", Some("no"))),
        ("message", message("No", "why", Some("/runs"))),
        ("cancel", confirm_cancel("retina-7", "c")),
        ("audit", audit("retina-7", &audited)),
    ]
}

#[test]
fn every_page_keeps_the_policy_and_can_be_read_by_ear_and_keyboard() {
    for (name, sheet) in all() {
        let page = parsed(&sheet);
        assert!(page.errors.is_empty(), "{name}: {:?}", page.errors);
        // What `default-src 'self'` forbids.
        for forbidden in [
            "[style]",
            "style",
            "script:not([src])",
            "[onclick]",
            "[onload]",
            "iframe",
            "object",
        ] {
            assert!(select(&page, forbidden).is_empty(), "{name}: {forbidden}");
        }
        for element in select(&page, "[src], [href], [action]") {
            for attribute in ["src", "href", "action"] {
                let Some(path) = element.attr(attribute) else {
                    continue;
                };
                assert!(
                    path.starts_with('/') && !path.starts_with("//") || path == "#main",
                    "{name}: {path}"
                );
            }
        }
        assert_eq!(select(&page, "h1").len(), 1, "{name}");
        assert_eq!(select(&page, "main").len(), 1, "{name}");
        assert!(!text(&select(&page, "title")[0]).is_empty());
        let ids: Vec<&str> = select(&page, "[id]")
            .iter()
            .filter_map(|e| e.attr("id"))
            .collect();
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "{name}: {ids:?}");
        for part in &sheet.parts {
            let found = select(&page, &format!("main > #{}", part.id));
            assert_eq!(found.len(), 1, "{name}: {}", part.id);
        }
        for table in select(&page, "table") {
            let row = Selector::parse("tbody tr").unwrap();
            let head = Selector::parse("th[scope]").unwrap();
            for row in table.select(&row) {
                assert!(
                    row.select(&head).next().is_some(),
                    "{name}: a row without a head: {}",
                    text(&row)
                );
            }
        }
        for field in select(&page, "input:not([type=hidden]), textarea") {
            let id = field.attr("id").unwrap_or_default();
            let labelled = field.attr("aria-label").is_some()
                || !select(&page, &format!("label[for='{id}']")).is_empty();
            assert!(labelled, "{name}: {}", field.html());
        }
        for form in select(&page, "form[method=post]") {
            let csrf = Selector::parse("input[name=csrf]").unwrap();
            assert!(
                form.select(&csrf).next().is_some(),
                "{name}: a form without a token"
            );
        }
        for image in select(&page, "svg:not([aria-hidden]):not(.swatch)") {
            assert!(
                image.attr("aria-label").is_some(),
                "{name}: {}",
                image.html()
            );
        }
        for bar in select(&page, "progress") {
            assert!(bar.attr("aria-label").is_some(), "{name}");
        }
    }
    // And what pages load loads nothing.
    for (what, text) in [("style", STYLE), ("script", SCRIPT)] {
        for outside in ["http:", "https:", "url(", "@import", "//cdn"] {
            assert!(!text.contains(outside), "{what}: {outside}");
        }
    }
}

#[test]
fn hostile_text_is_text() {
    const HOSTILE: &str = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;";
    let mut row = data::row(&data::training(7, 2), None);
    row.id = HOSTILE.into();
    row.reason = HOSTILE.into();
    row.dataset = HOSTILE.into();
    row.owner = Some(HOSTILE.into());
    row.group = Some(HOSTILE.into());
    let mut worker = data::worker(1, WorkerState::LeftOut);
    for text in [
        &mut worker.id,
        &mut worker.reason,
        &mut worker.host,
        &mut worker.device,
        &mut worker.address,
    ] {
        *text = HOSTILE.into();
    }
    worker.run = Some(HOSTILE.into());
    let mut page = data::run_page(&data::training(7, 2));
    page.row = row.clone();
    page.spec_text = HOSTILE.into();
    page.workers = vec![worker.clone()];
    page.may_not = Some(HOSTILE.into());
    page.events[0].text = HOSTILE.into();
    page.events[0].event = HOSTILE.into();
    page.checkpoints[0].sha256 = HOSTILE.into();
    page.audit.as_mut().unwrap().problems = vec![HOSTILE.into()];
    page.scored = Scored::Missing(HOSTILE.into());
    let mut sets = data::datasets();
    let set = &mut sets.datasets[0];
    for text in [
        &mut set.name,
        &mut set.preprocessing,
        &mut set.scale,
        &mut set.digest,
    ] {
        *text = HOSTILE.into();
    }
    set.problem = Some(HOSTILE.into());
    set.used_by = vec![HOSTILE.into()];
    let mut compared = data::compared();
    compared[0].row = row.clone();
    let mut list = data::runs();
    list.runs[0] = row.clone();
    let mut sweep = data::groups::page(&data::groups::sweep(2, 2));
    sweep.row.id = HOSTILE.into();
    sweep.row.datasets = vec![HOSTILE.into()];
    sweep.row.owner = Some(HOSTILE.into());
    sweep.row.best_label = HOSTILE.into();
    sweep.may_not = Some(HOSTILE.into());
    sweep.keys = vec![HOSTILE.into()];
    for variant in &mut sweep.variants {
        (variant.label, variant.settings) = (HOSTILE.into(), vec![HOSTILE.into()]);
        variant.dropped = Some(HOSTILE.into());
    }
    for member in &mut sweep.members {
        member.id = HOSTILE.into();
        member.row = Some(row.clone());
    }
    let mut unnamed = sweep.clone();
    unnamed.keys.clear();
    let mut group_list = data::groups::list();
    group_list.groups[0] = sweep.row.clone();
    let view = Overview {
        live: vec![row.clone()],
        ended: vec![row],
        problems: vec![HOSTILE.into()],
        ..Overview::default()
    };
    let found = WorkerList {
        workers: vec![worker],
        all: 1,
        page: 1,
        pages: 1,
    };
    for (name, sheet) in [
        ("overview", overview(&view, NOW)),
        ("runs", runs(&list, NOW)),
        ("run", run(&page, HOSTILE, NOW)),
        ("groups", groups(&group_list, NOW)),
        ("group", group(&sweep, NOW)),
        ("group without keys", group(&unnamed, NOW)),
        ("cancel group", confirm_cancel_group(HOSTILE, HOSTILE)),
        ("workers", workers(&found)),
        ("datasets", datasets(&sets)),
        ("compare", compare(&compared, &[HOSTILE.into()])),
        ("submit", submit(HOSTILE, Some(HOSTILE), Some(HOSTILE))),
        ("login", login(HOSTILE, HOSTILE, Some(HOSTILE))),
        ("message", message(HOSTILE, HOSTILE, Some("/"))),
    ] {
        let page = parsed(&sheet);
        assert_eq!(select(&page, "script").len(), 1, "{name}");
        assert!(select(&page, "img, [onerror]").is_empty(), "{name}");
        let shown: String = page.root_element().text().collect();
        assert!(shown.contains("<script>alert(1)</script>"), "{name}");
    }
}

#[test]
fn a_run_shows_its_curves_its_best_checkpoint_and_what_may_be_done() {
    let page = data::run_page(&data::training(7, 7));
    let shown = parsed(&run(&page, "secret", NOW));
    let best = select(&shown, "tr.best");
    assert_eq!(best.len(), 1);
    let charts = select(&shown, "#curves svg");
    let titles: Vec<&str> = charts.iter().filter_map(|c| c.attr("aria-label")).collect();
    assert_eq!(titles, ["Loss", "AUC and kappa", "Learning rate"]);
    let loss = select(&shown, "#curves path.c-faint[d^='M']");
    let points = loss[0].attr("d").unwrap().matches('L').count() + 1;
    assert!((400..=500).contains(&points), "{points}");
    let buttons: Vec<String> = select(&shown, ".actions button, .actions a")
        .iter()
        .map(text)
        .collect();
    assert_eq!(
        buttons,
        ["Report", "Pause", "Cancel", "low", "normal", "high"]
    );
    let forms = select(&shown, ".actions form");
    let secrets = select(&shown, ".actions input[value=secret]");
    assert_eq!((forms.len(), secrets.len()), (2, 2));
    let pressed = select(&shown, ".actions button[aria-pressed=true]");
    assert_eq!(pressed.len(), 1, "the priority in force");
    assert_eq!(text(&pressed[0]), page.row.priority.as_str());
    assert!(pressed[0].attr("disabled").is_some());
    let tiles: String = select(&shown, "#figures dt")
        .iter()
        .map(text)
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(tiles, "Progress Time left Loss AUC Images a second");
    let progress = select(&shown, "#figures progress")[0].attr("value");
    assert_eq!(progress, Some("611"), "807 of 1,320 steps");

    let mut other = page;
    other.actions = Default::default();
    other.may_not = Some("retina-7 belongs to ann, and bob may change only its own runs".into());
    let shown = parsed(&run(&other, "secret", NOW));
    let left: Vec<String> = select(&shown, ".actions button, .actions a")
        .iter()
        .map(text)
        .collect();
    assert_eq!(left, ["Report"], "to look at it changes nothing");
    assert!(text(&select(&shown, ".actions")[0]).contains("belongs to ann"));
}

#[test]
fn a_waiting_run_says_why() {
    let shown = parsed(&overview(&data::overview(), NOW));
    let waiting = select(&shown, "#waiting tbody tr, #paused tbody tr");
    let why: Vec<String> = waiting.iter().map(text).collect();
    assert!(why[0].contains("needs 2 workers, and 1 is idle"), "{why:?}");
    assert!(why[1].contains("a person paused it"), "{why:?}");
}

#[test]
fn paused_runs_are_folded_and_the_queue_is_first() {
    let mut view = data::overview();
    let paused: Vec<_> = view
        .live
        .iter()
        .filter(|r| r.phase == Phase::Paused)
        .cloned()
        .collect();
    view.live.splice(0..0, vec![paused[0].clone(); 60]);
    let shown = parsed(&overview(&view, NOW));
    assert_eq!(text(&select(&shown, "#waiting h2")[0]), "Waiting (1)");
    assert_eq!(select(&shown, "#waiting > .scroll tbody tr").len(), 1);
    let folded = select(&shown, "#waiting details#paused:not([open])");
    assert!(
        text(&folded[0]).starts_with("Paused (61)"),
        "{}",
        text(&folded[0])
    );
    assert_eq!(select(&shown, "#paused tbody tr").len(), 25);
    let under = text(&select(&shown, "#figures .about")[0]);
    assert_eq!(under, "1 waiting, 61 paused");
}

/// A cluster of 200 runs and 200 workers: pages stay below 300 KB, and drawing them takes a small part of 100 ms.
#[test]
fn long_lists_stay_small() {
    let many: Vec<_> = (0..200u64)
        .map(|n| data::row(&data::training(n + 1, 12), Some("for workers")))
        .collect();
    let view = Overview {
        live: many.clone(),
        ended: many[..10].to_vec(),
        ..data::overview()
    };
    let mut list = data::runs();
    list.runs = many[..50].to_vec();
    let found = WorkerList {
        workers: (0..100)
            .map(|n| data::worker(n, WorkerState::LeftOut))
            .collect(),
        all: 200,
        page: 1,
        pages: 2,
    };
    let mut page = data::run_page(&data::training(7, 12));
    page.workers = found.workers.clone();
    let sweep = data::groups::page(&data::groups::sweep(10, 5));
    let single = data::groups::page(&data::groups::sweep(50, 0));
    let mut group_list = data::groups::list();
    group_list.groups = vec![single.row.clone(); 20];
    for (name, make) in [
        (
            "groups",
            &(|| groups(&group_list, NOW)) as &dyn Fn() -> Sheet,
        ),
        ("sweep of 20 x 5", &|| group(&sweep, NOW)),
        ("sweep of 100 x 1", &|| group(&single, NOW)),
        ("overview", &|| overview(&view, NOW)),
        ("runs", &|| runs(&list, NOW)),
        ("workers", &|| workers(&found)),
        ("run", &|| run(&page, "c", NOW)),
        ("compare", &|| compare(&data::compared(), &[])),
    ] {
        let begun = Instant::now();
        let text = document(&data::shell(Here::Runs, None), &make());
        println!("{name}: {} bytes in {:?}", text.len(), begun.elapsed());
        assert!(text.len() < 300_000, "{name} has {} bytes", text.len());
        // Far above what it takes, so that a busy machine fails nothing.
        assert!(begun.elapsed() < Duration::from_secs(2), "{name}");
    }
}

#[test]
fn the_first_epochs_of_a_long_run_fill_a_part_of_the_chart() {
    let ends = |done, epochs| -> Vec<u32> {
        let mut shown = data::run_page(&data::training(7, done));
        shown.row.epochs = epochs;
        let page = parsed(&run(&shown, "c", NOW));
        let charts = select(&page, "#curves svg.c");
        let last = charts.iter().map(|chart| {
            let selector = Selector::parse("text").unwrap();
            let ticks = chart.select(&selector).map(|e| text(&e));
            ticks
                .filter_map(|tick| tick.replace(',', "").parse().ok())
                .max()
                .unwrap()
        });
        last.collect()
    };
    // Loss, quality, and the schedule, which is known to the end.
    let found = ends(5, 500);
    assert!(
        found[..2].iter().all(|end| (15..=24).contains(end)) && found[2] == 500,
        "{found:?}"
    );
    assert_eq!(ends(7, 8)[..2], [8, 8]);
}
