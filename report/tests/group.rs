//! What the page of a group holds.

#[allow(dead_code)]
#[path = "../examples/screening/data.rs"]
mod data;

use fovea_report::charts::Unit;
use fovea_report::{GroupReport, GroupRun, PointsFrom, SpreadRow, group_html};
use scraper::{ElementRef, Html, Selector};

fn all<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    let selector = Selector::parse(selector).unwrap();
    page.select(&selector).collect()
}

/// The text, with each run of white space as one space.
fn text(element: ElementRef) -> String {
    let text: String = element.text().collect::<Vec<_>>().join(" ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn example() -> GroupReport {
    let report = data::report();
    let runs = report.results.iter().zip(1..).map(|(part, fold)| GroupRun {
        id: format!("dr.f{fold}-{}", fold + 1),
        title: format!("fold {fold} of 3"),
        step: 40,
        sensitivity: part.evaluated.points[0].sensitivity,
        specificity: part.evaluated.points[0].specificity,
        evaluated: part.evaluated.clone(),
    });
    let mut together = report.results[0].clone();
    together.title = "All folds together".into();
    together.points_from = PointsFrom::Fixed;
    GroupReport {
        id: "dr-g1".into(),
        name: "dr <script>alert(1)</script>".into(),
        differing: "3 folds".into(),
        submitted_at_ms: 1_795_774_500_000,
        submitted_by: Some("ann".into()),
        dataset: "eyes".into(),
        judged: "what each run held out, newest checkpoints".into(),
        labels: report.labels.clone(),
        runs: runs.collect(),
        left_out: vec!["dr.f9-10".into()],
        spread: vec![
            SpreadRow {
                name: "AUC".into(),
                unit: Unit::Plain,
                runs: 3,
                mean: 0.8877,
                deviation: Some(0.0042),
                lowest: 0.883,
                highest: 0.891,
            },
            SpreadRow {
                name: "accuracy".into(),
                unit: Unit::Percent,
                runs: 1,
                mean: 0.9,
                deviation: None,
                lowest: 0.9,
                highest: 0.9,
            },
        ],
        together: vec![together],
        notes: vec!["the deviation is over folds".into()],
        spec: "name = \"dr\"".into(),
        written_at_ms: 1_795_774_500_000,
        written_by: "0.0".into(),
    }
}

#[test]
fn a_group_has_its_spread_each_run_and_all_folds_together() {
    let html = group_html(&example());
    let page = Html::parse_document(&html);
    assert!(all(&page, "script").is_empty(), "a name is text");
    for element in all(&page, "[href], [src]") {
        let to = element.attr("href").or(element.attr("src")).unwrap();
        assert!(to.starts_with('#'), "it loads or links {to}");
    }
    let rows: Vec<String> = all(&page, "#spread tbody tr")
        .into_iter()
        .map(text)
        .collect();
    assert_eq!(rows[0], "AUC 0.888 0.004 0.883 0.891 3");
    assert_eq!(
        rows[1],
        // `text` makes a space of the narrow one.
        "accuracy 90.0 % – 90.0 % 90.0 % 1"
    );
    assert!(text(all(&page, "#spread figcaption")[0]).contains("The deviation is over folds."));
    // No single model scored all folds together, so there is none to screen with.
    assert!(!text(page.root_element()).contains("1,000 people"));
    let captions: Vec<String> = all(&page, "#runs figcaption")
        .into_iter()
        .map(text)
        .collect();
    let from_above_0 = |at: usize| captions[at].contains("The axis does not begin at 0.");
    assert!(from_above_0(0), "{captions:?}");
    let mut below = example();
    let kappa = below.runs[0].evaluated.kappa.as_mut().unwrap();
    (kappa.value, kappa.low) = (-0.1, -0.2);
    let below = group_html(&below);
    let below = Html::parse_document(&below);
    let captions = all(&below, "#runs figcaption")
        .into_iter()
        .map(text)
        .collect::<Vec<_>>();
    assert!(!captions[1].contains("The axis"), "{captions:?}");
    // Four charts of all runs and of all folds together.
    let charts: Vec<String> = all(&page, "#runs svg").into_iter().map(text).collect();
    assert_eq!(charts.len(), 4);
    for chart in &charts {
        for name in ["fold 1 of 3", "fold 2 of 3", "All folds together"] {
            assert!(chart.contains(name), "{chart}");
        }
    }
    let whole = text(all(&page, "body")[0]);
    for words in [
        "dr.f9-10",
        "Research software, not a medical device.",
        "The threshold is 0.5, which was not chosen.",
        "what each run held out, newest checkpoints",
    ] {
        assert!(whole.contains(words), "{words}");
    }
    // Sections that the contents link.
    for link in all(&page, "nav a") {
        let target = link.attr("href").unwrap();
        assert_eq!(all(&page, target).len(), 1, "{target}");
    }
}

/// For a look at it: `GROUP_PAGE=group.html cargo test -p fovea-report --test group`.
#[test]
fn the_page_is_one_small_file() {
    let html = group_html(&example());
    assert!(html.len() < 200_000, "{} bytes", html.len());
    if let Ok(file) = std::env::var("GROUP_PAGE") {
        std::fs::write(file, html).unwrap();
    }
}
