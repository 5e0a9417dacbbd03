//! Changes without TLS: as a client could make them, and from this dashboard's own pages only.

use fovea_proto::pb::{Phase, Priority};

use super::browser::Browser;
use super::pages::server;
use crate::common::*;

const RUN: &str = "name = \"form\"\r\ndataset = \"tiny\"\r\n[train]\r\nepochs = 2\r\nvirtual_ranks = 2\r\nbatch = 6\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_submitted_paused_resumed_and_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    let csrf = browser.get("/submit").await.csrf().to_owned();
    let wrong = RUN.replace("epochs = 2", "epoch = 2");
    let refused = browser
        .post("/submit", &[("csrf", &csrf), ("runfile", &wrong)])
        .await;
    assert_eq!(refused.status, 400);
    refused.contains("run file:4: train.epoch");
    refused.contains("did you mean");
    refused.contains("epoch = 2");
    let unknown = RUN.replace("tiny", "nothing");
    let refused = browser
        .post("/submit", &[("csrf", &csrf), ("runfile", &unknown)])
        .await;
    assert_eq!(refused.status, 404);
    refused.contains("there is no dataset nothing");
    let accepted = browser
        .post("/submit", &[("csrf", &csrf), ("runfile", RUN)])
        .await;
    assert_eq!(
        (accepted.status, accepted.header("location")),
        (303, "/runs/form-1")
    );

    let phase = async || server.run("form-1").await.phase();
    let fields = [("csrf", &*csrf)];
    let paused = browser.post("/runs/form-1/pause", &fields).await;
    assert_eq!(
        (paused.status, paused.header("location")),
        (303, "/runs/form-1")
    );
    assert_eq!(phase().await, Phase::Paused);
    let again = browser.post("/runs/form-1/pause", &fields).await;
    assert_eq!(again.status, 409);
    again.contains("only a run that is queued or under way can be paused");
    assert_eq!(
        browser.post("/runs/form-1/resume", &fields).await.status,
        303
    );
    assert_eq!(phase().await, Phase::Queued);
    let choice = |priority| [("csrf", &*csrf), ("priority", priority)];
    let high = browser.post("/runs/form-1/priority", &choice("high")).await;
    assert_eq!(
        (high.status, high.header("location")),
        (303, "/runs/form-1")
    );
    assert_eq!(server.run("form-1").await.priority(), Priority::High);
    let page = browser.get("/runs/form-1").await;
    page.contains("priority changed from normal to high");
    let urgent = browser
        .post("/runs/form-1/priority", &choice("urgent"))
        .await;
    assert_eq!(urgent.status, 400);
    urgent.contains("must be one of low, normal and high");
    // To ask whether it is meant changes nothing.
    browser
        .get("/runs/form-1/cancel")
        .await
        .contains("Cancel form-1?");
    assert_eq!(phase().await, Phase::Queued);
    assert_eq!(
        browser.post("/runs/form-1/cancel", &fields).await.status,
        303
    );
    assert_eq!(phase().await, Phase::Cancelled);
    let again = browser.get("/runs/form-1/cancel").await;
    assert_eq!(again.status, 409);
    again.contains("Run form-1 has ended (cancelled)");
    again.lacks("<form");
    let report = browser.get("/runs/form-1/report").await;
    assert_eq!(report.status, 409);
    report.contains("it was cancelled before one was stored");
    report.lacks(" yet");
    for none in ["/runs/none-7/cancel", "/runs/none-7/audit"] {
        assert_eq!(browser.get(none).await.status, 404, "{none}");
    }
    assert_eq!(
        browser.post("/runs/none-7/cancel", &fields).await.status,
        404
    );
    assert_eq!(
        browser.post("/runs/form-1/delete", &fields).await.status,
        404
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_site_can_change_anything() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    let run = server.submit(spec()).await.unwrap();
    let path = format!("/runs/{}/cancel", run.id);
    let csrf = browser.get("/submit").await.csrf().to_owned();
    let form = format!("csrf={csrf}");
    for (status, headers, body) in [
        (403, vec![], ""),
        (403, vec![], "csrf=00000000000000000000000000000000"),
        (403, vec![("origin", "http://evil.example")], &*form),
        (403, vec![("origin", "null")], &form),
        (403, vec![("sec-fetch-site", "cross-site")], &form),
        (421, vec![("host", "evil.example:7080")], &form),
        (415, vec![("content-type", "application/json")], &form),
        (415, vec![("content-type", "text/plain")], &form),
    ] {
        let answer = browser.ask("POST", &path, &headers, body).await;
        assert_eq!(
            answer.status, status,
            "{headers:?} {body:?}: {}",
            answer.body
        );
    }
    // Nor read it under a name of its own.
    let answer = browser
        .ask("GET", "/submit", &[("host", "evil.example")], "")
        .await;
    assert_eq!(answer.status, 421);
    answer.lacks(&csrf);
    assert_eq!(server.run(&run.id).await.phase(), Phase::Queued);
    let elsewhere = [("sec-fetch-site", "cross-site")];
    let stream = browser.ask("GET", "/live/", &elsewhere, "").await;
    assert_eq!(stream.status, 403, "another site opened a stream");
    let own = format!("http://{}", server.http);
    let answer = browser.ask("POST", &path, &[("origin", &own)], &form).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    assert_eq!(server.run(&run.id).await.phase(), Phase::Cancelled);
    server.stop().await;
}
