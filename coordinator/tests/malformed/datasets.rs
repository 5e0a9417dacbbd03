//! `Datasets`.

use fovea_proto::{CHUNK_BYTES, pb};
use tonic::Code::{AlreadyExists, InvalidArgument, NotFound};

use super::{bad_ids, server, still_serves};
use crate::common::*;

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
    // A broken stream: the client disconnects in the middle.
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

    // The same dataset again is accepted; another one under this name is refused.
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
