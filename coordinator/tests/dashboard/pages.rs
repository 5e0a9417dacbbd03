//! Pages of a coordinator without TLS.

use fovea_proto::pb;
use pb::released::Outcome;

use super::browser::{Answer, Browser};
use crate::common::*;

/// A coordinator with a dashboard and the dataset `tiny`.
pub async fn server(dir: &tempfile::TempDir) -> Server {
    let with_dashboard = |config: &mut fovea_coordinator::Config| {
        config.http_listen = "127.0.0.1:0".into();
    };
    let server = Server::start(&dir.path().join("data"), with_dashboard).await;
    server
        .upload(&dataset(dir.path(), "tiny", 1))
        .await
        .unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_keeps_the_policy_and_what_is_not_there_is_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    let front = browser.get("/").await;
    assert_eq!(front.status, 200);
    front.contains("Nothing trains.");
    front.contains("No worker is connected");
    front.contains("Free disk");
    for path in [
        "/",
        "/runs",
        "/workers",
        "/datasets",
        "/compare",
        "/submit",
        "/nothing",
        "/runs/no-1",
        "/runs/%3Cscript%3E",
    ] {
        let answer = browser.get(path).await;
        let expected = if path.contains("no") || path.contains('%') {
            404
        } else {
            200
        };
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'self'; "),
            "{path}: {policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("set-cookie"), "", "{path}");
        assert!(answer.header("access-control-allow-origin").is_empty());
    }
    let style = front.body.split("href=\"/assets/style-").nth(1).unwrap();
    let style = format!("/assets/style-{}", style.split('"').next().unwrap());
    let style = browser.get(&style).await;
    assert_eq!(
        (style.status, style.header("content-type")),
        (200, "text/css; charset=utf-8")
    );
    assert!(style.header("cache-control").contains("immutable"));
    assert_eq!(browser.get("/assets/../etc/passwd").await.status, 404);
    let head = browser.ask("HEAD", "/", &[], "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
    let put = browser.ask("PUT", "/", &[], "").await;
    assert_eq!((put.status, put.header("allow")), (405, "GET, HEAD, POST"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_from_the_queue_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    // The second worker is waited for, so that both are of the first generation.
    let both = pb::WorkersSpec {
        min: Some(2),
        max: Some(2),
        ..Default::default()
    };
    let wanted = pb::RunSpec {
        workers: Some(both),
        ..spec()
    };
    let run = server.submit(wanted).await.unwrap();
    let none = browser.get("/runs/r-1/report").await;
    assert_eq!(none.status, 409, "{}", none.body);
    none.contains("has no checkpoint yet");
    assert_eq!(browser.get("/runs/r-9/report").await.status, 404);
    let front = browser.get("/").await;
    front.contains("Waiting (1)");
    front.contains("href=\"/runs/r-1\"");
    front.contains("needs 2 workers; idle: 0");
    browser
        .get("/runs/r-1")
        .await
        .contains("No step has been taken yet.");

    let mut workers = [
        Worker::join(&server, "w0").await,
        Worker::join(&server, "w1").await,
    ];
    let at = workers[0].assignment().await;
    workers[1].assignment().await;
    for worker in &workers {
        worker.ready(&at).await;
    }
    server
        .run_when(&run.id, "a run that trains", |run| {
            run.phase() == pb::Phase::Running
        })
        .await;
    for step in 1..=2 {
        workers[0].step(&at, step).await;
    }
    for (rank, worker) in workers.iter().enumerate() {
        worker
            .scores(&at, rank as u32, 0, run.validation_samples)
            .await;
    }
    for (rank, worker) in workers.iter().enumerate() {
        worker.upload(&at, rank, 2, &state(0)).await.unwrap();
    }
    server
        .run_when(&run.id, "a checkpoint", |run| !run.checkpoints.is_empty())
        .await;
    let page = browser.get("/runs/r-1").await;
    page.contains("step 2 of 4, 1 of 2 epochs");
    page.contains("class=\"badge b-running\"");
    page.contains("Pause");
    page.contains("generation 1 trains on 2 workers");
    page.contains("<span class=\"id\">w1</span>");
    page.contains("class=\"best\"");
    // Its figures are computed aside.
    let figures = async {
        loop {
            let page = browser.get("/runs/r-1").await;
            if !page.body.contains("figures are being computed") {
                return page;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let page = soon("the figures", figures).await;
    page.contains("95 % intervals over patients from 200 draws");
    page.contains("high sensitivity");
    browser.get("/workers").await.contains("2 connected");
    browser
        .get("/datasets")
        .await
        .contains("<a class=\"id\" href=\"/runs/r-1\">");
    browser.get("/runs").await.contains("value=\"r-1\"");
    let compared = browser.get("/compare?run=r-1&run=x&run=r-9").await;
    compared.contains("Validation loss by epoch");
    compared.contains("there is no run r-9");
    browser
        .get("/runs/r-1")
        .await
        .contains("Compares the samples");

    for step in 3..=4 {
        workers[0].step(&at, step).await;
    }
    for (rank, worker) in workers.iter().enumerate() {
        worker
            .scores(&at, rank as u32, 1, run.validation_samples)
            .await;
        worker.upload(&at, rank, 4, &state(1)).await.unwrap();
    }
    for worker in &workers {
        worker.released(&at, Outcome::CompletedStep(4)).await;
    }
    server
        .run_when(&run.id, "its end", |run| {
            run.phase() == pb::Phase::Completed
        })
        .await;
    let page = browser.get("/runs/r-1").await;
    page.contains("class=\"badge b-completed\"");
    page.lacks("action=\"/runs/r-1/pause\"");
    page.contains("href=\"/runs/r-1/report\"");
    let page = the_report(&browser).await;
    page.contains("Leak check");
    page.contains("draws of patients");
    page.lacks("was removed");
    let audit = browser.get("/runs/r-1/audit").await;
    assert_eq!(audit.status, 200, "{}", audit.body);
    audit.contains("Steps in the ledger");
    browser
        .get("/runs/r-1")
        .await
        .contains("Steps in the ledger");
    browser.get("/").await.contains("Ended last");
    // An evaluation has no epochs, and is not compared by them.
    drop(workers);
    let request = pb::EvaluateRequest {
        run_id: "r-1".into(),
        step: 4,
        part: pb::Part::Train.into(),
        ..Default::default()
    };
    let asked = server.runs().evaluate(request).await.unwrap().into_inner();
    let evaluation = asked.run.unwrap().id;
    let list = browser.get("/runs").await;
    list.contains(&format!("href=\"/runs/{evaluation}\""));
    list.lacks(&format!("value=\"{evaluation}\""));
    let compared = browser.get(&format!("/compare?run={evaluation}")).await;
    compared.contains("is an evaluation of r-1 and has no epochs");
    compared.lacks("Results of the best epoch");
    let page = browser.get(&format!("/runs/{evaluation}")).await;
    page.contains("train part of tiny");
    page.lacks("Checkpoints (0)");
    let audit = browser.get(&format!("/runs/{evaluation}/audit")).await;
    assert_eq!(audit.status, 409, "{}", audit.body);
    let request = pb::CancelRequest { run_id: evaluation };
    server.runs().cancel(request).await.unwrap();
    // Without the labels it is another report.
    let request = pb::DeleteDatasetRequest {
        dataset: "tiny".into(),
    };
    server.datasets().delete(request).await.unwrap();
    the_report(&browser)
        .await
        .contains("of the run was removed");
    // The run's page says the same, also after a restart.
    let said = async |server: &Server| {
        let page = Browser::new(server).get("/runs/r-1").await;
        page.contains("of the run was removed");
        page.contains("<code>fovea dataset add</code>");
        page.lacks("Operating points");
    };
    said(&server).await;
    server.stop().await;
    let with_dashboard = |config: &mut fovea_coordinator::Config| {
        config.http_listen = "127.0.0.1:0".into();
    };
    let server = Server::start(&dir.path().join("data"), with_dashboard).await;
    said(&server).await;
    server.stop().await;
}

/// The report of r-1, when it is computed: a page, and the file that the command line writes.
async fn the_report(browser: &Browser) -> Answer {
    let computed = async {
        loop {
            let page = browser.get("/runs/r-1/report").await;
            match page.status {
                200 => return page,
                _ => assert_eq!((page.status, page.header("refresh")), (202, "2")),
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let page = soon("the report", computed).await;
    page.contains("r-1 · Fovea report");
    page.contains("<a href=\"/runs/r-1\">");
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src"),
        "{policy}"
    );
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("script"), "{policy}");
    let file = browser.get("/runs/r-1/report?file").await;
    let kept = file.header("content-disposition");
    assert_eq!(kept, "attachment; filename=\"r-1.html\"");
    file.lacks("href=\"/runs/r-1\"");
    page
}

/// Patients are counted aside from the dataset's index.
#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_shows_its_grades_and_patients() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let browser = Browser::new(&server);
    let index = std::fs::read_to_string(dir.path().join("tiny/index.csv"));
    let counted = async {
        loop {
            let page = browser.get("/datasets").await;
            if !page.body.contains("<td class=\"n\">–</td>") {
                return page;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let page = soon("the number of patients", counted).await;
    page.contains("dataset tiny");
    page.contains("Training: none");
    page.contains("no run under way");
    drop(index);
    server.stop().await;
}
