//! What a report's page holds.

#[allow(dead_code)]
#[path = "../examples/screening/data.rs"]
mod data;

use std::sync::LazyLock;

use fovea_evaluation::{Draws, Sample, Wanted, choose};
use fovea_report::{
    DatasetFacts, Duplicates, Labels, Patients, PointsFrom, Report, html, html_from,
};
use scraper::{ElementRef, Html, Selector};

/// Evaluated once: the intervals take a while.
static EXAMPLE: LazyLock<Report> = LazyLock::new(data::report);

fn page(report: &Report) -> Html {
    Html::parse_document(&html(report))
}

fn all<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    let selector = Selector::parse(selector).unwrap();
    page.select(&selector).collect()
}

/// The text, with each run of white space as one space.
fn text(element: ElementRef) -> String {
    let text: String = element.text().collect::<Vec<_>>().join(" ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn texts(page: &Html, selector: &str) -> Vec<String> {
    all(page, selector).into_iter().map(text).collect()
}

/// As the example, but of these photographs only.
fn judged_on(samples: &[Sample]) -> Report {
    let points = choose(&data::checked(samples), Wanted::default());
    let draws = Draws {
        number: 200,
        seed: 0,
    };
    let part = data::judged("Test", samples, &points, draws, PointsFrom::Same, "");
    Report {
        results: vec![part],
        ..EXAMPLE.clone()
    }
}

fn facts(report: &mut Report) -> &mut DatasetFacts {
    report.dataset.facts.as_mut().unwrap()
}

fn sample(patient: u32, grade: u8) -> Sample {
    let mut probabilities = vec![0.1; 5];
    probabilities[usize::from(grade)] = 0.6;
    Sample {
        patient: patient.to_string(),
        eye: None,
        grade,
        label: grade.into(),
        probabilities,
    }
}

/// A report of a run of which nothing is known yet.
fn bare() -> Report {
    let mut report = EXAMPLE.clone();
    report.results.clear();
    report.epochs.clear();
    report.learning_rates.clear();
    report.test_uses.clear();
    report.warnings.clear();
    report.worst_errors = None;
    report.run.fingerprint = None;
    report.run.submitted_by = None;
    report.run.cost.images_per_s = None;
    report.run.cost.hours = None;
    report.judged.epoch = None;
    facts(&mut report).splits.clear();
    report
}

/// A report of a run whose data set was removed, and which was never judged on another.
fn without_dataset() -> Report {
    let mut report = bare();
    report.dataset.facts = None;
    report.epochs = EXAMPLE.epochs.clone();
    report
}

#[test]
fn as_a_page_of_a_server_it_leads_back() {
    let page = Html::parse_document(&html_from(&EXAMPLE, "/runs/dr-1"));
    let links = |page: &Html| -> Vec<String> {
        let links = all(page, "nav.back a");
        links
            .iter()
            .map(|a| a.attr("href").unwrap().to_owned())
            .collect()
    };
    assert_eq!(links(&page), ["/runs/dr-1", "?file"]);
    assert!(links(&Html::parse_document(&html(&EXAMPLE))).is_empty());
}

#[test]
fn a_removed_data_set_leaves_out_what_it_would_say() {
    let page = page(&without_dataset());
    let whole = text(page.root_element());
    for said in [
        "the labels of its photographs went with it; the curves below are of its validation",
        "its splits, leak check and preprocessing are left out",
    ] {
        assert!(whole.contains(said), "{said}");
    }
    for left_out in ["Leak check", "Preprocessing", "Photographs of each grade"] {
        assert!(!whole.contains(left_out), "{left_out}");
    }
    assert!(!all(&page, "#training svg").is_empty());
    // Judged on another data set, the figures are shown.
    let mut judged = EXAMPLE.clone();
    judged.dataset.facts = None;
    let page = self::page(&judged);
    assert_eq!(texts(&page, ".tile-value").len(), 4);
}

#[test]
fn every_page_is_right_html() {
    let healthy: Vec<Sample> = (0..6).map(|patient| sample(patient, 0)).collect();
    for report in [
        EXAMPLE.clone(),
        judged_on(&healthy),
        bare(),
        without_dataset(),
    ] {
        let page = page(&report);
        assert_eq!(page.errors, Vec::<String>::new());
        assert_eq!(texts(&page, "h1"), [report.run.id.as_str()]);
        assert!(text(page.root_element()).contains("not a medical device"));
    }
}

#[test]
fn nothing_is_loaded_and_nothing_runs() {
    let mut report = EXAMPLE.clone();
    let errors = report.worst_errors.as_mut().unwrap();
    errors.all[0].heat_map = Some(b"\x89PNG\r\n\x1a\n and so on".to_vec());
    let written = html(&report);
    for what in [
        "http:",
        "https:",
        "@import",
        "url(",
        "<script",
        "javascript:",
    ] {
        assert!(!written.contains(what), "{what}");
    }
    let page = Html::parse_document(&written);
    assert!(all(&page, "script, link, iframe, object, embed, form, base").is_empty());
    for element in all(&page, "[src]") {
        assert!(
            element
                .attr("src")
                .unwrap()
                .starts_with("data:image/png;base64,iVBORw0KGgo")
        );
    }
    assert_eq!(all(&page, "[src]").len(), 1);
    for element in all(&page, "[href]") {
        let target = element.attr("href").unwrap();
        assert!(target.starts_with('#'), "{target}");
        assert_eq!(all(&page, target).len(), 1, "{target} is on the page");
    }
    let policy = all(&page, "meta[http-equiv=Content-Security-Policy]");
    assert!(
        policy[0]
            .attr("content")
            .unwrap()
            .starts_with("default-src 'none'")
    );
}

#[test]
fn what_comes_from_data_stays_text() {
    let evil = "<script>alert(\"1\")</script>'><img src=x onerror=alert(1)>";
    let mut report = EXAMPLE.clone();
    report.run.name = evil.into();
    report.run.id = evil.into();
    report.run.spec = format!("</code></pre>{evil}");
    report.run.submitted_by = Some(evil.into());
    report.run.reason = Some(evil.into());
    report.judged.chosen = evil.into();
    report.dataset.name = evil.into();
    facts(&mut report).preprocessing = vec![evil.into()];
    facts(&mut report).splits[0].name = evil.into();
    report.labels.positive = evil.into();
    report.labels.classes[0] = evil.into();
    report.results[0].title = evil.into();
    report.results[0].about = Some(evil.into());
    report.results[0].points_from = PointsFrom::Other(evil.into());
    report.test_uses[0].by = Some(evil.into());
    report.test_uses[0].scored = evil.into();
    report.run.id = evil.into();
    report.run.group = Some(evil.into());
    report.warnings = vec![evil.into()];
    let fingerprint = report.run.fingerprint.as_mut().unwrap();
    fingerprint.device = evil.into();
    let errors = report.worst_errors.as_mut().unwrap();
    errors.part = evil.into();
    errors.all[0].image = evil.into();
    errors.all[0].heat_map = Some(vec![1]);
    errors.all[1].quality = Some(evil.into());
    let page = page(&report);
    assert_eq!(page.errors, Vec::<String>::new());
    assert!(all(&page, "script, [onerror]").is_empty());
    assert_eq!(all(&page, "img").len(), 1);
    let expected = evil.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(texts(&page, "h1"), [expected.as_str()]);
    assert_eq!(texts(&page, ".errors .file")[0], expected);
    assert!(texts(&page, "pre")[0].contains(&expected));
}

#[test]
fn a_run_names_its_group_and_each_use_of_a_test_part() {
    let mut report = EXAMPLE.clone();
    assert!(!texts(&page(&report), ".about")[0].contains("group"));
    report.run.group = Some("dr-g7".into());
    let mut other = report.test_uses[0].clone();
    other.dataset = "others".into();
    other.scored = "all of others".into();
    report.test_uses = vec![report.test_uses[0].clone(), other.clone(), other];
    let page = page(&report);
    assert!(texts(&page, ".about")[0].contains("Run of the group dr-g7"));
    assert!(texts(&page, "#data td").contains(&"all of others".to_owned()));
    let warnings = texts(&page, ".warnings li");
    let said = |text: &str| warnings.iter().any(|warning| warning.starts_with(text));
    assert!(
        said("The test part of others was used 2 times."),
        "{warnings:?}"
    );
    assert!(!said("The test part was used"), "{warnings:?}");
}

/// The figures of the head, of the tables and of the charts are those of the data.
#[test]
fn figures_are_those_of_the_data() {
    let page = page(&EXAMPLE);
    let part = &EXAMPLE.results[0];
    let e = &part.evaluated;
    let at = &e.points[0];
    let percent = |value: f64| format!("{:.1} %", 100.0 * value);
    let tiles = texts(&page, ".tile-value");
    let (sensitivity, specificity) = (at.sensitivity.unwrap(), at.specificity.unwrap());
    let expected = [
        format!("{:.3}", e.auc.unwrap().value),
        percent(sensitivity.value),
        percent(specificity.value),
        format!("{:.3}", e.kappa.unwrap().value),
    ];
    assert_eq!(tiles.map_spaces(), expected);
    let auc = e.auc.unwrap();
    assert_eq!(
        texts(&page, ".tile-range .nowrap")[0],
        format!("{:.3}–{:.3}", auc.low, auc.high)
    );
    let table = all(&page, "table.points")[0];
    let rows: Vec<String> = table
        .select(&Selector::parse("tr").unwrap())
        .map(text)
        .collect();
    for (point, number) in e.points.iter().zip(1..) {
        let cell = |row: usize| {
            let row = table
                .select(&Selector::parse("tr").unwrap())
                .nth(row)
                .unwrap();
            let cell = row
                .select(&Selector::parse("th, td").unwrap())
                .nth(number)
                .unwrap();
            text(cell)
        };
        for (row, estimate) in [
            (2, point.sensitivity),
            (3, point.specificity),
            (4, point.ppv),
            (5, point.npv),
        ] {
            let e = estimate.unwrap();
            let expected = format!(
                "{} {:.1}–{:.1}",
                percent(e.value),
                100.0 * e.low,
                100.0 * e.high
            );
            assert_eq!(cell(row).replace('\u{202f}', " "), expected, "{rows:?}");
        }
        let people: u64 = (7..11).map(|row| cell(row).parse::<u64>().unwrap()).sum();
        assert_eq!(people, 1000);
    }
    let confusion: Vec<u64> = texts(&page, "#part-0 .c-cell b")
        .iter()
        .map(|cell| cell.replace(',', "").parse().unwrap())
        .collect();
    assert_eq!(confusion, e.confusion.concat());
    let reliability: u64 = e.reliability.iter().map(|bin| bin.samples).sum();
    let counts = texts(&page, "#part-0 .c-count");
    let drawn = counts
        .iter()
        .map(|count| count.replace(',', "").parse::<u64>().unwrap());
    assert_eq!(drawn.sum::<u64>(), reliability);
    let fellow = part.fellow_eye.as_ref().unwrap().auc.unwrap();
    let beside = texts(&page, "#part-0 + section .fellow, #part-0 .fellow");
    assert!(
        beside[0].contains(&format!("{:.3}", fellow.value)),
        "{beside:?}"
    );
    for split in &EXAMPLE.dataset.facts.as_ref().unwrap().splits {
        let patients = split.patients.unwrap();
        assert!(
            texts(&page, "#data td")
                .iter()
                .any(|cell| cell.replace(',', "") == patients.to_string())
        );
    }
    assert!(texts(&page, "#data .checks .good").len() == 2);
}

trait Spaces {
    fn map_spaces(self) -> Vec<String>;
}

impl Spaces for Vec<String> {
    fn map_spaces(self) -> Vec<String> {
        self.into_iter()
            .map(|text| text.replace('\u{202f}', " "))
            .collect()
    }
}

#[test]
fn calls_by_grade_agree_with_the_operating_points() {
    for part in &EXAMPLE.results {
        for at in &part.evaluated.points {
            let called = |ill: bool| -> u64 {
                let grades = at.grades.iter();
                let grades = grades.filter(|calls| (calls.grade >= 2) == ill);
                grades.map(|calls| calls.called).sum()
            };
            assert_eq!(called(true), at.true_positives);
            assert_eq!(called(false), at.false_positives);
        }
    }
}

#[test]
fn what_is_not_defined_is_a_dash() {
    let healthy: Vec<Sample> = (0..8).map(|patient| sample(patient / 2, 0)).collect();
    let page = page(&judged_on(&healthy));
    let tiles = texts(&page, ".tile-value");
    assert_eq!(
        [&tiles[0], &tiles[1], &tiles[3]],
        ["–", "–", "–"],
        "{tiles:?}"
    );
    assert_ne!(tiles[2], "–");
    let points = texts(&page, "table.points");
    assert!(points[0].contains("Sensitivity –"), "{points:?}");
    let whole = text(page.root_element());
    assert!(whole.contains("no curve: all labels are of one kind"));
    assert!(whole.contains("all photographs are negative; most figures are not defined"));
    for never in ["NaN", "inf", "None", "Some("] {
        assert!(!html(&judged_on(&healthy)).contains(never), "{never}");
    }
    // An interval that is no bootstrap's says so.
    assert!(whole.contains('†') && whole.contains("Wilson's 95 % interval"));
}

#[test]
fn tables_and_charts_can_be_read_without_being_seen() {
    let page = page(&EXAMPLE);
    for table in all(&page, "table") {
        let columns = table
            .select(&Selector::parse("thead th[scope]").unwrap())
            .count();
        assert!(columns > 0, "{}", table.html());
    }
    let charts = all(&page, "svg");
    assert!(charts.len() > 15);
    for chart in charts {
        for what in ["title", "desc"] {
            let selector = Selector::parse(what).unwrap();
            let said = chart.select(&selector).next().map(text);
            assert!(
                said.is_some_and(|said| !said.is_empty()),
                "{what} of {}",
                chart.html()
            );
        }
        assert_eq!(chart.attr("role"), Some("img"));
    }
    for image in all(&page, "img") {
        assert!(image.attr("alt").is_some());
    }
    // Every figure of a part says on what it was computed.
    for figure in texts(&page, "section[id^=part] figure figcaption") {
        assert!(
            figure.contains("1,800") || figure.contains("1,748") || figure.contains("One dot"),
            "{figure}"
        );
    }
}

#[test]
fn two_classes_and_no_eyes_and_no_grades_are_reported() {
    let mut report = EXAMPLE.clone();
    report.results.truncate(1);
    report.labels = Labels {
        classes: vec!["no referable DR".into(), "referable DR".into()],
        positive_class: 1,
        ..report.labels
    };
    let part = &mut report.results[0];
    part.evaluated.confusion = vec![vec![5, 1], vec![2, 7]];
    part.evaluated.recall.truncate(2);
    part.fellow_eye = None;
    let points = part.evaluated.points.iter_mut();
    points.for_each(|at| at.grades.clear());
    let page = page(&report);
    let whole = text(page.root_element());
    assert!(whole.contains("Recall by class") && !whole.contains("Recall by grade"));
    assert!(whole.contains("No patient of this part has photographs of both eyes"));
    assert!(!whole.contains("Which grades are referred"));
    assert_eq!(all(&page, "#comparison").len(), 0);
}

type Change = fn(&mut Report);

#[test]
fn what_spoils_a_result_is_a_warning() {
    let said = |change: Change| {
        let mut report = EXAMPLE.clone();
        report.warnings.clear();
        change(&mut report);
        texts(&page(&report), ".warnings li")
            .join("\n")
            .replace('\u{a0}', " ")
    };
    assert_eq!(said(|_| {}), "");
    let all: [(Change, &str); 6] = [
        (
            |r| facts(r).leak_check.patients = Patients::OnSeveralSides(1),
            "1 patient is on more than one side of the split",
        ),
        (
            |r| facts(r).leak_check.patients = Patients::Unknown,
            "It is not known whose photographs they are",
        ),
        (
            |r| {
                facts(r).leak_check.duplicates = Some(Duplicates {
                    exact: 3,
                    near: None,
                    found: 3,
                })
            },
            "3 photographs are on more than one side of the split, equal to the byte",
        ),
        (
            |r| {
                facts(r).leak_check.duplicates = Some(Duplicates {
                    exact: 0,
                    near: Some(2),
                    found: 2,
                })
            },
            "2 photographs are on more than one side of the split in nearly the same form",
        ),
        (
            |r| r.results.swap(0, 1),
            "Validation: the operating points were chosen on the photographs on which they are reported",
        ),
        (
            |r| r.test_uses = vec![r.test_uses[0].clone(); 3],
            "The test part was used 3 times",
        ),
    ];
    for (change, expected) in all {
        let said = said(change);
        assert!(
            said.starts_with(expected) && said.lines().count() == 1,
            "{said}"
        );
    }
}
