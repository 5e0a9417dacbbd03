//! What is around every page.

use maud::{DOCTYPE, Markup, html};

use super::Sheet;

/// Who looks, and what it may do.
#[derive(Debug, Clone, Default)]
pub struct Viewer {
    /// Name and role; None where nobody has a name.
    pub named: Option<(String, String)>,
    /// Whether it came in with a token, so that it can leave.
    pub can_leave: bool,
    pub may_submit: bool,
    /// What must come back with every change.
    pub csrf: String,
}

/// Which entry of the menu a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    Overview,
    Runs,
    Groups,
    Workers,
    Datasets,
    Submit,
    Elsewhere,
}

/// What is around a page.
#[derive(Debug, Clone)]
pub struct Shell {
    /// None: nobody is logged in, and nothing but the content is shown.
    pub viewer: Option<Viewer>,
    pub here: Here,
    /// Where the changes of the page come from; None for a page that stands still.
    pub live: Option<String>,
    /// Names of the style sheet and the script, which change with their content.
    pub style: String,
    pub script: String,
    pub now_ms: u64,
    /// Version of the coordinator.
    pub version: String,
    /// Name of the cluster, where it has one.
    pub cluster: Option<String>,
}

/// The whole page.
pub fn document(shell: &Shell, sheet: &Sheet) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="same-origin";
                title { (sheet.title) " · Fovea" }
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
                link rel="stylesheet" href=(format!("/assets/{}", shell.style));
                @if shell.live.is_some() { script src=(format!("/assets/{}", shell.script)) defer {} }
            }
            body data-live=[shell.live.as_deref()] {
                a class="skip" href="#main" { "Skip to the content" }
                (head(shell))
                main id="main" { @for part in &sheet.parts { (part.html) } }
                footer {
                    p {
                        "Fovea " (shell.version)
                        @if let Some(cluster) = &shell.cluster { " · cluster " (cluster) }
                        " · " (super::pieces::moment(shell.now_ms))
                        @if shell.live.is_some() { " · " span id="live" role="status" { "reload for news" } }
                    }
                    p { "For research. Fovea is no medical device." }
                }
            }
        }
    };
    page.into_string()
}

fn head(shell: &Shell) -> Markup {
    let entry = |here: Here, path: &str, name: &str| {
        let current = (shell.here == here).then_some("page");
        html! { li { a href=(path) aria-current=[current] { (name) } } }
    };
    html! {
        header class="bar" {
            a class="brand" href="/" { span class="logo" aria-hidden="true" {} "Fovea" }
            @if let Some(viewer) = &shell.viewer {
                nav aria-label="Pages" {
                    ul {
                        (entry(Here::Overview, "/", "Overview"))
                        (entry(Here::Runs, "/runs", "Runs"))
                        (entry(Here::Groups, "/groups", "Groups"))
                        (entry(Here::Workers, "/workers", "Workers"))
                        (entry(Here::Datasets, "/datasets", "Datasets"))
                        @if viewer.may_submit { (entry(Here::Submit, "/submit", "Submit")) }
                    }
                }
                @if let Some((name, role)) = &viewer.named {
                    div class="who" {
                        span { b { (name) } " " span class="role" { (role) } }
                        @if viewer.can_leave {
                            form method="post" action="/logout" {
                                input type="hidden" name="csrf" value=(viewer.csrf);
                                button class="plain" { "Log out" }
                            }
                        }
                    }
                }
            }
        }
    }
}
