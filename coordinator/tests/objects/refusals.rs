//! Object stores on which a coordinator does not start.

use fovea_coordinator::{Coordinator, ServeError};

use super::*;

/// Why a coordinator on this folder does not start.
async fn refused(place: &Place, folder: &str, change: impl FnOnce(&mut Config)) -> ServeError {
    let mut config = Config {
        data_dir: place.dir.path().join(folder),
        ..Config::default()
    };
    place.with_bucket()(&mut config);
    change(&mut config);
    config.validate().unwrap();
    let error = Coordinator::open(config).await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_s3), ignore = "needs .s3-server: make s3-server")]
async fn each_wrong_object_store_has_its_sentence() {
    let place = Place::new().await;
    place.server().await.stop().await;
    let before = place.bucket.keys().await;
    assert_eq!(before, ["store.json"]);

    let error = refused(&place, "other", |_| {}).await.to_string();
    assert!(error.contains("belongs to another cluster"), "{error}");
    // The journal that this start has made is not in the way of one that is restored.
    assert!(!place.dir.path().join("other/journal.db").exists());
    // Another prefix is free.
    let with_bucket = place.with_bucket();
    let server = Server::start(&place.dir.path().join("other"), |config| {
        with_bucket(config);
        config.store = "s3://fovea/cluster/other".into();
    })
    .await;
    server.stop().await;

    let error = refused(&place, "b", |c| c.store = "s3://no-such-bucket/x".into())
        .await
        .to_string();
    assert!(
        error.contains("has no bucket") || error.contains("does not allow to"),
        "{error}"
    );
    let error = refused(&place, "c", |c| {
        c.store_endpoint = format!("http://127.0.0.1:{}", free_port())
    })
    .await;
    assert!(error.to_string().contains("is away"), "{error}");
    let tls = place.bucket.endpoint().replace("http:", "https:");
    let error = refused(&place, "d", |c| c.store_endpoint = tls)
        .await
        .to_string();
    assert!(error.contains("no TLS connection"), "{error}");
    assert!(
        !error.contains("fovea-secret") && !error.contains("fovea-key"),
        "{error}"
    );
}
