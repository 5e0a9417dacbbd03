//! What is taken and what is refused.

use pb::create_weights_response::Outcome;
use tonic::Code;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_checked_stored_listed_and_added_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    assert_eq!(list(&server).await, []);
    let digest = sha256(googlenet());
    let (stored, outcome) = add(&server, "", "bvlc.safetensors", googlenet())
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Added);
    assert_eq!((&*stored.name, &*stored.sha256), ("bvlc", &*digest));
    assert_eq!(stored.size_bytes, googlenet().len() as u64);
    assert_eq!(stored.format, "safetensors");
    assert_eq!(stored.layers.len(), 57);
    assert_eq!(stored.layers[0].name, "conv1/7x7_s2");
    assert_eq!(stored.layers[0].shape, [64, 3, 7, 7]);
    let reason = |name: &str| {
        let layer = stored.ignored.iter().find(|layer| layer.name == name);
        layer.expect(name).reason.clone()
    };
    assert!(reason("loss1/fc").contains("auxiliary head"));
    assert!(reason(HEAD).contains("each run trains a new one"));
    assert!(stored.added_at_ms > 1_700_000_000_000);
    assert_eq!(list(&server).await, std::slice::from_ref(&stored));
    assert_eq!(fetch(&server, &digest).await.unwrap(), googlenet());

    // Again, under whatever name the file has; and the header alone is enough.
    let again = add(&server, "", "other.safetensors", googlenet()).await;
    assert_eq!(again.unwrap(), (stored.clone(), Outcome::Unchanged));
    let header = header("bvlc", "x", googlenet());
    let parts = tokio_stream::iter(parts(header, &[]));
    let reply = client(&server).create(parts).await.unwrap().into_inner();
    assert_eq!(reply.outcome(), Outcome::Unchanged);
    let renamed = add(&server, "other", "x", googlenet()).await;
    refused(renamed, Code::AlreadyExists, "fovea weights rm bvlc");

    // Another file of the same name.
    let other = crafted::googlenet(&[], |_| {});
    let taken = add(&server, "bvlc", "x", &other).await;
    refused(taken, Code::AlreadyExists, &digest);
    let (second, _) = add(&server, "", "bvlc.caffemodel", &other).await.unwrap();
    assert_eq!(second.name, format!("bvlc-{}", &sha256(&other)[..8]));

    // They survive the coordinator.
    let listed = list(&server).await;
    assert_eq!(listed.len(), 2);
    server.kill().await;
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    assert_eq!(list(&server).await, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_googlenet_is_refused_with_the_layer_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let missing = crafted::googlenet(&[], |shapes| {
        shapes.retain(|(name, _)| name != "inception_5b/pool_proj.bias");
    });
    let misshapen = crafted::googlenet(&[], |shapes| {
        let of_layer = |(name, _): &&mut (String, Vec<usize>)| name == "inception_3a/1x1.weight";
        shapes.iter_mut().find(of_layer).unwrap().1 = vec![64, 192];
    });
    for (bytes, named) in [
        (
            &missing[..],
            "w.x has no bias of layer inception_5b/pool_proj",
        ),
        (
            &misshapen,
            "layer inception_3a/1x1: its weight has the shape [64, 192]",
        ),
        (&[7; 500], "w.x is not a .caffemodel"),
        (b"\x02\0\0\0\0\0\0\0{}", "no weight of layer conv1/7x7_s2"),
    ] {
        let added = add(&server, "", "w.x", bytes).await;
        refused(added, Code::InvalidArgument, named);
    }

    // Headers and streams that cannot be.
    let good = header("", "w.x", googlenet());
    let with = |change: fn(&mut pb::WeightsHeader)| {
        let mut header = good.clone();
        change(&mut header);
        header
    };
    let cases: [(pb::WeightsHeader, &str); 6] = [
        (with(|h| h.name = "a/b".into()), "header.name"),
        (
            with(|h| h.name = "w.safetensors".into()),
            "taken for a path",
        ),
        (with(|h| h.sha256 = "xyz".into()), "header.sha256"),
        (with(|h| h.file_name = "\n".into()), "header.file_name"),
        (with(|h| h.size_bytes = 0), "header.size_bytes"),
        (with(|h| h.size_bytes = 1 << 40), "header.size_bytes"),
    ];
    for (header, named) in cases {
        let parts = parts(header, googlenet());
        let reply = client(&server).create(tokio_stream::iter(parts)).await;
        refused(reply, Code::InvalidArgument, named);
    }
    let all = parts(good.clone(), googlenet());
    let twice = [&all[..1], &all[..]].concat();
    let short = all[..all.len() - 1].to_vec();
    let long = [&all[..], &all[1..2]].concat();
    let mut other = good.clone();
    other.sha256 = "0".repeat(64);
    let cases = [
        (all[1..].to_vec(), "header: must come first"),
        (twice, "header: comes only once"),
        (short, "the stream ended early"),
        (long, "data: has 1048576 bytes"),
        (
            parts(other, googlenet()),
            "w.x arrived damaged: its SHA-256 is",
        ),
        (vec![pb::CreateWeightsRequest { part: None }], "header"),
    ];
    for (parts, named) in cases {
        let reply = client(&server).create(tokio_stream::iter(parts)).await;
        refused(reply, Code::InvalidArgument, named);
    }
    assert_eq!(list(&server).await, []);
    let folder = dir.path().join("data/weights");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    eventually("the uploads' folders are removed", || {
        names() == ["store.json"]
    })
    .await;
    assert!(add(&server, "", "w.x", googlenet()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_heed_free_space_and_limits() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), |config| {
        config.min_free_mib = 1 << 40;
        config.max_uploads_per_client = 1;
    })
    .await;
    let full = add(&server, "", "w.x", googlenet()).await;
    refused(full, Code::ResourceExhausted, "min_free_mib");
    // One that is under way takes the only place.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut first = client(&server);
    let open = tokio::spawn(async move { first.create(stream).await });
    let limited = async {
        loop {
            match add(&server, "", "w.x", googlenet()).await {
                Err(status) if status.message().contains("max_uploads_per_client") => return,
                _ => tokio::time::sleep(POLL).await,
            }
        }
    };
    soon("the limit of uploads", limited).await;
    drop(sender);
    refused(open.await.unwrap(), Code::InvalidArgument, "header");
}
