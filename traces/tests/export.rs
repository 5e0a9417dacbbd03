//! Spans reach a collector, and one that is away or slow costs nothing but spans.

#[path = "../testing/receiver.rs"]
mod receiver;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use fovea_traces::{
    Context, Exporter, Kind, NoContext, QUEUE, Resource, Settings, Traces, Work, names,
};
use receiver::Receiver;

fn settings(endpoint: &str) -> Settings {
    let none = Path::new("");
    Settings::from_keys(endpoint, none, none).unwrap().unwrap()
}

fn resource() -> Resource {
    Resource {
        service: "a-test",
        version: "1",
        instance: "here".into(),
    }
}

fn start(endpoint: &str) -> (Traces, Exporter) {
    Traces::start(settings(endpoint), resource()).unwrap()
}

fn work(generation: u64) -> Work<'static> {
    Work {
        run: "a-1",
        lineage: 7,
        generation,
    }
}

#[tokio::test]
async fn spans_arrive_with_their_ids_and_attributes() {
    let receiver = Receiver::start("127.0.0.1:0").await;
    let (traces, exporter) = start(&format!("http://{}", receiver.address));
    let of = Context::checkpoint(work(3), 40);
    let whole = traces.begin(names::CHECKPOINT, "a-1", of);
    let part = traces
        .child(names::WORKER_SLICE, "a-1", whole.context())
        .of_kind(Kind::Client)
        .with(names::BYTES, 12);
    part.fail(&"x".repeat(5000));
    whole.with(names::STEP, 40).with(names::STEP, 41).end();
    drop(traces.begin(names::EVALUATION, "a-1", Context::evaluation(work(3), 0)));
    exporter.close(Duration::from_secs(20)).await;
    let spans = receiver.spans();
    let named: Vec<&str> = spans.iter().map(|s| s.span.name.as_str()).collect();
    assert_eq!(named, ["worker.slice", "run.checkpoint", "run.evaluation"]);
    let [part, whole, dropped] = &spans[..] else {
        panic!()
    };
    assert_eq!(
        (
            whole.span.trace_id.as_slice(),
            whole.span.span_id.as_slice()
        ),
        (&of.trace[..], &of.span[..])
    );
    assert!(part.is_child_of(whole) && !whole.is_child_of(part));
    assert_ne!(part.span.span_id, whole.span.span_id);
    assert!(whole.is_ok() && !part.is_ok() && !dropped.is_ok());
    assert_eq!(part.span.status.as_ref().unwrap().message.len(), 1024);
    assert_eq!(part.span.kind, 3);
    assert_eq!(
        (&*whole.get("fovea.step"), &*part.get("fovea.bytes")),
        ("41", "12")
    );
    for span in &spans {
        assert_eq!(
            (&*span.get("fovea.run.id"), &*span.service),
            ("a-1", "a-test")
        );
        assert!(span.span.start_time_unix_nano > 0);
        assert!(span.span.end_time_unix_nano >= span.span.start_time_unix_nano);
    }
    assert_eq!(traces.dropped(), 0);
}

#[tokio::test]
async fn a_collector_that_does_not_answer_costs_a_bounded_queue_and_no_time() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (traces, exporter) = start(&format!("http://{}", silent.local_addr().unwrap()));
    let begun = Instant::now();
    let many = QUEUE as u64 + 1000;
    for step in 0..many {
        let of = Context::checkpoint(work(1), step);
        traces.begin(names::CHECKPOINT, "a-1", of).end();
    }
    // This thread has not waited for anything, so the export task has not turned once.
    assert_eq!(traces.dropped(), 1000);
    exporter.close(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{begun:?}");
    assert!(traces.dropped() > 1000, "what was left is counted");
    let of = Context::random();
    traces.begin(names::CHECKPOINT, "a-1", of).end();
}

