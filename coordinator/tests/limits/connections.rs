//! Limits and deadlines of connections.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::*;

/// The preface and an empty SETTINGS frame: a whole handshake.
const HANDSHAKE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A PING frame.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0whatever";

/// A connection from `host`, which is an address of this machine.
async fn from(host: &str, server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{host}:0").parse().unwrap()).unwrap();
    let address = server.address.parse().unwrap();
    soon("a connection", socket.connect(address)).await.unwrap()
}

/// Reads until the coordinator closes the connection. All that it sent.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = soon("the connection's end", stream.read_to_end(&mut bytes)).await;
    bytes
}

async fn server(dir: &Path, change: impl FnOnce(&mut fovea_coordinator::Config)) -> Server {
    Server::start(&dir.join("data"), change).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_keep_nobody_out() {
    fovea_service::raise_descriptor_limit();
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |config| {
        config.max_connections_per_client = 300;
        config.handshake_timeout_s = 15;
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(from("127.0.0.2", &server).await);
    }
    // Those beyond the client's limit learn why, and are closed.
    let mut refused = Vec::new();
    for stream in idle.drain(300..) {
        refused.push(closed(stream).await);
    }
    assert_eq!(refused.len(), 700);
    let explained = refused.iter().filter(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        text.contains("max_connections_per_client") && text.contains("127.0.0.2")
    });
    assert_eq!(explained.count(), 700);
    // Meanwhile another client is served.
    let worker = Worker::join(&server, "w").await;
    // The others are closed once they are late with their handshake, and leave room for new ones.
    for stream in idle {
        let bytes = closed(stream).await;
        assert!(!String::from_utf8_lossy(&bytes).contains("refused"));
    }
    let mut late = from("127.0.0.2", &server).await;
    late.write_all(HANDSHAKE).await.unwrap();
    let mut first = [0; 9];
    soon("SETTINGS", late.read_exact(&mut first)).await.unwrap();
    assert_eq!(first[3], 4, "a SETTINGS frame: {first:?}");
    drop(worker);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_handshake_is_closed_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |config| config.handshake_timeout_s = 1).await;
    for part in [0, 1, 10, 24, 30, 32] {
        let mut stream = from("127.0.0.1", &server).await;
        stream.write_all(&HANDSHAKE[..part]).await.unwrap();
        closed(stream).await;
    }
    server.submit(spec()).await.expect_err("it has no dataset");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_sessions_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |config| config.idle_timeout_s = 1).await;
    let mut worker = Worker::join(&server, "w").await;
    // Two after each other: the session is open for longer than the time allowed without one.
    for _ in 0..2 {
        let mut idle = from("127.0.0.1", &server).await;
        idle.write_all(HANDSHAKE).await.unwrap();
        // Pings are no use of a connection.
        let (mut reader, mut writer) = idle.into_split();
        let pinging = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(50));
            while writer.write_all(PING).await.is_ok() {
                every.tick().await;
            }
        });
        let mut bytes = Vec::new();
        let _ = soon(
            "the end of an idle connection",
            reader.read_to_end(&mut bytes),
        )
        .await;
        soon("the end of the pings", pinging).await.unwrap();
    }
    server
        .upload(&dataset(dir.path(), "tiny", 1))
        .await
        .unwrap();
    server.submit(spec()).await.unwrap();
    let assignment = worker.assignment().await;
    assert_eq!(assignment.members.len(), 1);
    server.stop().await;
}
