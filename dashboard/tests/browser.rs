//! How pages look in a browser: nothing is wider than the screen, no two texts of a chart lie on each other, text can be told
//! from its ground, nothing is loaded from elsewhere, and axe-core finds no barrier.

#[allow(dead_code)]
mod data;

use std::fs;
use std::path::Path;
use std::process::Command;

use data::NOW;
use fovea_dashboard::model::RunPage;
use fovea_dashboard::page::{
    compare, confirm_cancel, datasets, group, groups, login, message, overview, run, runs, submit,
    workers,
};
use fovea_dashboard::{Here, STYLE, Sheet, document};
use scraper::{Html, Selector};

const WIDTHS: [u32; 4] = [400, 800, 1280, 2560];

/// Runs in the page around the frames, and finds what is wrong in each: texts that people read.
const LOOK: &str = r#"
addEventListener("load", () => {
  const wrong = [];
  const name = e => e.tagName + "." + (e.getAttribute("class") || "") + ": " + e.textContent.trim().slice(0, 60);
  const colour = text => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, width = frame.clientWidth, say = what => wrong.push(frame.title + " at " + width + ": " + what);
    if (page.documentElement.scrollWidth > width) say("is " + page.documentElement.scrollWidth + " wide");
    for (const e of page.body.querySelectorAll("*")) {
      if (e.closest(".scroll, .skip, svg")) continue;
      const box = e.getBoundingClientRect();
      if (box.width > 0 && (box.right > width + 0.5 || box.left < -0.5)) say("outside: " + name(e));
    }
    // A table that is wider than its place scrolls; on a usual screen none is, and a bar of shares is whole on any.
    for (const e of page.querySelectorAll(".scroll")) {
      if (width >= 1280 && e.scrollWidth > e.clientWidth + 1) say("cut by " + (e.scrollWidth - e.clientWidth) + ": " + e.getAttribute("aria-label"));
      const end = e.getBoundingClientRect().right;
      for (const bar of e.querySelectorAll("svg.stack")) if (bar.getBoundingClientRect().right > end + 0.5) say("a bar is cut: " + name(e));
    }
    for (const chart of page.querySelectorAll(".charts.four svg.c, .chart-and-key svg.c")) {
      const part = chart.getBoundingClientRect().width / chart.parentElement.getBoundingClientRect().width;
      if (part < 0.95) say("a chart fills " + part.toFixed(2) + " of its place");
    }
    for (const chart of page.querySelectorAll("svg.c")) {
      const place = chart.getBoundingClientRect();
      for (const text of chart.querySelectorAll("text"))
        if (text.getClientRects().length && text.getBoundingClientRect().left < place.left - 0.5) say("cut at the left: " + name(text));
      const texts = [...chart.querySelectorAll("text")].filter(e => e.getClientRects().length).map(e => [e, e.getBoundingClientRect()]);
      texts.forEach(([e, a], i) => {
        for (const [other, b] of texts.slice(i + 1))
          if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
            say("texts on each other: " + name(e) + " / " + name(other));
      });
    }
    for (const e of page.querySelectorAll("h1, h2, h3, p, th, td, dt, dd, a, button, .badge, .sub, .about, label, summary, code, figcaption")) {
      if (!e.getClientRects().length || e.closest(".skip") || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
      let ground = e, behind;
      // The first ground that is not transparent.
      while (ground && (behind = colour(frame.contentWindow.getComputedStyle(ground).backgroundColor)).length === 4 && behind[3] < 1) ground = ground.parentElement;
      const [a, b] = [light(colour(frame.contentWindow.getComputedStyle(e).color)), light(behind)];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) say("contrast " + contrast.toFixed(2) + ": " + name(e));
    }
    for (const e of frame.contentWindow.performance.getEntriesByType("resource")) say("loads " + e.name);
  }
  document.body.innerHTML = "";
  document.body.textContent = wrong.length + " problems\n" + [...new Set(wrong)].slice(0, 40).join("\n");
});
"#;

/// Runs axe-core in each frame, one after the other, and says which rule which element breaks.
const AXE: &str = r#"
addEventListener("load", async () => {
  const wrong = [];
  let looked = 0;
  const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
  for (const frame of document.querySelectorAll("iframe")) {
    const say = what => wrong.push(frame.title + " at " + frame.clientWidth + ": " + what);
    try {
      frame.contentWindow.eval(document.getElementById("axe").textContent);
      const found = await frame.contentWindow.axe.run(frame.contentDocument, {
        runOnly: { type: "tag", values: rules }, resultTypes: ["violations"], elementRef: false, iframes: false });
      if (found.passes.length < 10) say("only " + found.passes.length + " rules applied");
      for (const rule of found.violations) for (const node of rule.nodes)
        say(rule.id + " (" + rule.help + "): " + node.target.join(" ") + ": " + node.html.slice(0, 120));
      looked++;
    } catch (error) { say("axe: " + error); }
  }
  document.body.innerHTML = "";
  document.body.textContent = looked + " looked at, " + wrong.length + " problems\n" + [...new Set(wrong)].slice(0, 40).join("\n");
});
"#;

/// A frame around each page for each of these widths.
fn frames(pages: &[(&str, Sheet)], widths: &[u32]) -> String {
    let mut frames = String::new();
    for (title, sheet) in pages {
        let page = document(&data::shell(Here::Runs, None), sheet);
        // The style sheet is not served here.
        let (head, rest) = page.split_once("<link rel=\"icon\"").unwrap();
        let (_, rest) = rest.split_once("style.css\">").unwrap();
        let page = format!("{head}<style>{STYLE}</style>{rest}");
        let page = page.replace('&', "&amp;").replace('"', "&quot;");
        for width in widths {
            frames += &format!(
                "<iframe title=\"{title}\" style=\"width:{width}px;height:30000px;border:0\" srcdoc=\"{page}\"></iframe>"
            );
        }
    }
    frames
}

