//! The login.

use maud::html;

use super::pieces::prose;
use super::{Sheet, part};

/// Asks for a token. `next` is where to go then; `refused` says why the last one was not taken.
pub fn login(csrf: &str, next: &str, refused: Option<&str>) -> Sheet {
    let content = html! {
        section id="login" class="card narrow" aria-labelledby="login-h" {
            h1 id="login-h" { "Log in" }
            @if let Some(refused) = refused { p class="warning" role="alert" { (prose(refused)) } }
            form method="post" action="/login" {
                input type="hidden" name="csrf" value=(csrf);
                input type="hidden" name="next" value=(next);
                // Password managers want a name.
                input type="hidden" name="username" autocomplete="username" value="fovea";
                label for="token" { "Token" }
                input id="token" name="token" type="password" required autocomplete="current-password" spellcheck="false" autocapitalize="off"
                    aria-describedby="token-about";
                p id="token-about" class="about" {
                    "An admin makes one: " code { "fovea token create --role viewer --name ann" } ". It is kept by the coordinator for this session only."
                }
                button { "Log in" }
            }
        }
    };
    Sheet::new("Log in", vec![part("login", content)])
}
