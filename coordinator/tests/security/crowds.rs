//! Many who mean no good, and one who wants to work.

use std::time::{Duration, Instant};

use fovea_security::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pki::*;
use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_handshakes_keep_no_worker_out_and_end_in_time() {
    let pki = Pki::new("eyes");
    let server = pki.server(|_| ()).await;
    let mut crowd = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        // Some say nothing, some begin a handshake and stop.
        if number % 2 == 0 {
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await.unwrap();
        }
        crowd.push(stream);
    }
    let begun = Instant::now();
    let worker = pki.member(Role::Worker, "w");
    let channel = channel(&server, &worker).await.unwrap();
    let _session = Worker::begin_on(channel, hello("w-1-a")).await;
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "it took {took:?}, beside the crowd's 5 s"
    );
    for mut stream in crowd {
        let mut bytes = Vec::new();
        let _ = soon("the end of a connection", stream.read_to_end(&mut bytes)).await;
    }
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(12),
        "they were closed after {took:?}"
    );
    server.stop().await;
}
