use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ask::health;
use super::*;

#[derive(Debug, Default)]
struct Program {
    hangs: AtomicBool,
    ready: AtomicBool,
}

impl Vitals for Arc<Program> {
    fn live(&self) -> Pin<Box<dyn Future<Output = State> + Send + '_>> {
        Box::pin(async {
            match self.hangs.load(Ordering::Relaxed) {
                true => std::future::pending().await,
                false => Ok(()),
            }
        })
    }

    fn ready(&self) -> State {
        match self.ready.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("it is stopping".into()),
        }
    }
}

async fn start() -> (Arc<Program>, SocketAddr) {
    let program = Arc::new(Program::default());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let ops = Ops::bind(any, "fovea-test", Arc::clone(&program))
        .await
        .unwrap();
    let address = ops.address().unwrap();
    tokio::spawn(ops.serve());
    (program, address)
}

/// The whole answer to `request`, until the server closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(60), stream.read_to_string(&mut answer))
        .await
        .expect("the answer does not end")
        .unwrap();
    answer
}

#[tokio::test]
async fn the_states_are_those_of_the_program() {
    let (program, address) = start().await;
    health(address, "/livez").await.unwrap();
    let error = health(address, "/readyz").await.unwrap_err();
    assert_eq!(error.to_string(), "it is stopping");
    program.ready.store(true, Ordering::Relaxed);
    health(address, "/readyz").await.unwrap();
    // A listener on all addresses is asked on loopback.
    let all = SocketAddr::from(([0, 0, 0, 0], address.port()));
    health(all, "/readyz").await.unwrap();
}

#[tokio::test]
async fn a_program_that_hangs_is_not_alive() {
    let (program, address) = start().await;
    program.hangs.store(true, Ordering::Relaxed);
    let error = health(address, "/livez").await.unwrap_err().to_string();
    assert!(error.contains("did not answer within 5s"), "{error}");
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error() {
    let (_program, address) = start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    assert_ne!(nobody, address);
    let error = health(nobody, "/livez").await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("nothing answers at {nobody}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn the_metrics_are_those_of_the_process() {
    let (_program, address) = start().await;
    let answer = raw(address, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(
        answer.contains("fovea_build_info{program=\"fovea-test\",version=\""),
        "{answer}"
    );
    let value = |name: &str| -> f64 {
        let line = answer
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in {answer}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_max_fds") > value("process_open_fds"));
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_cpu_seconds_total") >= 0.0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let age = now.as_secs_f64() - value("process_start_time_seconds");
    assert!((-2.0..3600.0).contains(&age), "{age}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn nothing_else_is_served() {
    let (_program, address) = start().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "404 Not Found"),
        (
            "GET /livez/../metrics HTTP/1.1\r\nHost: h\r\n\r\n",
            "404 Not Found",
        ),
        (
            "POST /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            "405 Method Not Allowed",
        ),
        ("\0\0\0\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = raw(address, request).await;
        assert!(
            answer.contains(&format!(" {status}\r\n")),
            "{request:?}: {answer:?}"
        );
    }
    // HTTP/2 is not spoken.
    let answer = raw(address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(answer, "");
    // A header that is too long, and one that never ends.
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(long.as_bytes()).await;
    health(address, "/livez").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_and_more_than_there_is_room_for_wait() {
    let (_program, address) = start().await;
    let mut idle = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Each is closed after 10 s at most, and then it is the turn of those that wait.
    for mut stream in idle {
        let mut rest = Vec::new();
        timeout(10 * REQUEST, stream.read_to_end(&mut rest))
            .await
            .expect("it was not closed")
            .unwrap();
    }
    tokio::time::resume();
    health(address, "/livez").await.unwrap();
}
