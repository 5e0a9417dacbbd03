//! A page with one message: what went wrong, and where to go.

use maud::html;

use super::pieces::prose;
use super::{Sheet, part};

/// `heading` says what happened, `text` why and what to do, `back` is where it came from.
pub fn message(heading: &str, text: &str, back: Option<&str>) -> Sheet {
    let content = html! {
        section id="message" class="card narrow" aria-labelledby="message-h" {
            h1 id="message-h" { (heading) }
            p class="lines" role="alert" { (prose(text)) }
            p { a href=(back.unwrap_or("/")) { @if back.is_some() { "Back" } @else { "Overview" } } }
        }
    };
    Sheet::new(heading, vec![part("message", content)])
}

/// Asks whether a run is to be cancelled.
pub fn confirm_cancel(run: &str, csrf: &str) -> Sheet {
    let text = "It ends at its next step boundary, with a checkpoint. Whoever may change it can resume it later.";
    confirm(run, &format!("/runs/{run}"), "Cancel the run", text, csrf)
}

/// Asks whether all runs of a group are to be cancelled.
pub fn confirm_cancel_group(group: &str, csrf: &str) -> Sheet {
    let text = "All its runs that have not ended do so: those under way at their next step boundary, with a checkpoint, the others at \
                once. Each can be resumed later.";
    confirm(
        group,
        &format!("/groups/{group}"),
        "Cancel all its runs",
        text,
        csrf,
    )
}

fn confirm(what: &str, path: &str, name: &str, text: &str, csrf: &str) -> Sheet {
    let content = html! {
        section id="message" class="card narrow" aria-labelledby="message-h" {
            h1 id="message-h" { "Cancel " (what) "?" }
            p { (text) }
            form method="post" action=(format!("{path}/cancel")) class="choices" {
                input type="hidden" name="csrf" value=(csrf);
                button class="danger" { (name) }
                a href=(path) { "Keep it" }
            }
        }
    };
    Sheet::new(format!("Cancel {what}?"), vec![part("message", content)])
}
