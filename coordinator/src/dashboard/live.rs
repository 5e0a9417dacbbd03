//! Server-sent events: the parts of a page that changed, as ready HTML.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use fovea_dashboard::Part;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use xxhash_rust::xxh3::xxh3_64;

use super::Dashboard;
use super::reply::{Reply, events};
use super::views::View;
use super::visitor::Visitor;
use crate::clock::unix_ms;
use crate::net::Permit;

/// How often a page is made anew to see what changed.
const EVERY: Duration = Duration::from_secs(2);
/// Without a change, something is sent so often that a browser that is gone is noticed.
const SIGN: Duration = Duration::from_secs(15);
/// How long a browser may take to read what was sent before.
const PATIENCE: Duration = Duration::from_secs(30);

type Sender = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

impl Dashboard {
    /// Sends the parts of `view` as they change, until the visitor is gone or not let in any more. `permit` is given back then.
    pub(super) fn live(&self, visitor: Visitor, view: View, permit: Permit) -> Reply {
        let (sender, receiver) = mpsc::channel(4);
        let (dashboard, closing) = (self.clone(), self.0.context.closing.clone());
        self.0.context.tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = dashboard.follow(&visitor, &view, &sender) => {}
                () = sender.closed() => {}
                () = closing.cancelled() => {}
            }
        });
        events(StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
    }

    async fn follow(&self, visitor: &Visitor, view: &View, sender: &Sender) {
        // What the browser has, by the ids of parts.
        let mut shown: HashMap<&'static str, u64> = HashMap::new();
        let mut sent = Instant::now();
        loop {
            let sheet = match self.is_there(visitor) {
                true => self.sheet(visitor, view).await.ok(),
                false => None,
            };
            let Some(sheet) = sheet else {
                // It is logged out, or the run was removed.
                let _ = send(sender, "event: gone\ndata: \n\n".into()).await;
                return;
            };
            for part in &sheet.parts {
                let digest = xxh3_64(part.html.0.as_bytes());
                if shown.insert(part.id, digest) != Some(digest) {
                    if !send(sender, event(part)).await {
                        return;
                    }
                    sent = Instant::now();
                }
            }
            if sent.elapsed() >= SIGN {
                if !send(sender, ": here\n\n".into()).await {
                    return;
                }
                sent = Instant::now();
            }
            sleep(EVERY).await;
        }
    }

    /// Whether the visitor has not logged out. Whether its token is still good, the page asks.
    fn is_there(&self, visitor: &Visitor) -> bool {
        let Some(session) = &visitor.session else {
            return true;
        };
        self.0.sessions.token(session, unix_ms()).is_some()
    }
}

/// A part as an event: its lines, each marked as data.
fn event(part: &Part) -> String {
    let mut text = String::from("event: part\n");
    // A carriage return would end a line, too.
    let html = part.html.0.replace("\r\n", "\n").replace('\r', "\n");
    for line in html.split('\n') {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

/// False when the browser is gone or does not read.
async fn send(sender: &Sender, text: String) -> bool {
    let frame = Ok(Frame::data(Bytes::from(text)));
    matches!(timeout(PATIENCE, sender.send(frame)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use fovea_dashboard::PreEscaped;

    use super::*;

    #[test]
    fn every_line_of_a_part_is_data() {
        let html = PreEscaped("<p>a\r\nb\rc</p>".to_owned());
        let text = event(&Part { id: "x", html });
        assert_eq!(text, "event: part\ndata: <p>a\ndata: b\ndata: c</p>\n\n");
    }
}
