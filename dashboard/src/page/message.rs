//! A page with one message: what went wrong, and where to go.

use maud::html;

use super::{Sheet, part};

/// `heading` says what happened, `text` why and what to do, `back` is where it came from.
pub fn message(heading: &str, text: &str, back: Option<&str>) -> Sheet {
    let content = html! {
        section id="message" class="card narrow" aria-labelledby="message-h" {
            h1 id="message-h" { (heading) }
            p class="lines" role="alert" { (text) }
            p { a href=(back.unwrap_or("/")) { @if back.is_some() { "Back" } @else { "Overview" } } }
        }
    };
    Sheet::new(heading, vec![part("message", content)])
}

/// Asks whether a run is to be cancelled.
pub fn confirm_cancel(run: &str, csrf: &str) -> Sheet {
    let content = html! {
        section id="message" class="card narrow" aria-labelledby="message-h" {
            h1 id="message-h" { "Cancel " (run) "?" }
            p { "It ends at its next step boundary, with a checkpoint. Whoever may change it can resume it later." }
            form method="post" action=(format!("/runs/{run}/cancel")) class="choices" {
                input type="hidden" name="csrf" value=(csrf);
                button class="danger" { "Cancel the run" }
                a href=(format!("/runs/{run}")) { "Keep it" }
            }
        }
    };
    Sheet::new(format!("Cancel {run}?"), vec![part("message", content)])
}
