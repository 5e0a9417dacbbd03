//! Pages that are open learn of changes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::browser::{Browser, Stream};
use super::pages::server;
use crate::common::*;

/// Reads events until one contains `text`.
pub async fn until(stream: &mut Box<dyn Stream>, text: &str) -> String {
    let reading = async {
        let mut all = String::new();
        let mut buffer = [0; 16 << 10];
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the stream ended without {text:?}: {all}");
            all += &String::from_utf8_lossy(&buffer[..read]);
            if all.contains(text) {
                return all;
            }
        }
    };
    soon("an event", reading).await
}

pub async fn follow(browser: &Browser, path: &str) -> Box<dyn Stream> {
    let mut stream = browser.connect().await;
    let request = browser.request("GET", path, &[], "");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_comes_as_the_part_that_it_changed() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    browser.get("/").await.contains("data-live=\"/live/\"");
    let mut stream = follow(&browser, "/live/").await;
    let first = until(&mut stream, "id=\"workers\"").await;
    assert!(first.contains("content-type: text/event-stream"), "{first}");
    assert!(first.contains("event: part\ndata: "), "{first}");
    let run = server.submit(spec()).await.unwrap();
    let changed = until(&mut stream, &format!("/runs/{}", run.id)).await;
    assert!(changed.contains("id=\"waiting\""), "{changed}");
    assert!(
        !changed.contains("id=\"ended\""),
        "what did not change came, too: {changed}"
    );
    let _worker = Worker::join(&server, "w0").await;
    until(&mut stream, "Workers (1)").await;

    // Of a run, and what stands still has none.
    let mut of_run = follow(&browser, &format!("/live/runs/{}", run.id)).await;
    until(&mut of_run, "id=\"figures\"").await;
    browser.get("/runs").await.lacks("data-live");
    for none in ["/live/runs", "/live/runs/nope", "/live/groups/nope"] {
        assert_eq!(browser.get(none).await.status, 404, "{none}");
    }
    // The coordinator's stop ends it in time.
    server.stop().await;
}
