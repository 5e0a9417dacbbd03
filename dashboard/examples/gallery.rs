//! Writes every page with made-up content into a folder, to be looked at: `cargo run --example gallery -- DIR`.

#[allow(dead_code)]
#[path = "../tests/data/mod.rs"]
mod data;

use std::fs;
use std::path::Path;

use data::NOW;
use fovea_dashboard::page::{
    audit, compare, confirm_cancel, confirm_cancel_group, datasets, group, groups, login, message,
    overview, run, runs, submit, workers,
};
use fovea_dashboard::{Here, ICON, SCRIPT, STYLE, Sheet, document};

fn main() {
    let dir = std::env::args().nth(1).expect("a folder");
    let dir = Path::new(&dir);
    fs::create_dir_all(dir.join("assets")).expect("the folder can be made");
    for (name, text) in [
        ("style.css", STYLE),
        ("live.js", SCRIPT),
        ("icon.svg", ICON),
    ] {
        fs::write(dir.join("assets").join(name), text).expect("an asset can be written");
    }
    let write = |name: &str, here, sheet: &Sheet| {
        let page = document(&data::shell(here, None), sheet);
        // Pages of files have no root to start from.
        let page = page.replace("\"/assets/", "\"assets/");
        fs::write(dir.join(format!("{name}.html")), page).expect("a page can be written");
    };
    write(
        "overview",
        Here::Overview,
        &overview(&data::overview(), NOW),
    );
    let empty = fovea_dashboard::model::Overview::default();
    write("empty", Here::Overview, &overview(&empty, NOW));
    write("runs", Here::Runs, &runs(&data::runs(), NOW));
    let page = data::run_page(&data::training(7, 7));
    write("run", Here::Runs, &run(&page, "x", NOW));
    let new = data::run_page(&data::run(9, 0));
    write("queued", Here::Runs, &run(&new, "x", NOW));
    let evaluation = data::run_page(&data::evaluation(10));
    write("evaluation", Here::Runs, &run(&evaluation, "x", NOW));
    write("groups", Here::Groups, &groups(&data::groups::list(), NOW));
    for (name, made) in [
        ("sweep", data::groups::sweep(3, 3)),
        ("large-sweep", data::groups::sweep(50, 0)),
        ("four-keys", data::groups::four_keys()),
        ("folds", data::groups::folds()),
    ] {
        let page = group(&data::groups::page(&made), NOW);
        write(name, Here::Groups, &page);
    }
    write(
        "cancel-group",
        Here::Groups,
        &confirm_cancel_group("lr-g30", "x"),
    );
    write("workers", Here::Workers, &workers(&data::workers()));
    write("datasets", Here::Datasets, &datasets(&data::datasets()));
    write("compare", Here::Runs, &compare(&data::compared(), &[]));
    write("submit", Here::Submit, &submit("x", None, None));
    write("login", Here::Elsewhere, &login("x", "/", None));
    write(
        "message",
        Here::Elsewhere,
        &message(
            "Not possible now",
            "run retina-7 is already completed; there is nothing to cancel",
            Some("/runs/retina-7"),
        ),
    );
    write("cancel", Here::Runs, &confirm_cancel("retina-7", "x"));
    if let Some(found) = &page.audit {
        write("audit", Here::Runs, &audit("retina-7", found));
    }
}
