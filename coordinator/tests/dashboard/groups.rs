//! The pages of groups: what they show, what keeps them up to date, and cancelling by whom it belongs to.

use fovea_proto::pb;
use pb::Phase;

use super::browser::Browser;
use super::live::{follow, until};
use super::pages::server;
use crate::common::*;

/// A sweep of two learning rates over two folds, with a rung after the first of two epochs.
pub fn sweep() -> pb::SubmitGroupRequest {
    let variant = |rate: f64| {
        let mut spec = spec();
        if let Some(train) = &mut spec.train {
            train.learning_rate = Some(rate);
        }
        pb::Variant {
            label: format!("train.learning_rate={rate}"),
            spec: Some(spec),
        }
    };
    pb::SubmitGroupRequest {
        spec: Some(spec()),
        folds: 2,
        variants: vec![variant(0.001), variant(0.003)],
        selection: Some(pb::Selection {
            by: pb::BestBy::Auc.into(),
            after_epochs: vec![1],
            keep_one_of: 2,
            patience: 0,
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_shown_followed_and_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    browser.get("/groups").await.contains("No groups yet");
    let group = server.groups().submit(sweep()).await.unwrap().into_inner();
    assert_eq!(group.id, "r-g1");
    let list = browser.get("/groups").await;
    list.contains("href=\"/groups/r-g1\"");
    list.contains("sweep: 2 variants, each: 2 folds · tiny");
    list.contains("4 queued");
    let page = browser.get("/groups/r-g1").await;
    assert_eq!(page.status, 200);
    page.contains("data-live=\"/live/groups/r-g1\"");
    page.contains("train.learning_rate");
    page.contains("after epoch 1 the variants are ranked by AUC and one of 2 goes on");
    page.contains("href=\"/runs/r.v2.f1-4\"");
    browser
        .get("/runs/r.v2.f1-4")
        .await
        .contains("href=\"/groups/r-g1\"");
    browser.get("/runs").await.contains("href=\"/groups/r-g1\"");
    for none in ["/groups/r-g9", "/groups/no-1", "/groups/%3Cb%3E"] {
        assert_eq!(browser.get(none).await.status, 404, "{none}");
    }

    // An open page learns of a change of one run.
    let mut stream = follow(&browser, "/live/groups/r-g1").await;
    until(&mut stream, "id=\"runs\"").await;
    let request = pb::PauseRequest {
        run_id: "r.v1.f2-3".into(),
    };
    server.runs().pause(request).await.unwrap();
    let changed = until(&mut stream, "3 queued, 1 paused").await;
    assert!(!changed.contains("id=\"plan\""), "{changed}");

    // To ask whether it is meant changes nothing, and without the token of a form nothing is changed.
    let asked = browser.get("/groups/r-g1/cancel").await;
    asked.contains("Cancel r-g1?");
    let path = "/groups/r-g1/cancel";
    assert_eq!(browser.post(path, &[]).await.status, 403);
    assert_eq!(server.run("r.v1.f1-2").await.phase(), Phase::Queued);
    let csrf = asked.csrf().to_owned();
    let fields = [("csrf", &*csrf)];
    let cancelled = browser.post(path, &fields).await;
    assert_eq!(
        (cancelled.status, cancelled.header("location")),
        (303, "/groups/r-g1")
    );
    for member in &group.runs {
        let phase = server.run(&member.run_id).await.phase();
        assert_eq!(phase, Phase::Cancelled, "{}", member.run_id);
    }
    let page = browser.get("/groups/r-g1").await;
    page.contains(">ended</span>");
    page.lacks("href=\"/groups/r-g1/cancel\"");
    let asked = browser.get(path).await;
    assert_eq!(asked.status, 409);
    asked.contains("All runs of group r-g1 have ended");
    assert_eq!(browser.get("/groups/r-g9/cancel").await.status, 404);
    let again = browser.post(path, &fields).await;
    assert_eq!(again.status, 409);
    again.contains("nothing to cancel");
    let none = browser.post("/groups/r-g9/cancel", &fields).await;
    assert_eq!(none.status, 404);
    server.stop().await;
}

/// What is asked of the page of the list.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_groups_is_cut_into_pages() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    for _ in 0..21 {
        let request = pb::SubmitGroupRequest {
            spec: Some(spec()),
            seeds: vec![1, 2],
            ..Default::default()
        };
        server.groups().submit(request).await.unwrap();
    }
    // Each has three numbers: its own, and those of its runs.
    let first = browser.get("/groups").await;
    first.contains("/groups/r-g61\"");
    first.lacks("/groups/r-g1\"");
    first.contains("href=\"/groups?before=4\"");
    let second = browser.get("/groups?before=4").await;
    second.contains("/groups/r-g1\"");
    second.lacks("?before=");
    second.contains("Newest");
    server.stop().await;
}
