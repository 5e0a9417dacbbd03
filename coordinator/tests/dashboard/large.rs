//! A large cluster: pages stay small.

use std::time::Instant;

use fovea_proto::pb;

use super::browser::Browser;
use super::groups::sweep;
use super::pages::server;
use crate::common::*;

const RUNS: usize = 200;
const WORKERS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_200_runs_and_200_workers_are_below_300_kb() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    for _ in 0..RUNS {
        server.submit(spec()).await.unwrap();
    }
    // A sweep of as many runs as a group can have: under way, and ended, when each is read from the journal.
    let variants = sweep_of(50);
    for _ in 0..2 {
        server.groups().submit(variants.clone()).await.unwrap();
    }
    let ended = format!("r-g{}", RUNS + 1);
    let request = pb::CancelGroupRequest {
        group_id: ended.clone(),
    };
    server.groups().cancel(request).await.unwrap();
    let under_way = format!("/groups/r-g{}", RUNS + 102);
    let ended = format!("/groups/{ended}");
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(Worker::join(&server, &format!("node-{number}-4711-0a1b2c3d")).await);
    }
    let request = pb::ListWorkersRequest {};
    let listed = server.cluster().list_workers(request).await.unwrap();
    assert_eq!(listed.into_inner().workers.len(), WORKERS);
    let browser = Browser::new(&server);
    browser.get("/workers").await.contains("page 1 of 2");
    browser
        .get("/workers?page=2")
        .await
        .contains("node-199-4711-0a1b2c3d");
    browser
        .get("/runs")
        .await
        .contains(&format!("href=\"/runs?before={}\"", RUNS + 153));
    browser.get("/runs?before=51").await.lacks("?before=");
    for path in [
        "/",
        "/runs",
        "/runs/r-1",
        "/groups",
        &under_way,
        &ended,
        "/workers",
        "/datasets",
        "/compare?run=r-1&run=r-2",
        "/submit",
    ] {
        let asked = Instant::now();
        let page = browser.get(path).await;
        println!("{path}: {} bytes in {:?}", page.body.len(), asked.elapsed());
        assert_eq!(page.status, 200, "{path}");
        assert!(
            page.body.len() < 300_000,
            "{path} has {} bytes",
            page.body.len()
        );
    }
    drop(workers);
    server.stop().await;
}

/// The sweep with so many variants, each over two folds.
fn sweep_of(variants: usize) -> pb::SubmitGroupRequest {
    let mut sweep = sweep();
    let first = sweep.variants[0].clone();
    let variant = |at: usize| {
        let mut variant = first.clone();
        let rate = 0.001 + at as f64 * 0.0001;
        let train = variant.spec.as_mut().unwrap().train.as_mut().unwrap();
        train.learning_rate = Some(rate);
        variant.label = format!("train.learning_rate={rate}");
        variant
    };
    sweep.variants = (0..variants).map(variant).collect();
    sweep
}
