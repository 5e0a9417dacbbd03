//! How a report looks in a browser: nothing is wider than the screen, no two texts of a chart lie on each other, and nothing
//! is loaded.

#[allow(dead_code)]
#[path = "../examples/screening/data.rs"]
mod data;
#[path = "../examples/screening/picture.rs"]
mod picture;

use std::fs;
use std::path::Path;
use std::process::Command;

use scraper::{Html, Selector};
use serde_json::Value;

const WIDTHS: [u32; 5] = [320, 400, 800, 880, 1280];

/// Runs in the page around the report's frames: what it finds in each.
const LOOK: &str = r#"
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, width = frame.clientWidth;
    const name = e => e.tagName + "." + (e.getAttribute("class") || "") + ": " + e.textContent.trim().slice(0, 60);
    const wide = [...page.body.querySelectorAll("*")].filter(e => {
      const box = e.getBoundingClientRect();
      return box.width > 0 && (box.right > width + 0.5 || box.left < -0.5);
    });
    // A cell whose text is wider than itself.
    const cut = [...page.querySelectorAll("td, th, dd, dt, p, li, pre")].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0);
    const clashes = [], outside = [], small = [];
    for (const chart of page.querySelectorAll("svg")) {
      const frame = chart.getBoundingClientRect();
      const texts = [...chart.querySelectorAll("text")].map(e => [e, e.getBoundingClientRect()]);
      texts.forEach(([e, a], i) => {
        if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 2 || a.bottom > frame.bottom + 2) outside.push(name(e));
        const size = parseFloat(getComputedStyle(e).fontSize) * frame.width / chart.viewBox.baseVal.width;
        if (size < SMALLEST) small.push(size.toFixed(1) + " " + name(e));
        for (const [other, b] of texts.slice(i + 1)) {
          // Boxes of texts have room above and below the letters.
          if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
            clashes.push(name(e) + " / " + name(other));
        }
      });
    }
    return {
      width, page: page.documentElement.scrollWidth, wide: wide.map(name), cut: cut.map(name), clashes, outside, small,
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
      images: [...page.images].filter(i => i.complete && i.naturalWidth > 0).length,
      title: page.title, ground: getComputedStyle(page.body).backgroundColor,
    };
  });
  document.body.innerHTML = "";
  document.body.textContent = JSON.stringify(found);
});
"#;

/// Text that is smaller, in pixels, is not read on a phone of 400 points and more.
const SMALLEST: f64 = 9.0;

fn look_at(report: &str, folder: &Path) -> Vec<Value> {
    let report = report.replace('&', "&amp;").replace('"', "&quot;");
    // So high that there is no bar to scroll, which would take from the width.
    let frames: String = WIDTHS
        .iter()
        .map(|width| {
            format!("<iframe style=\"width:{width}px;height:60000px;border:0\" srcdoc=\"{report}\"></iframe>")
        })
        .collect();
    let look = LOOK.replace("SMALLEST", &SMALLEST.to_string());
    let around = folder.join("around.html");
    let text = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><title>around</title><script>{look}</script><body>{frames}"
    );
    fs::write(&around, text).unwrap();
    let output = Command::new("timeout")
        .args([
            "120",
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .args([
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-extensions",
        ])
        .args(["--window-size=1400,1000", "--dump-dom"])
        .arg(format!("file://{}", around.display()))
        .env("HOME", folder)
        .output()
        .expect("timeout(1) runs chromium");
    let dumped = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let page = Html::parse_document(&dumped);
    let body = Selector::parse("body").unwrap();
    let found: String = page.select(&body).next().unwrap().text().collect();
    serde_json::from_str(found.trim()).unwrap_or_else(|e| panic!("{e}: {found:.500}\n{errors}"))
}

#[cfg_attr(not(has_browser), ignore = "needs Chromium: apt-get install chromium")]
#[test]
fn a_report_fits_every_screen() {
    let mut report = data::report();
    // Long names and large numbers are what breaks pages.
    report.results[0].evaluated.confusion[0][0] = 31_234;
    report.results[0].evaluated.confusion[4][1] = 10_888;
    report.results[0].evaluated.reliability[0].samples = 88_702;
    let facts = report.dataset.facts.as_mut().unwrap();
    facts.splits[0].by_grade = [65_343, 6_205, 13_153, 2_087, 1_914];
    report.run.id =
        "a_run_whose_name_is_long_enough_to_be_wider_than_the_screen_of_any_phone".into();
    let errors = report.worst_errors.as_mut().unwrap();
    errors.all[0].image = format!("{}.jpeg", "0123456789abcdef".repeat(6));
    errors.all[1].patient = "f".repeat(80);
    for (number, error) in errors.all.iter_mut().enumerate() {
        error.heat_map = Some(picture::heat_map(number as u64));
    }
    let folder = tempfile::tempdir().unwrap();
    let all = look_at(&fovea_report::html(&report), folder.path());
    assert_eq!(all.len(), WIDTHS.len());
    for (found, width) in all.iter().zip(WIDTHS) {
        assert_eq!(found["width"], width);
        for nothing in ["wide", "cut", "clashes", "outside", "loaded"] {
            assert_eq!(found[nothing], Value::Array(vec![]), "{nothing} at {width}");
        }
        assert_eq!(found["page"], width);
        if width >= 400 {
            assert_eq!(found["small"], Value::Array(vec![]), "at {width}");
        }
        assert_eq!(found["images"], 8);
        assert_eq!(found["title"], format!("{} · Fovea report", report.run.id));
        // The style is applied, though the page forbids all that it does not need.
        assert_eq!(found["ground"], "rgb(244, 246, 248)");
    }
}
