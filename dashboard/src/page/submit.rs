//! The form for a new run.

use maud::html;

use super::pieces::prose;
use super::{Sheet, part};

const EXAMPLE: &str = "name = \"dr\"
dataset = \"\"            # a name of the page Datasets

[model]
weights = \"\"            # weights that the coordinator stores, by name; empty: from scratch

[train]
epochs = 10
virtual_ranks = 2
batch = 16
learning_rate = 0.001
";

/// The form with the text of a run file; `refused` says what is wrong with it.
pub fn submit(csrf: &str, text: Option<&str>, refused: Option<&str>) -> Sheet {
    let text = text.unwrap_or(EXAMPLE);
    let content = html! {
        section id="submit" class="card" aria-labelledby="submit-h" {
            h1 id="submit-h" { "Submit a run" }
            @if let Some(refused) = refused {
                div class="warning" role="alert" { b { "Not submitted." } pre { (prose(refused)) } }
            }
            form method="post" action="/submit" {
                input type="hidden" name="csrf" value=(csrf);
                label for="runfile" { "Run file (TOML)" }
                textarea id="runfile" name="runfile" rows="22" required spellcheck="false" autocapitalize="off" autocomplete="off"
                    aria-describedby="runfile-about" { (text) }
                p id="runfile-about" class="about" {
                    "As for " code { "fovea submit run.toml" } ": what is left out has its default (" code { "deploy/run.toml" }
                    " lists all keys). Weights are named as the coordinator stores them; " code { "fovea weights add" } " sends a file."
                }
                button { "Submit" }
            }
        }
    };
    Sheet::new("Submit a run", vec![part("submit", content)])
}

/// What somebody sees who may not submit. `role`: what it is instead of a submitter.
pub fn may_not_submit(role: &str) -> Sheet {
    let content = html! {
        section id="submit" class="card narrow" aria-labelledby="submit-h" {
            h1 id="submit-h" { "Submit a run" }
            p { "A " (role) " may look, not submit. A submitter or an admin may; ask an admin for a token: "
                code { "fovea token create --role submitter --name NAME" } "." }
            p { a href="/runs" { "Runs" } }
        }
    };
    Sheet::new("Submit a run", vec![part("submit", content)])
}
