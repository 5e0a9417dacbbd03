//! With TLS people log in, and may do what their role allows.

use fovea_proto::pb;
use fovea_proto::pb::Phase;
use fovea_security::Role;
use pb::tokens_client::TokensClient;

use super::browser::Browser;
use super::pki::{Pki, load};
use crate::common::*;

/// A token, and its id.
async fn token(server: &Server, role: &str, name: &str) -> (String, String) {
    let request = pb::CreateTokenRequest {
        role: role.into(),
        name: name.into(),
        valid_s: 600,
        uses: 0,
    };
    let mut tokens = TokensClient::new(server.channel.clone());
    let made = tokens.create(request).await.unwrap().into_inner();
    (made.token, made.info.unwrap().id)
}

async fn somebody(server: &Server, role: &str, name: &str) -> Browser {
    let mut browser = Browser::new(server);
    let (token, _) = token(server, role, name).await;
    let answer = browser.log_in(&token).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/runs"),
        "{}",
        answer.body
    );
    browser
}

async fn secure(pki: &Pki, listen: &'static str) -> Server {
    let ca_key = pki.ca_key();
    let server = pki
        .server(|config| {
            config.http_listen = listen.into();
            config.tls_ca_key = ca_key;
        })
        .await;
    server
        .upload(&dataset(pki.path(), "tiny", 1))
        .await
        .unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_before_the_login_and_only_a_token_of_a_person_opens_it() {
    let pki = Pki::new("eyes");
    let server = secure(&pki, "127.0.0.1:0").await;
    let mut browser = Browser::new(&server);
    let run = server.submit(spec()).await.unwrap();
    for path in [
        "/",
        "/runs",
        "/runs/r-1",
        "/workers",
        "/datasets",
        "/submit",
        "/runs/r-1/audit",
        "/nothing",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(
            answer.header("location").starts_with("/login?next=%2F"),
            "{path}"
        );
        answer.lacks(&run.id);
    }
    assert_eq!(browser.get("/live/").await.status, 401);
    let csrf = browser.get("/login").await.csrf().to_owned();
    let answer = browser.post("/runs/r-1/cancel", &[("csrf", &csrf)]).await;
    assert_eq!(answer.status, 303);
    assert_eq!(server.run("r-1").await.phase(), Phase::Queued);

    let (worker, _) = token(&server, "worker", "").await;
    for wrong in ["", "nonsense", "a\nb", &worker] {
        let answer = browser.log_in(wrong).await;
        assert_eq!(
            (answer.status, answer.header("set-cookie")),
            (401, ""),
            "{wrong:?}"
        );
    }
    let (vic, id) = token(&server, "viewer", "vic").await;
    let answer = browser.log_in(&vic).await;
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(
        !cookie.contains(&vic) && !cookie.contains("Secure"),
        "{cookie}"
    );
    browser.get("/").await.contains("vic");
    // A revoked token ends the session at once.
    let mut tokens = TokensClient::new(server.channel.clone());
    tokens.revoke(pb::RevokeTokenRequest { id }).await.unwrap();
    let answer = browser.get("/").await;
    assert_eq!(answer.status, 401);
    answer.contains("was revoked");
    answer.lacks("r-1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_those_of_the_api() {
    let pki = Pki::new("eyes");
    let server = secure(&pki, "127.0.0.1:0").await;
    let vic = somebody(&server, "viewer", "vic").await;
    let mut ann = somebody(&server, "submitter", "ann").await;
    let bob = somebody(&server, "submitter", "bob").await;
    let root = somebody(&server, "admin", "root").await;
    let run_file =
        "name = 'form'\ndataset = 'tiny'\n[train]\nepochs = 2\nvirtual_ranks = 2\nbatch = 6\n";
    let csrf = async |browser: &Browser| browser.get("/").await.csrf().to_owned();
    let submit = async |browser: &Browser| {
        let csrf = csrf(browser).await;
        browser
            .post("/submit", &[("csrf", &csrf), ("runfile", run_file)])
            .await
    };
    vic.get("/").await.lacks("href=\"/submit\"");
    // Whoever may look may read reports; this run has none yet.
    let nobody = Browser::new(&server).get("/runs/form-1/report").await;
    assert_eq!(
        nobody.header("location"),
        "/login?next=%2Fruns%2Fform-1%2Freport"
    );
    assert_eq!(vic.get("/runs/form-1/report").await.status, 404);
    let refused = submit(&vic).await;
    assert_eq!(refused.status, 403);
    refused.contains("may not do this");
    assert_eq!(submit(&ann).await.header("location"), "/runs/form-1");
    assert_eq!(server.run("form-1").await.submitted_by, "ann");

    let pause = async |browser: &Browser| {
        let csrf = csrf(browser).await;
        browser.post("/runs/form-1/pause", &[("csrf", &csrf)]).await
    };
    let page = bob.get("/runs/form-1").await;
    page.contains("Belongs to ann: you may look, not change.");
    page.lacks("action=\"/runs/form-1/pause\"");
    page.lacks("action=\"/runs/form-1/priority\"");
    let page = vic.get("/runs/form-1").await;
    page.contains("You may look, not change.");
    page.lacks("may not do this");
    page.lacks("token");
    assert_eq!(vic.get("/runs/form-1/cancel").await.status, 403);
    let form = vic.get("/submit").await;
    assert_eq!(form.status, 403);
    form.contains("A viewer may look, not submit. A submitter or an admin may");
    form.lacks("<textarea");
    for (browser, why) in [(&vic, "may not do this"), (&bob, "form-1 belongs to ann")] {
        let refused = pause(browser).await;
        assert_eq!(refused.status, 403);
        refused.contains(why);
        assert_eq!(server.run("form-1").await.phase(), Phase::Queued);
    }
    // One's token does not serve another's form.
    let of_ann = csrf(&ann).await;
    let stolen = bob.post("/runs/form-1/pause", &[("csrf", &of_ann)]).await;
    assert_eq!(stolen.status, 403);
    ann.get("/runs/form-1")
        .await
        .contains("action=\"/runs/form-1/pause\"");
    assert_eq!(pause(&ann).await.status, 303);
    assert_eq!(server.run("form-1").await.phase(), Phase::Paused);
    let csrf_of_root = csrf(&root).await;
    let cancelled = root
        .post("/runs/form-1/cancel", &[("csrf", &csrf_of_root)])
        .await;
    assert_eq!(cancelled.status, 303);

    let out = ann.post("/logout", &[("csrf", &csrf(&ann).await)]).await;
    assert!(out.header("set-cookie").contains("Max-Age=0"), "{out:?}");
    assert_eq!(ann.get("/").await.status, 303, "the session lives on");
    ann.cookie.clear();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_this_machine_it_speaks_tls() {
    let pki = Pki::new("eyes");
    let server = secure(&pki, "0.0.0.0:0").await;
    let mut plain = Browser::with_tls(&server, load(pki.issue(Role::Viewer, "x", 1)));
    let with_certificate = plain.clone();
    let page = with_certificate.get("/").await;
    assert_eq!(page.status, 200, "{}", page.body);
    page.contains("<b>x</b>");
    page.lacks("Log out");
    // A worker's certificate is no person's.
    let worker = Browser::with_tls(&server, load(pki.issue(Role::Worker, "w", 1)));
    let refused = worker.get("/").await;
    assert_eq!(refused.status, 403);
    refused.contains("w (worker) may not do this");

    let port = server.http.rsplit_once(':').unwrap().1.to_owned();
    plain = Browser::new(&server);
    let told = plain.get("/").await;
    assert_eq!(told.status, 400);
    told.contains("Write https:// in front of the address.");
    drop(port);
    server.stop().await;
}
