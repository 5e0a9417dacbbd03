//! What no client can do to the coordinator through the dashboard.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::browser::{Browser, parse};
use super::live::{follow, until};
use crate::common::*;

async fn limited(dir: &tempfile::TempDir) -> Server {
    Server::start(&dir.path().join("data"), |config| {
        config.http_listen = "127.0.0.1:0".into();
        config.handshake_timeout_s = 1;
        config.max_watches_per_client = 2;
        // The test's own channel has one.
        config.max_connections_per_client = 6;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_nothing_or_too_much_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let server = limited(&dir).await;
    let browser = Browser::new(&server);
    // Nothing, or half of a request.
    for begun in ["", "GET / HTTP/1.1\r\nhost: 127"] {
        let mut stream = TcpStream::connect(&server.http).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let asked = Instant::now();
        let mut rest = Vec::new();
        soon("the end of a slow client", stream.read_to_end(&mut rest))
            .await
            .ok();
        assert!(asked.elapsed().as_secs() < 20, "{begun:?}");
    }
    let long = "x".repeat(60_000);
    let head = browser.ask("GET", "/", &[("x-long", &long)], "").await;
    assert_eq!(head.status, 431);
    let csrf = browser.get("/submit").await.csrf().to_owned();
    let long = "x".repeat(200_000);
    let form = browser
        .post("/submit", &[("csrf", &csrf), ("runfile", &long)])
        .await;
    assert_eq!(form.status, 413);
    form.contains("larger than 128 KiB");
    // It still serves.
    assert_eq!(browser.get("/").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_open_pages_are_limited_for_each_client() {
    let dir = tempfile::tempdir().unwrap();
    let server = limited(&dir).await;
    let browser = Browser::new(&server);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = follow(&browser, "/live/").await;
        until(&mut stream, "id=\"workers\"").await;
        open.push(stream);
    }
    let refused = browser.get("/live/").await;
    assert_eq!(refused.status, 429);
    refused.contains("raise max_watches_per_client");
    drop(open.pop());
    let again = async {
        while browser.get("/live/nothing").await.status != 404 {}
        loop {
            let mut stream = follow(&browser, "/live/").await;
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.unwrap();
            if first.ends_with(b"200") {
                return stream;
            }
        }
    };
    open.push(soon("a place for another page", again).await);

    let mut idle = Vec::new();
    let full = async {
        loop {
            let mut stream = TcpStream::connect(&server.http).await.unwrap();
            let mut answer = Vec::new();
            let closed = stream.read_to_end(&mut answer);
            match tokio::time::timeout(std::time::Duration::from_millis(100), closed).await {
                Ok(_) if !answer.is_empty() => return parse(&answer),
                Ok(_) | Err(_) => idle.push(stream),
            }
        }
    };
    let refused = soon("the limit of connections", full).await;
    assert_eq!(refused.status, 503);
    server.stop().await;
}
