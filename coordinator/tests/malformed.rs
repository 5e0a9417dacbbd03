//! Bad input at every method of every service: the right code, the field's name, and a coordinator
//! that lives on.

mod common;

use common::*;
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::released::Outcome;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::{CHUNK_BYTES, pb};
use tonic::Code::{self, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};

/// Texts that are no id, whatever it names.
fn bad_ids() -> Vec<String> {
    let mut bad: Vec<String> = [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "a/b",
        "a b",
        "-x",
        "\0",
        "é",
    ]
    .map(str::to_owned)
    .to_vec();
    bad.push("x".repeat(65));
    bad.push("y".repeat(1 << 20));
    bad
}

async fn server(dir: &tempfile::TempDir) -> Server {
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    server
        .upload(&dataset(dir.path(), "tiny", 1))
        .await
        .unwrap();
    server
}

/// It takes a run, gives it to a worker, and lists it.
async fn still_serves(server: &Server) {
    let mut worker = Worker::join(server, "sane").await;
    let run = server.submit(spec()).await.unwrap();
    let at = worker.assignment().await;
    assert_eq!(at.run_id, run.id);
    worker
        .released(
            &at,
            Outcome::Failed(pb::Failure {
                reason: "enough".into(),
                fatal: true,
            }),
        )
        .await;
    server.watch(&run.id).await.until(pb::Phase::Failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut runs = server.runs();
    for id in bad_ids() {
        let run_id = || id.clone();
        let named = "run_id";
        refused(
            runs.get(pb::GetRunRequest { run_id: run_id() }).await,
            InvalidArgument,
            named,
        );
        refused(
            runs.watch(pb::WatchRequest { run_id: run_id() })
                .await
                .map(|_| ()),
            InvalidArgument,
            named,
        );
        refused(
            runs.cancel(pb::CancelRequest { run_id: run_id() }).await,
            InvalidArgument,
            named,
        );
        let resume = pb::ResumeRequest {
            run_id: run_id(),
            checkpoint_step: Some(u64::MAX),
        };
        refused(runs.resume(resume).await, InvalidArgument, named);
    }
    for unknown in ["nobody-1", "r-0", "r-18446744073709551616", "r", "r-01"] {
        let run_id = || unknown.to_owned();
        refused(
            runs.get(pb::GetRunRequest { run_id: run_id() }).await,
            NotFound,
            unknown,
        );
        refused(
            runs.watch(pb::WatchRequest { run_id: run_id() })
                .await
                .map(|_| ()),
            NotFound,
            unknown,
        );
        refused(
            runs.cancel(pb::CancelRequest { run_id: run_id() }).await,
            NotFound,
            unknown,
        );
        let resume = pb::ResumeRequest {
            run_id: run_id(),
            checkpoint_step: None,
        };
        refused(runs.resume(resume).await, NotFound, unknown);
    }
    let list = |page_size, token: &str| pb::ListRunsRequest {
        page_size,
        page_token: token.into(),
    };
    refused(
        runs.list(list(1001, "")).await,
        InvalidArgument,
        "page_size",
    );
    refused(
        runs.list(list(0, "next")).await,
        InvalidArgument,
        "page_token",
    );
    refused(
        runs.list(list(0, &"9".repeat(4096))).await,
        InvalidArgument,
        "page_token",
    );

    refused(
        runs.submit(pb::SubmitRequest { spec: None }).await,
        InvalidArgument,
        "spec",
    );
    type Change = fn(&mut pb::RunSpec);
    fn train(spec: &mut pb::RunSpec) -> &mut pb::TrainSpec {
        spec.train.get_or_insert_default()
    }
    fn model(spec: &mut pb::RunSpec) -> &mut pb::ModelSpec {
        spec.model.get_or_insert_default()
    }
    let specs: Vec<(Change, Code, &str)> = vec![
        (|s| s.name.clear(), InvalidArgument, "name"),
        (|s| s.name = "../x".into(), InvalidArgument, "name"),
        (|s| s.name = "n".repeat(1 << 20), InvalidArgument, "name"),
        (
            |s| s.dataset = "a/b".into(),
            InvalidArgument,
            "spec.dataset",
        ),
        (|s| s.dataset = "other".into(), NotFound, "other"),
        (
            |s| train(s).epochs = Some(0),
            InvalidArgument,
            "train.epochs",
        ),
        (
            |s| train(s).epochs = Some(u32::MAX),
            InvalidArgument,
            "train.epochs",
        ),
        (|s| train(s).batch = Some(0), InvalidArgument, "train.batch"),
        (
            |s| train(s).virtual_ranks = Some(0),
            InvalidArgument,
            "train.virtual_ranks",
        ),
        (
            |s| train(s).virtual_ranks = Some(100),
            InvalidArgument,
            "train.virtual_ranks",
        ),
        (
            |s| train(s).learning_rate = Some(f64::NAN),
            InvalidArgument,
            "train.learning_rate",
        ),
        (
            |s| train(s).learning_rate = Some(-1.0),
            InvalidArgument,
            "train.learning_rate",
        ),
        (
            |s| train(s).momentum = Some(f64::INFINITY),
            InvalidArgument,
            "train.momentum",
        ),
        (
            |s| train(s).weight_decay = Some(f64::NAN),
            InvalidArgument,
            "train.weight_decay",
        ),
        (
            |s| train(s).policy = Some(99),
            InvalidArgument,
            "spec.train.policy",
        ),
        (
            |s| train(s).precision = Some(-1),
            InvalidArgument,
            "spec.train.precision",
        ),
        (
            |s| train(s).threads = Some(0),
            InvalidArgument,
            "train.threads",
        ),
        (
            |s| model(s).init = Some(7),
            InvalidArgument,
            "spec.model.init",
        ),
        (
            |s| model(s).classes = Some(3),
            InvalidArgument,
            "model.classes",
        ),
        (
            |s| model(s).positive_from = Some(0),
            InvalidArgument,
            "model.positive_from",
        ),
        (
            |s| model(s).dropout = Some(1.0),
            InvalidArgument,
            "model.dropout",
        ),
        (
            |s| model(s).weights = Some("w".repeat(5000)),
            InvalidArgument,
            "model.weights",
        ),
        (
            |s| model(s).weights_sha256 = Some("xyz".into()),
            InvalidArgument,
            "model.weights_sha256",
        ),
        (
            |s| {
                model(s).frozen = Some(pb::LayerList {
                    names: vec!["conv1".into()],
                })
            },
            InvalidArgument,
            "model.frozen",
        ),
        (
            |s| {
                s.workers = Some(pb::WorkersSpec {
                    min: Some(9),
                    max: None,
                })
            },
            InvalidArgument,
            "workers.min",
        ),
    ];
    for (change, code, named) in specs {
        let mut spec = spec();
        change(&mut spec);
        refused(server.submit(spec).await, code, named);
    }
    // All problems at once.
    let mut spec = spec();
    train(&mut spec).epochs = Some(0);
    model(&mut spec).classes = Some(3);
    let status = server.submit(spec).await.unwrap_err();
    for named in ["train.epochs", "model.classes"] {
        assert!(status.message().contains(named), "{status:?}");
    }
    // A message that is larger than any sane one.
    let request = pb::GetRunRequest {
        run_id: "z".repeat(5 << 20),
    };
    assert!(runs.get(request).await.is_err());
    let none = runs.list(list(0, "")).await.unwrap().into_inner();
    assert!(none.runs.is_empty(), "nothing bad was accepted");
    still_serves(&server).await;

    // Pages, newest first.
    for _ in 0..4 {
        server.submit(common::spec()).await.unwrap();
    }
    let page = runs.list(list(3, "")).await.unwrap().into_inner();
    let ids = |page: &pb::ListRunsResponse| -> Vec<String> {
        page.runs.iter().map(|r| r.id.clone()).collect()
    };
    assert_eq!(ids(&page), ["r-5", "r-4", "r-3"]);
    let page = runs
        .list(list(3, &page.next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(ids(&page), ["r-2", "r-1"]);
    assert_eq!(page.next_page_token, "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datasets() {
    use pb::create_dataset_request::Part;
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut datasets = server.datasets();
    for id in bad_ids() {
        let get = pb::GetDatasetRequest {
            dataset: id.clone(),
        };
        refused(datasets.get(get).await, InvalidArgument, "dataset");
        let fetch = pb::FetchPackRequest {
            digest: id,
            pack: 0,
        };
        refused(
            datasets.fetch_pack(fetch).await.map(|_| ()),
            InvalidArgument,
            "digest",
        );
    }
    let get = pb::GetDatasetRequest {
        dataset: "other".into(),
    };
    refused(datasets.get(get).await, NotFound, "other");
    let unknown = "0".repeat(64);
    let fetch = pb::FetchPackRequest {
        digest: unknown.clone(),
        pack: 0,
    };
    refused(
        datasets.fetch_pack(fetch).await.map(|_| ()),
        NotFound,
        &unknown,
    );
    let held = datasets
        .list(pb::ListDatasetsRequest {})
        .await
        .unwrap()
        .into_inner()
        .datasets;
    assert_eq!(held.len(), 1);
    for pack in [held[0].packs, u32::MAX] {
        let fetch = pb::FetchPackRequest {
            digest: held[0].digest.clone(),
            pack,
        };
        refused(
            datasets.fetch_pack(fetch).await.map(|_| ()),
            InvalidArgument,
            "pack",
        );
    }

    // Uploads.
    let good = parts(&dataset(dir.path(), "other", 2));
    let part = |part| pb::CreateDatasetRequest { part: Some(part) };
    let piece = |pack, data: Vec<u8>| {
        part(Part::Piece(pb::PackPiece {
            pack,
            data: data.into(),
        }))
    };
    let header = |manifest: Vec<u8>, index: Vec<u8>| {
        part(Part::Header(pb::DatasetFiles {
            manifest: manifest.into(),
            index: index.into(),
        }))
    };
    let Some(Part::Header(files)) = good[0].part.clone() else {
        panic!()
    };
    let (manifest, index) = (files.manifest.to_vec(), files.index.to_vec());
    let text = String::from_utf8(manifest.clone()).unwrap();
    let traversal = text.replace("packs/train-00000.pack", "packs/../../evil.pack");
    assert_ne!(traversal, text);
    let mut changed_index = index.clone();
    let last = changed_index.len() - 2;
    changed_index[last] ^= 1;
    let mut flipped = good.clone();
    let Some(Part::Piece(piece_of_it)) = &mut flipped[1].part else {
        panic!()
    };
    let mut bytes = piece_of_it.data.to_vec();
    bytes[0] ^= 1;
    piece_of_it.data = bytes.into();
    let uploads: Vec<(&str, Vec<pb::CreateDatasetRequest>, &str)> = vec![
        ("nothing", vec![], "header"),
        (
            "an empty message",
            vec![pb::CreateDatasetRequest { part: None }],
            "header",
        ),
        ("a piece first", good[1..].to_vec(), "header"),
        (
            "no manifest",
            vec![header(vec![], index.clone())],
            "header.manifest",
        ),
        (
            "no index",
            vec![header(manifest.clone(), vec![])],
            "header.index",
        ),
        (
            "not JSON",
            vec![header(vec![0xff; 100], index.clone())],
            "header.manifest",
        ),
        (
            "a huge manifest",
            vec![header(vec![b' '; 17 << 20], index.clone())],
            "header.manifest",
        ),
        (
            "a path that leaves the folder",
            vec![header(traversal.into_bytes(), index.clone())],
            "packs[0].file",
        ),
        (
            "another index",
            vec![header(manifest.clone(), changed_index)],
            "header.index",
        ),
        ("header only", good[..1].to_vec(), "ended early"),
        ("truncated", good[..good.len() - 1].to_vec(), "ended early"),
        (
            "twice the header",
            vec![good[0].clone(), good[0].clone()],
            "header",
        ),
        (
            "an empty message inside",
            vec![good[0].clone(), pb::CreateDatasetRequest { part: None }],
            "part",
        ),
        (
            "a later pack first",
            vec![good[0].clone(), piece(1, vec![1])],
            "piece.pack",
        ),
        (
            "a pack that is not there",
            vec![good[0].clone(), piece(u32::MAX, vec![1])],
            "piece.pack",
        ),
        (
            "no bytes",
            vec![good[0].clone(), piece(0, vec![])],
            "piece.data",
        ),
        (
            "too many bytes",
            vec![good[0].clone(), piece(0, vec![0; CHUNK_BYTES])],
            "piece.data",
        ),
        (
            "too large a piece",
            vec![good[0].clone(), piece(0, vec![0; CHUNK_BYTES + 1])],
            "piece.data",
        ),
        ("a flipped bit", flipped, "damaged"),
        (
            "too much",
            [good.clone(), vec![piece(0, vec![1])]].concat(),
            "piece.pack",
        ),
    ];
    for (what, parts, named) in uploads {
        let result = datasets.create(tokio_stream::iter(parts)).await;
        let status = result.expect_err(what);
        assert_eq!(status.code(), InvalidArgument, "{what}: {status:?}");
        assert!(status.message().contains(named), "{what}: {status:?}");
    }
    // A broken stream: the client goes away in the middle.
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    sender.send(good[0].clone()).await.unwrap();
    sender.send(good[1].clone()).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = server.datasets();
    let call = tokio::spawn(async move { client.create(stream).await.map(|_| ()) });
    let folder = dir.path().join("data/datasets");
    let temporaries = || {
        std::fs::read_dir(&folder)
            .unwrap()
            .filter(|e| {
                e.as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("tmp-")
            })
            .count()
    };
    eventually("the upload begins", || temporaries() == 1).await;
    call.abort();
    drop(sender);
    eventually("what came of it is removed", || temporaries() == 0).await;
    let left = datasets
        .list(pb::ListDatasetsRequest {})
        .await
        .unwrap()
        .into_inner()
        .datasets;
    assert_eq!(left, held, "nothing bad was taken");

    // The same again is accepted; the name for another one is taken.
    let again = server.upload(&dir.path().join("tiny")).await.unwrap();
    assert_eq!(again, held[0]);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = dataset(elsewhere.path(), "tiny", 99);
    refused(server.upload(&other).await, AlreadyExists, "tiny");
    // And a good one is as it was.
    server.upload(&dir.path().join("other")).await.unwrap();
    let get = pb::GetDatasetRequest {
        dataset: "other".into(),
    };
    let files = datasets.get(get).await.unwrap().into_inner();
    assert_eq!(
        (files.manifest.to_vec(), files.index.to_vec()),
        (manifest, index)
    );
    let parsed = fovea_dataset::Manifest::parse(&files.manifest).unwrap();
    for (pack, entry) in parsed.packs.iter().enumerate() {
        let fetch = pb::FetchPackRequest {
            digest: parsed.digest.clone(),
            pack: pack as u32,
        };
        let mut stream = datasets.fetch_pack(fetch).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            bytes.extend_from_slice(&chunk.data);
        }
        assert!(bytes == std::fs::read(dir.path().join("other").join(&entry.file)).unwrap());
    }
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let run = server.submit(spec()).await.unwrap();
    let mut checkpoints = server.checkpoints();
    let list = |id: &str| pb::ListCheckpointsRequest { run_id: id.into() };
    let get = |id: &str, step| pb::GetCheckpointRequest {
        run_id: id.into(),
        step,
    };
    for id in bad_ids() {
        refused(checkpoints.list(list(&id)).await, InvalidArgument, "run_id");
        refused(
            checkpoints.get(get(&id, None)).await.map(|_| ()),
            InvalidArgument,
            "run_id",
        );
    }
    refused(checkpoints.list(list("no-1")).await, NotFound, "no-1");
    refused(
        checkpoints.get(get("no-1", None)).await.map(|_| ()),
        NotFound,
        "no-1",
    );
    refused(
        checkpoints.get(get(&run.id, None)).await.map(|_| ()),
        NotFound,
        "no checkpoint",
    );
    refused(
        checkpoints
            .get(get(&run.id, Some(u64::MAX)))
            .await
            .map(|_| ()),
        NotFound,
        "at step",
    );
    let cancel = pb::CancelRequest { run_id: run.id };
    server.runs().cancel(cancel).await.unwrap();
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    // The first message.
    type Change = fn(&mut pb::Hello);
    let hellos: Vec<(Change, &str)> = vec![
        (|h| h.worker_id.clear(), "hello.worker_id"),
        (|h| h.worker_id = "../w".into(), "hello.worker_id"),
        (|h| h.worker_id = "w".repeat(100_000), "hello.worker_id"),
        (|h| h.address.clear(), "hello.address"),
        (|h| h.address = "host".into(), "hello.address"),
        (|h| h.address = "host:0".into(), "hello.address"),
        (|h| h.address = "h/../x:1".into(), "hello.address"),
        (|h| h.host = "h".repeat(10_000), "hello.host"),
        (|h| h.device = "a\nb".into(), "hello.device"),
        (|h| h.version = "\u{1b}[31m".into(), "hello.version"),
    ];
    for (change, named) in hellos {
        let Up::Hello(mut hello) = hello("w") else {
            panic!()
        };
        change(&mut hello);
        refused(
            Worker::open(&server, Up::Hello(hello)).await.map(|_| ()),
            InvalidArgument,
            named,
        );
    }
    let first = Up::Leaving(pb::Leaving {});
    refused(
        Worker::open(&server, first).await.map(|_| ()),
        InvalidArgument,
        "hello",
    );
    let empty = tokio_stream::iter(Vec::<pb::WorkerMessage>::new());
    let result = server.workers().session(empty).await.map(|_| ());
    refused(result, InvalidArgument, "hello");
    let none = tokio_stream::iter(vec![pb::WorkerMessage { message: None }]);
    refused(
        server.workers().session(none).await.map(|_| ()),
        InvalidArgument,
        "hello",
    );

    // Later messages, from a worker that serves a run. Each ends the session, and the run waits for
    // another worker.
    type Say = fn(&pb::Assignment) -> Option<Up>;
    fn with(at: &pb::Assignment, change: fn(&mut pb::StepReport)) -> Option<Up> {
        let mut report = report(1);
        change(&mut report);
        Some(committed(at, report))
    }
    fn score(at: &pb::Assignment, change: fn(&mut pb::Score)) -> Option<Up> {
        let Up::Scores(mut message) = scores(at, 0, 0..1) else {
            panic!()
        };
        change(&mut message.scores[0]);
        Some(Up::Scores(message))
    }
    fn ready_with(at: &pb::Assignment, change: fn(&mut pb::Ready)) -> Option<Up> {
        let Up::Ready(mut message) = ready(at) else {
            panic!()
        };
        change(&mut message);
        Some(Up::Ready(message))
    }
    fn released(at: &pb::Assignment, outcome: Option<Outcome>) -> Option<Up> {
        Some(Up::Released(pb::Released {
            run_id: at.run_id.clone(),
            generation: at.generation,
            outcome,
        }))
    }
    let said: Vec<(Say, &str)> = vec![
        (|_| None, "message"),
        (|_| Some(hello("again")), "hello"),
        (|at| ready_with(at, |m| m.run_id.clear()), "ready.run_id"),
        (
            |at| ready_with(at, |m| m.generation = 0),
            "ready.generation",
        ),
        (
            |at| ready_with(at, |m| m.state_digest = "x".into()),
            "ready.state_digest",
        ),
        (
            |at| ready_with(at, |m| m.fingerprint = None),
            "ready.fingerprint",
        ),
        (
            |at| {
                ready_with(at, |m| {
                    m.fingerprint.as_mut().unwrap().cpu = "c".repeat(10_000)
                })
            },
            "ready.fingerprint.cpu",
        ),
        (|at| with(at, |r| r.loss = f64::NAN), "step.report.loss"),
        (
            |at| with(at, |r| r.images_per_s = f64::INFINITY),
            "step.report.images_per_s",
        ),
        (|at| with(at, |r| r.step = 0), "step.report.step"),
        (|at| with(at, |r| r.step = u64::MAX), "step.report.step"),
        (
            |at| {
                let Up::Step(mut message) = committed(at, report(1)) else {
                    panic!()
                };
                message.report = None;
                Some(Up::Step(message))
            },
            "step.report",
        ),
        (
            |at| score(at, |s| s.loss = f32::NAN),
            "scores.scores[0].loss",
        ),
        (
            |at| score(at, |s| s.probabilities[0] = 2.0),
            "scores.scores[0].probabilities",
        ),
        (
            |at| score(at, |s| s.probabilities[1] = f32::NAN),
            "scores.scores[0].probabilities",
        ),
        (
            |at| score(at, |s| s.probabilities.clear()),
            "scores.scores[0]",
        ),
        (|at| score(at, |s| s.label = u32::MAX), "scores.scores[0]"),
        (
            |at| score(at, |s| s.sample = u32::MAX),
            "scores.scores[0].sample",
        ),
        (|at| Some(scores(at, 2, 0..1)), "scores.epoch"),
        (|at| released(at, None), "released.outcome"),
        (
            |at| released(at, Some(Outcome::CompletedStep(1))),
            "released.completed_step",
        ),
        (
            |at| released(at, Some(Outcome::StoppedStep(u64::MAX))),
            "released.stopped_step",
        ),
    ];
    for (number, (say, named)) in said.into_iter().enumerate() {
        let mut worker = Worker::join(&server, &format!("w{number}")).await;
        let run = server.submit(spec()).await.unwrap();
        let at = worker.assignment().await;
        assert_eq!(at.run_id, run.id);
        // What is said of other runs or generations is void, not an error.
        worker
            .step(
                &pb::Assignment {
                    generation: 99,
                    ..at.clone()
                },
                1,
            )
            .await;
        worker
            .step(
                &pb::Assignment {
                    run_id: "other-1".into(),
                    ..at.clone()
                },
                1,
            )
            .await;
        worker.say_raw(say(&at)).await;
        let status = worker.end().await;
        assert_eq!(status.code(), InvalidArgument, "{named}: {status:?}");
        assert!(status.message().contains(named), "{named}: {status:?}");
        let run = server.run(&run.id).await;
        assert_eq!(run.phase(), pb::Phase::Queued, "{named}");
        assert!(run.reason.contains(named), "{named}: {}", run.reason);
        server
            .runs()
            .cancel(pb::CancelRequest { run_id: run.id })
            .await
            .unwrap();
    }
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slices() {
    use pb::slice_upload::Part;
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let mut worker = Worker::join(&server, "w0").await;
    let run = server.submit(spec()).await.unwrap();
    let at = worker.assignment().await;
    let bytes = state(1);
    let good = slice_parts("w0", &at, 0, 1, 1, &bytes);
    let upload = |parts: Vec<pb::SliceUpload>| {
        let mut client = server.workers();
        async move { client.upload_slice(tokio_stream::iter(parts)).await }
    };
    refused(upload(good.clone()).await, FailedPrecondition, "ready");
    worker.ready(&at).await;
    server.watch(&run.id).await.until(pb::Phase::Running).await;

    type Change = fn(&mut pb::SliceHeader);
    let headers: Vec<(Change, Code, &str)> = vec![
        (
            |h| h.run_id = "../x".into(),
            InvalidArgument,
            "header.run_id",
        ),
        (|h| h.run_id = "other-1".into(), NotFound, "other-1"),
        (|h| h.generation = 0, InvalidArgument, "header.generation"),
        (
            |h| h.generation = u64::MAX,
            InvalidArgument,
            "header.generation",
        ),
        (
            |h| h.generation = 2,
            FailedPrecondition,
            "header.generation",
        ),
        (|h| h.worker_id.clear(), InvalidArgument, "header.worker_id"),
        (
            |h| h.worker_id = "w9".into(),
            FailedPrecondition,
            "header.worker_id",
        ),
        (|h| h.step = 0, InvalidArgument, "header.step"),
        (|h| h.step = 5, InvalidArgument, "header.step"),
        (|h| h.step = u64::MAX, InvalidArgument, "header.step"),
        (|h| h.offset = 1, InvalidArgument, "header.offset"),
        (|h| h.offset = u64::MAX, InvalidArgument, "header.offset"),
        (|h| h.elements -= 1, InvalidArgument, "header.offset"),
        (|h| h.elements = u64::MAX, InvalidArgument, "header.offset"),
        (|h| h.sha256 = "no".into(), InvalidArgument, "header.sha256"),
        (
            |h| h.sha256 = "0".repeat(64),
            InvalidArgument,
            "header.sha256",
        ),
    ];
    for (change, code, named) in headers {
        let mut parts = good.clone();
        let Some(Part::Header(header)) = &mut parts[0].part else {
            panic!()
        };
        change(header);
        refused(upload(parts).await, code, named);
    }
    let data = |bytes: Vec<u8>| pb::SliceUpload {
        part: Some(Part::Data(bytes.into())),
    };
    let streams: Vec<(&str, Vec<pb::SliceUpload>, &str)> = vec![
        ("nothing", vec![], "header"),
        (
            "an empty message",
            vec![pb::SliceUpload { part: None }],
            "header",
        ),
        ("data first", good[1..].to_vec(), "header"),
        (
            "twice the header",
            vec![good[0].clone(), good[0].clone()],
            "header",
        ),
        (
            "an empty message inside",
            vec![good[0].clone(), pb::SliceUpload { part: None }],
            "part",
        ),
        ("header only", good[..1].to_vec(), "ended early"),
        ("truncated", good[..good.len() - 1].to_vec(), "ended early"),
        (
            "too much",
            [good.clone(), vec![data(vec![1])]].concat(),
            "data",
        ),
        (
            "too large a piece",
            vec![good[0].clone(), data(vec![0; CHUNK_BYTES + 1])],
            "data",
        ),
    ];
    for (what, parts, named) in streams {
        let status = upload(parts).await.expect_err(what);
        assert_eq!(status.code(), InvalidArgument, "{what}: {status:?}");
        assert!(status.message().contains(named), "{what}: {status:?}");
    }
    assert!(server.run(&run.id).await.checkpoints.is_empty());

    // After all that the slice still has its place.
    let mut watch = server.watch(&run.id).await;
    upload(good).await.unwrap();
    while server.run(&run.id).await.checkpoints.is_empty() {
        watch.next().await.expect("the run goes on");
    }
    drop(worker);
    let cancel = pb::CancelRequest {
        run_id: run.id.clone(),
    };
    server.runs().cancel(cancel).await.unwrap();
    still_serves(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_reads_nothing_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let deaf = Worker::join(&server, "deaf").await;
    // Whatever it is told waits for it, until it counts as lost.
    for _ in 0..3 {
        let run = server.submit(spec()).await.unwrap();
        let cancel = pb::CancelRequest { run_id: run.id };
        let cancelled = server.runs().cancel(cancel).await.unwrap().into_inner();
        assert_ne!(cancelled.phase(), pb::Phase::Failed);
    }
    let mut other = Worker::join(&server, "other").await;
    let run = server.submit(spec()).await.unwrap();
    let Down::Assignment(at) = other.next().await else {
        panic!("no assignment")
    };
    assert_eq!(at.run_id, run.id);
    drop((deaf, other));
    server.stop().await;
}
