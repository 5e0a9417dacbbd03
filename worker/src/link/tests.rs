//! The link against coordinators that are away, refuse, or have moved.

use tonic::{Request, Response};

use super::*;

#[test]
fn delays_double_up_to_half_a_second_with_a_random_part_and_never_end() {
    let mut delays = backoff().build();
    for full in [25, 50, 100, 200, 400, 500, 500] {
        let full = Duration::from_millis(full);
        let delay = delays.next().unwrap();
        assert!(full <= delay && delay <= full * 2, "{delay:?} of {full:?}");
    }
    assert!(delays.take(1000).count() == 1000);
}

#[test]
fn an_answer_is_distinguished_from_an_absence() {
    let broken = Status::from_error(Box::new(std::io::Error::other("reset by peer")));
    for (status, meaning) in [
        (broken, Refused::Away),
        (Status::cancelled("gone"), Refused::Away),
        (
            Status::unavailable("the coordinator is shutting down; try again when it is back"),
            Refused::Away,
        ),
        (
            Status::unavailable("packs/0.pack cannot be read: EIO"),
            Refused::Unreadable,
        ),
        (
            Status::data_loss("packs/0.pack is corrupt"),
            Refused::Corrupt,
        ),
        (Status::resource_exhausted("3 MiB free"), Refused::Exhausted),
        (Status::failed_precondition("over"), Refused::Precondition),
        (Status::internal("a bug"), Refused::Other),
    ] {
        assert_eq!(refusal(&status), meaning, "{status}");
    }
}

#[tokio::test]
async fn an_absent_coordinator_is_reported_and_tried_again() {
    // Bound and closed: without a listener.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut tasks = JoinSet::new();
    let mut events = start(format!("http://{free}"), None, &mut tasks);
    for _ in 0..2 {
        let event = timeout(Duration::from_secs(20), events.recv())
            .await
            .unwrap();
        assert!(matches!(event, Some(LinkEvent::Down(_))), "{event:?}");
    }
}

/// A coordinator that answers every hello with one status.
struct Refusing(Status, mpsc::Sender<()>);

#[tonic::async_trait]
impl pb::workers_server::Workers for Refusing {
    type SessionStream = tokio_stream::Pending<Result<pb::CoordinatorMessage, Status>>;

    async fn session(
        &self,
        _: Request<tonic::Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.1.try_send(()).ok();
        Err(self.0.clone())
    }

    async fn upload_slice(
        &self,
        _: Request<tonic::Streaming<pb::SliceUpload>>,
    ) -> Result<Response<pb::SliceAck>, Status> {
        Err(self.0.clone())
    }
}

/// A link to a coordinator that answers with `status`, with one message for each hello that it got.
async fn refused_with(
    status: Status,
    tasks: &mut JoinSet<()>,
) -> (mpsc::Receiver<LinkEvent>, mpsc::Receiver<()>) {
    let (count, hellos) = mpsc::channel(16);
    let service = pb::workers_server::WorkersServer::new(Refusing(status, count));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    tasks.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    (start(format!("http://{address}"), None, tasks), hellos)
}

/// The next event that is not the opening of a session. The session's end is kept until then.
async fn after_opening(events: &mut mpsc::Receiver<LinkEvent>) -> Option<LinkEvent> {
    let mut opened = Vec::new();
    loop {
        match timeout(Duration::from_secs(20), events.recv())
            .await
            .expect("an event")
        {
            Some(LinkEvent::Opening(opening)) => opened.push(opening),
            event => return event,
        }
    }
}

#[tokio::test]
async fn a_hello_that_is_refused_for_good_is_not_sent_again() {
    for status in [
        Status::invalid_argument("hello.address: \"h:0\" is not host:port"),
        Status::permission_denied("worker w1 was denied"),
        Status::unauthenticated("no certificate"),
        Status::unimplemented("unknown service"),
        Status::failed_precondition("hello.protocol: worker w1 speaks protocol 1"),
    ] {
        let mut tasks = JoinSet::new();
        let (mut events, mut hellos) = refused_with(status.clone(), &mut tasks).await;
        match after_opening(&mut events).await {
            Some(LinkEvent::Refused(reason)) => assert_eq!(reason, status.message()),
            other => panic!("{status}: {other:?}"),
        }
        assert!(after_opening(&mut events).await.is_none(), "{status}");
        assert_eq!(hellos.recv().await, Some(()));
        assert!(hellos.try_recv().is_err(), "{status}: it sent Hello again");
    }
}

#[tokio::test]
async fn a_hello_that_may_succeed_later_is_sent_again() {
    for status in [
        Status::unavailable("the coordinator is shutting down; try again when it is back"),
        Status::resource_exhausted("the limit of 4096 connections is reached"),
        Status::internal("a bug"),
    ] {
        let mut tasks = JoinSet::new();
        let (mut events, mut hellos) = refused_with(status.clone(), &mut tasks).await;
        for _ in 0..2 {
            match after_opening(&mut events).await {
                Some(LinkEvent::Down(reason)) => assert_eq!(reason, status.message()),
                other => panic!("{status}: {other:?}"),
            }
            assert_eq!(hellos.recv().await, Some(()));
        }
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_not_tried_again() {
    for address in ["nonsense", "https://h:1"] {
        let mut tasks = JoinSet::new();
        let mut events = start(address.into(), None, &mut tasks);
        match after_opening(&mut events).await {
            Some(LinkEvent::Refused(reason)) => assert!(reason.contains(address), "{reason}"),
            other => panic!("{address}: {other:?}"),
        }
    }
    // A file may hold another one next time.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nonsense").unwrap();
    let mut tasks = JoinSet::new();
    let mut events = start(format!("file:{}", file.path().display()), None, &mut tasks);
    for _ in 0..2 {
        let event = after_opening(&mut events).await;
        assert!(matches!(event, Some(LinkEvent::Down(_))), "{event:?}");
    }
}

#[test]
fn only_the_coordinators_own_refusal_is_final() {
    let proxy =
        Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404");
    assert!(!is_final(&proxy));
    assert!(is_final(&Status::failed_precondition("protocol 3")));
    assert!(!is_final(&Status::not_found("no run")));
    let silent = Status::unimplemented("");
    assert!(is_final(&silent));
    let text = sentence(&silent);
    assert!(
        text.contains("not implemented") && text.contains("Unimplemented"),
        "{text}"
    );
}