/// What `script` writes about the frames that it is in a page with; `before` it is in that page, too.
fn look_at(frames: &str, before: &str, script: &str, dark: bool, folder: &Path) -> String {
    let around = folder.join("around.html");
    let text = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><title>around</title>{before}<script>{script}</script><body>{frames}"
    );
    fs::write(&around, text).unwrap();
    let output = Command::new("timeout")
        .args([
            "240",
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
        .args(dark.then_some("--blink-settings=preferredColorScheme=0"))
        // Time that passes only while there is nothing to do: promises and timers are waited for.
        .args(["--virtual-time-budget=600000"])
        .args(["--window-size=2700,1000", "--dump-dom"])
        .arg(format!("file://{}", around.display()))
        .env("HOME", folder)
        .output()
        .expect("timeout(1) runs chromium");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let page = Html::parse_document(&String::from_utf8(output.stdout).unwrap());
    let body = Selector::parse("body").unwrap();
    page.select(&body).next().unwrap().text().collect()
}

/// A run whose losses are as large as they get before they are no numbers.
fn diverged() -> RunPage {
    let mut page = data::run_page(&data::training(7, 3));
    page.losses = vec![(1.0, 0.7), (2.0, 6_680_647_041_024.0)];
    for epoch in &mut page.epochs {
        epoch.validation.loss = 6.68e12 * f64::from(epoch.epoch + 1);
    }
    if let Some(newest) = &mut page.row.newest {
        newest.loss = 6_680_647_041_024.0;
    }
    page
}

/// Every page, with long names: they are what breaks pages.
fn pages() -> Vec<(&'static str, Sheet)> {
    let mut training = data::run_page(&data::training(7, 7));
    training.row.id = "a-run-whose-name-is-as-long-as-a-name-may-be-000-12345".into();
    training.row.dataset = "a_dataset_with_a_name_that_nobody_would_want_to_type_again".into();
    let mut found = data::workers();
    found.workers[0].id =
        "a-host-name-of-sixty-three-letters-is-what-dns-allows-for-a-label-4711-0a1b2c3d".into();
    vec![
        ("overview", overview(&data::overview(), NOW)),
        ("nothing", overview(&Default::default(), NOW)),
        ("runs", runs(&data::runs(), NOW)),
        ("run", run(&training, "c", NOW)),
        (
            "evaluation",
            run(&data::run_page(&data::evaluation(10)), "c", NOW),
        ),
        ("diverged", run(&diverged(), "c", NOW)),
        ("groups", groups(&data::groups::list(), NOW)),
        (
            "sweep",
            group(&data::groups::page(&data::groups::sweep(3, 3)), NOW),
        ),
        (
            "four keys",
            group(&data::groups::page(&data::groups::four_keys()), NOW),
        ),
        (
            "folds",
            group(&data::groups::page(&data::groups::folds()), NOW),
        ),
        ("workers", workers(&found)),
        ("datasets", datasets(&data::datasets())),
        (
            "compare",
            compare(&data::compared(), &["b-1 is gone".into()]),
        ),
        (
            "submit",
            submit("c", None, Some("run file:1: name: is a number")),
        ),
        ("login", login("c", "/", Some("that is no token"))),
        (
            "message",
            message("Not allowed", "Ask an admin.", Some("/")),
        ),
        ("cancel", confirm_cancel("a-1", "c")),
    ]
}

#[cfg_attr(not(has_browser), ignore = "needs Chromium: apt-get install chromium")]
#[test]
fn pages_fit_every_screen_and_can_be_read_in_the_light_and_in_the_dark() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(&pages(), &WIDTHS);
    for dark in [false, true] {
        let found = look_at(&frames, "", LOOK, dark, folder.path());
        assert_eq!(found.trim(), "0 problems", "dark: {dark}");
    }
}

/// axe-core, as `make page-tools` has fetched it.
fn axe() -> String {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.page-tools/lib");
    let python = fs::read_dir(&tools)
        .unwrap_or_else(|e| panic!("{}: {e}; run `make page-tools`", tools.display()));
    let mut found = python.map(|entry| {
        let packages = entry.unwrap().path().join("site-packages");
        packages.join("axe_playwright_python/axe.min.js")
    });
    let file = found.find(|file| file.is_file()).expect("axe.min.js");
    fs::read_to_string(file).unwrap()
}

#[cfg_attr(
    not(has_axe),
    ignore = "needs axe-core (`make page-tools`) and Chromium (apt-get install chromium)"
)]
#[test]
fn axe_finds_no_barrier_in_any_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages();
    let frames = frames(&pages, &[400, 1280]);
    let axe = axe().replace("</script", "<\\/script");
    let before = format!("<script id=\"axe\" type=\"text/plain\">{axe}</script>");
    for dark in [false, true] {
        let found = look_at(&frames, &before, AXE, dark, folder.path());
        let none = format!("{} looked at, 0 problems", 2 * pages.len());
        assert_eq!(found.trim(), none, "dark: {dark}");
    }
    // It does look.
    let bad = r#"<iframe title="bad" style="width:900px;height:900px" srcdoc="<!DOCTYPE html><html lang='en'><title>x</title>
        <p style='color:#aaa;background:#fff'>Too pale</p><input name='x'><img src='data:,'>"></iframe>"#;
    let found = look_at(bad, &before, AXE, false, folder.path());
    for rule in ["color-contrast", "label", "image-alt"] {
        assert!(found.contains(&format!("900: {rule} (")), "{rule}: {found}");
    }
}
