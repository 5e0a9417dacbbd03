//! Messages as people read them: what stands between backticks is code.

use maud::{Markup, html};

/// A message. A backtick without its second is a letter as others.
pub fn prose(text: &str) -> Markup {
    let pieces: Vec<&str> = text.split('`').collect();
    // An even number of pieces has an odd number of backticks.
    let paired = pieces.len() - (pieces.len() + 1) % 2;
    html! {
        @for (at, piece) in pieces.iter().enumerate() {
            @if at >= paired { "`" (piece) } @else if at % 2 == 1 { code { (piece) } } @else { (piece) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_backticks_is_code() {
        let shown = |text| prose(text).into_string();
        assert_eq!(shown("plain"), "plain");
        assert_eq!(
            shown("`fovea resume` goes on"),
            "<code>fovea resume</code> goes on"
        );
        assert_eq!(
            shown("a `<b>` c `d`"),
            "a <code>&lt;b&gt;</code> c <code>d</code>"
        );
        assert_eq!(shown("one ` alone"), "one ` alone");
        assert_eq!(shown("`a` and ` alone"), "<code>a</code> and ` alone");
        assert_eq!(shown(""), "");
    }
}