#[tokio::test]
async fn spans_wait_for_a_collector_that_comes_later() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (traces, exporter) = start(&format!("http://{address}"));
    traces
        .begin(names::FORMATION, "a-1", Context::formation(work(1)))
        .end();
    // The first attempt meets nobody.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let receiver = Receiver::start(&address.to_string()).await;
    let spans = receiver.until("the span", |spans| !spans.is_empty()).await;
    assert_eq!(spans.len(), 1);
    assert_eq!(traces.dropped(), 0);
    exporter.close(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn spans_that_the_collector_refuses_for_good_are_counted() {
    let receiver = Receiver::refusing(tonic::Code::InvalidArgument).await;
    let (traces, exporter) = start(&format!("http://{}", receiver.address));
    for epoch in 0..3 {
        let of = Context::evaluation(work(1), epoch);
        traces.begin(names::EVALUATION, "a-1", of).end();
    }
    exporter.close(Duration::from_secs(20)).await;
    assert_eq!(traces.dropped(), 3);
}

#[tokio::test]
async fn headers_come_from_a_file_that_only_its_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    fs::write(
        &file,
        "# for the collector\nAuthorization: Bearer a-secret\n",
    )
    .unwrap();
    let receiver = Receiver::start("127.0.0.1:0").await;
    let endpoint = format!("http://{}", receiver.address);
    let settings = Settings::from_keys(&endpoint, Path::new(""), &file);
    let settings = settings.unwrap().unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = Traces::start(settings.clone(), resource()).unwrap_err();
    assert!(open.to_string().contains("otlp_headers_file"), "{open}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (traces, exporter) = Traces::start(settings.clone(), resource()).unwrap();
    traces
        .begin(names::EVALUATION, "a-1", Context::random())
        .end();
    exporter.close(Duration::from_secs(20)).await;
    let spans = receiver.spans();
    assert_eq!(spans[0].authorization.as_deref(), Some("Bearer a-secret"));
    fs::write(&file, "authorization\n").unwrap();
    let wrong = Traces::start(settings, resource()).unwrap_err();
    assert!(wrong.to_string().contains("line 1"), "{wrong}");
    assert!(!wrong.to_string().contains("a-secret"));
}

#[tokio::test]
async fn a_collector_with_tls_is_known_by_its_name_and_its_ca() {
    fovea_security::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["elsewhere".to_owned()]).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // In front of the collector, as a proxy is.
    let receiver = Receiver::start("127.0.0.1:0").await;
    let behind = receiver.address;
    let proxy = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut tls) = acceptor.accept(socket).await {
                    let mut plain = tokio::net::TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
                }
            });
        }
    });
    let ca = folder.path().join("ca.pem");
    for (certificate, arrives) in [(&other.cert, false), (&made.cert, true)] {
        fs::write(&ca, certificate.pem()).unwrap();
        let endpoint = format!("https://{address}");
        let settings = Settings::from_keys(&endpoint, &ca, Path::new(""));
        let (traces, exporter) = Traces::start(settings.unwrap().unwrap(), resource()).unwrap();
        traces
            .begin(names::EVALUATION, "a-1", Context::random())
            .end();
        exporter.close(Duration::from_secs(20)).await;
        assert_eq!(receiver.spans().len(), usize::from(arrives));
        assert_eq!(traces.dropped(), u64::from(!arrives));
    }
    proxy.abort();
}

#[test]
fn settings_that_cannot_work_name_their_key() {
    for (endpoint, ca, headers, says) in [
        ("", "ca.pem", "", "otlp_ca is set"),
        ("", "", "headers", "otlp_headers_file is set"),
        ("collector:4317", "", "", "http://HOST:PORT"),
        ("http://collector", "", "", "http://HOST:PORT"),
        ("grpc://collector:4317", "", "", "http://HOST:PORT"),
        (
            "http://collector:4318/v1/traces",
            "",
            "",
            "http://HOST:PORT",
        ),
        ("https://collector:4317", "", "", "set otlp_ca"),
        ("http://collector:4317", "ca.pem", "", "write https://"),
        ("http://collector:4317", "", "headers", "plain text"),
    ] {
        let read = Settings::from_keys(endpoint, Path::new(ca), Path::new(headers));
        let problem = read.unwrap_err();
        assert!(problem.contains(says), "{endpoint}: {problem}");
    }
    let none = Path::new("");
    assert_eq!(Settings::from_keys("", none, none), Ok(None));
    for endpoint in ["http://[::1]:4317", "http://localhost:4317/"] {
        assert!(Settings::from_keys(endpoint, none, Path::new("h")).is_ok());
    }
}

#[test]
fn contexts_are_written_as_w3c_has_it_and_differ_by_what_they_are_about() {
    let context: Context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .unwrap();
    assert_eq!(context.span[..3], [0, 0xf0, 0x67]);
    assert_eq!(context.to_string().parse(), Ok(context));
    for wrong in [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
    ] {
        assert_eq!(wrong.parse::<Context>(), Err(NoContext), "{wrong}");
    }
    let other = Work {
        lineage: 8,
        ..work(1)
    };
    let contexts = [
        Context::formation(work(1)),
        Context::formation(work(2)),
        Context::formation(other),
        Context::recovery(work(1)),
        Context::checkpoint(work(1), 0),
        Context::checkpoint(work(1), 1),
        Context::evaluation(work(1), 0),
        Context::random(),
        Context::random(),
    ];
    for (at, one) in contexts.iter().enumerate() {
        for two in &contexts[at + 1..] {
            assert!(one.trace != two.trace && one.span != two.span);
        }
    }
}

#[test]
fn without_a_collector_there_are_no_spans() {
    let traces = Traces::default();
    let mut span = traces.child(names::SLICE, "a-1", Some(Context::random()));
    span.set(names::STEP, 1);
    assert!(span.context().is_none() && !traces.are_on());
    span.end();
    assert_eq!(traces.dropped(), 0);
}

#[test]
fn the_reference_lists_every_span_and_attribute() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/traces.md");
    let text = fs::read_to_string(path).expect("docs/traces.md");
    for named in [names::SPANS, names::ATTRIBUTES].concat() {
        let row = format!("| `{}` | {} |", named.name, named.meaning);
        assert!(text.contains(&row), "docs/traces.md lacks\n{row}");
    }
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, names::SPANS.len() + names::ATTRIBUTES.len());
}
