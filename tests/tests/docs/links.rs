//! Every relative link leads to a file or folder, every anchor to a heading, and every page is in the site's table of contents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::pages::{self, Item, Page};

/// The file that a link of a page names, below the repository, and the anchor in it. None: another site's.
fn target(page: &Path, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor.to_owned())),
        None => (link, None),
    };
    if file.is_empty() {
        return Some((page.to_owned(), anchor));
    }
    let mut path = PathBuf::new();
    for part in page
        .parent()
        .expect("a page is a file")
        .join(file)
        .components()
    {
        match part {
            Component::ParentDir => assert!(path.pop(), "{}: {link}", page.display()),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    Some((path, anchor))
}

/// What is wrong with the links of these pages.
fn broken(pages: &[Page]) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<String>> = pages
        .iter()
        .map(|page| {
            let headings = page.items().into_iter().filter_map(|item| match item {
                Item::Heading(anchor) => Some(anchor),
                _ => None,
            });
            (page.path.as_path(), headings.collect())
        })
        .collect();
    let mut broken = Vec::new();
    for page in pages {
        for item in page.items() {
            let Item::Link(link) = item else { continue };
            let Some((file, anchor)) = target(&page.path, &link) else {
                continue;
            };
            let held = anchors.get(file.as_path());
            let is_there = held.is_some() || pages::root().join(&file).exists();
            let leads = match (&anchor, held) {
                (Some(anchor), Some(held)) => held.contains(anchor),
                (Some(_), None) => false,
                (None, _) => is_there,
            };
            if !leads {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    broken
}

#[test]
fn every_link_leads_somewhere() {
    let broken = broken(&pages::all());
    assert!(broken.is_empty(), "these links lead nowhere: {broken:#?}");
}

#[test]
fn broken_links_are_found() {
    let page = |path: &str, text: &str| Page {
        path: path.into(),
        text: text.into(),
    };
    let pages = [
        page(
            "docs/a.md",
            "# A b\n[1](c.md#d), [2](#a-b), [3](../README.md), [4](https://x.y/z#q)",
        ),
        page(
            "docs/c.md",
            "## D\n[5](#e), [6](a.md#A-B), [7](none.md), [8](../Makefile#x)",
        ),
    ];
    let found = broken(&pages);
    let links: Vec<&str> = found.iter().filter_map(|b| b.split(": ").nth(1)).collect();
    assert_eq!(links, ["#e", "a.md#A-B", "none.md", "../Makefile#x"]);
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = Page::read("docs/SUMMARY.md");
    let listed: Vec<PathBuf> = contents
        .items()
        .into_iter()
        .filter_map(|item| match item {
            Item::Link(link) => Some(target(&contents.path, &link).expect("a page of ours").0),
            _ => None,
        })
        .collect();
    let once: BTreeSet<&PathBuf> = listed.iter().collect();
    assert_eq!(
        once.len(),
        listed.len(),
        "a page is listed twice: {listed:?}"
    );
    for page in pages::all() {
        let is_listed = once.contains(&page.path);
        assert!(
            is_listed || page.path == contents.path,
            "docs/SUMMARY.md lacks {}",
            page.path.display()
        );
    }
}
