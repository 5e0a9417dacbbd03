//! The Markdown files that people read, and what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

pub fn root() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    path.canonicalize().expect("the repository")
}

/// A page: where it is, below the repository, and its text.
pub struct Page {
    pub path: PathBuf,
    pub text: String,
}

/// A link, or the heading that one leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The anchor of a heading.
    Heading(String),
    Link(String),
    /// A block of code: its language and its text.
    Code(String, String),
}

impl Page {
    pub fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let path = path.into();
        Self { path, text }
    }

    pub fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        let mut heading: Option<String> = None;
        let mut code: Option<(String, String)> = None;
        for event in Parser::new_ext(&self.text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let text = heading.take().expect("a heading was begun");
                    items.push(Item::Heading(anchor(&text)));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    items.push(Item::Link(dest_url.into_string()));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    code = Some((language, String::new()));
                }
                Event::End(TagEnd::CodeBlock) => {
                    let (language, text) = code.take().expect("a block was begun");
                    items.push(Item::Code(language, text));
                }
                Event::Text(text) | Event::Code(text) => match (&mut heading, &mut code) {
                    (Some(heading), _) => *heading += &text,
                    (_, Some((_, code))) => *code += &text,
                    _ => {}
                },
                _ => {}
            }
        }
        items
    }
}

/// The anchor that GitHub and mdbook give a heading.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then(|| c.to_ascii_lowercase()),
    });
    letters.collect()
}

/// README.md and the like, and all pages below docs/ and deploy/.
pub fn all() -> Vec<Page> {
    let mut paths: Vec<String> = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "python/README.md",
        "bench/README.md",
    ]
    .map(str::to_owned)
    .into();
    for folder in ["docs", "deploy"] {
        below(&root().join(folder), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    paths.iter().map(|path| Page::read(path)).collect()
}

fn below(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of pages").flatten() {
        let path = entry.path();
        if path.is_dir() {
            below(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            let path = path.strip_prefix(root()).expect("below the repository");
            found.push(path.to_string_lossy().into_owned());
        }
    }
}

#[test]
fn headings_links_and_code_are_found() {
    let text = "# The `run` file, in *short*\n\nSee [a](b.md#c) and `[no](link)`.\n\n```sh\nfovea runs\n```\n\n| [x](y) |\n|---|\n";
    let page = Page {
        path: "page.md".into(),
        text: text.into(),
    };
    let expected = [
        Item::Heading("the-run-file-in-short".into()),
        Item::Link("b.md#c".into()),
        Item::Code("sh".into(), "fovea runs\n".into()),
        Item::Link("y".into()),
    ];
    assert_eq!(page.items(), expected);
}
