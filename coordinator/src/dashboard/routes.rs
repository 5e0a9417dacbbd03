//! From a request to its answer.

use std::path::Path;
use std::time::Duration;

use form_urlencoded::{Serializer, parse};
use fovea_core::ids::{GroupId, RunId};
use fovea_core::priority::Priority;
use fovea_dashboard::page::{audit, login, may_not_submit, message, submit};
use fovea_dashboard::{Here, Sheet, Shell, document};
use fovea_proto::pb;
use fovea_runfile::RunFile;
use fovea_service::VERSION;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::time::timeout;
use tonic::Status;
use tracing::info;

use super::Dashboard;
use super::reply::{
    Reply, again, asset, by_itself, file, html, only, script, see, style, with_cookie,
};
use super::sessions::LASTS_S;
use super::views::{Refusal, View};
use super::visitor::{LOOK, Peer, Visitor, check_host, check_origin, same_csrf};
use crate::clock::unix_ms;
use crate::net::Client;

/// The most bytes of a form, and how long they may take.
const FORM_BYTES: usize = 128 << 10;
const FORM_TIME: Duration = Duration::from_secs(10);

/// The fields of a form.
type Form = Vec<(String, String)>;

/// Answers one request.
pub(super) async fn answer(
    dashboard: &Dashboard,
    peer: &Peer,
    request: Request<Incoming>,
) -> Reply {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let asking = Asking {
        dashboard,
        peer,
        visitor: dashboard.visitor(peer, &head.headers),
    };
    if !peer.is_private
        && let Err(problem) = check_host(&head.headers, &dashboard.0.context.config.http_listen)
    {
        let refusal = Refusal::new(StatusCode::MISDIRECTED_REQUEST, "Another name", problem);
        return asking.refused(&refusal, None);
    }
    if let Some(name) = path.strip_prefix("/assets/") {
        return asset(name).unwrap_or_else(|| html(StatusCode::NOT_FOUND, String::new()));
    }
    // Whoever opens streams here from elsewhere cannot read them, but takes their places.
    if path.starts_with("/live")
        && let Err(problem) = check_origin(&head.headers)
    {
        let refusal = Refusal::new(StatusCode::FORBIDDEN, "Not from here", problem);
        return asking.refused(&refusal, None);
    }
    match head.method {
        Method::GET | Method::HEAD => asking.get(&path, &query).await,
        Method::POST => {
            if let Err(problem) = check_origin(&head.headers) {
                let refusal = Refusal::new(StatusCode::FORBIDDEN, "Not from here", problem);
                return asking.refused(&refusal, None);
            }
            match form(&head.headers, body).await {
                Ok(form) => asking.post(&path, &form).await,
                Err(refusal) => asking.refused(&refusal, None),
            }
        }
        _ => only("GET, HEAD, POST"),
    }
}

/// Reads a form.
async fn form(headers: &HeaderMap, body: Incoming) -> Result<Form, Refusal> {
    let bad = |status, text: &str| Err(Refusal::new(status, "Not accepted", text));
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if kind != Some("application/x-www-form-urlencoded") {
        let text = "A form is expected (application/x-www-form-urlencoded).";
        return bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    match timeout(FORM_TIME, Limited::new(body, FORM_BYTES).collect()).await {
        Ok(Ok(read)) => Ok(parse(&read.to_bytes()).into_owned().collect()),
        Ok(Err(_)) => bad(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The form is larger than 128 KiB, or it broke off.",
        ),
        Err(_) => bad(
            StatusCode::REQUEST_TIMEOUT,
            "The form did not come within 10 s.",
        ),
    }
}

fn field<'a>(form: &'a Form, name: &str) -> &'a str {
    let found = form.iter().find(|(key, _)| key == name);
    found.map_or("", |(_, value)| value)
}

/// A request by somebody.
struct Asking<'a> {
    dashboard: &'a Dashboard,
    peer: &'a Peer,
    visitor: Visitor,
}

impl Asking<'_> {
    async fn get(&self, path: &str, query: &str) -> Reply {
        if path == "/login" {
            return match self.visitor.caller {
                Some(_) => see("/"),
                None => {
                    let mut pairs = parse(query.as_bytes());
                    let next = pairs.find(|(key, _)| key == "next");
                    let next = next.map_or_else(|| "/".into(), |(_, next)| next.into_owned());
                    self.login(StatusCode::OK, &next, None)
                }
            };
        }
        if let Some(turned_away) = self.let_in(path, query) {
            return turned_away;
        }
        if let Some(page) = path.strip_prefix("/live") {
            return self.live(page, query).await;
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match *parts {
            ["submit"] => self.form_to_submit(),
            ["runs", id, "cancel"] => match RunId::new(id) {
                Ok(run) => {
                    let asked = self.dashboard.ask_cancel(&self.visitor, &run).await;
                    self.asked(asked, Here::Runs, &format!("/runs/{run}"))
                }
                Err(_) => self.refused(&Refusal::no_page(), None),
            },
            ["groups", id, "cancel"] => match GroupId::new(id) {
                Ok(group) => {
                    let asked = self.dashboard.ask_cancel_group(&self.visitor, &group).await;
                    self.asked(asked, Here::Groups, &format!("/groups/{group}"))
                }
                Err(_) => self.refused(&Refusal::no_page(), None),
            },
            ["runs", id, "audit"] => match RunId::new(id) {
                Ok(run) => {
                    let found = self.dashboard.audit(&self.visitor, &run).await;
                    let sheet = found.map(|found| audit(run.as_str(), &found));
                    self.asked(sheet, Here::Runs, &format!("/runs/{run}"))
                }
                Err(_) => self.refused(&Refusal::no_page(), None),
            },
            ["runs", id, "report"] => match RunId::new(id) {
                Ok(run) => self.report(&run, query).await,
                Err(_) => self.refused(&Refusal::no_page(), None),
            },
            _ => match View::parse(path, query) {
                Some(view) => match self.dashboard.sheet(&self.visitor, &view).await {
                    Ok(sheet) => {
                        let with_query = match query {
                            "" => format!("/live{path}"),
                            query => format!("/live{path}?{query}"),
                        };
                        let live = view.is_live().then_some(with_query);
                        self.page(StatusCode::OK, view.here(), live, &sheet)
                    }
                    Err(refusal) => self.refused(&refusal, None),
                },
                None => self.refused(&Refusal::no_page(), None),
            },
        }
    }

    /// A page about something that may not be there, with the way back to it.
    fn asked(&self, sheet: Result<Sheet, Refusal>, here: Here, back: &str) -> Reply {
        match sheet {
            Ok(sheet) => self.page(StatusCode::OK, here, None, &sheet),
            Err(refusal) => {
                let back = Some(back).filter(|_| refusal.status != StatusCode::NOT_FOUND);
                self.refused(&refusal, back)
            }
        }
    }

    fn form_to_submit(&self) -> Reply {
        let viewer = self.dashboard.viewer(&self.visitor);
        let role = viewer.filter(|viewer| !viewer.may_submit);
        match role.and_then(|viewer| viewer.named) {
            Some((_, role)) => {
                let sheet = may_not_submit(&role);
                self.page(StatusCode::FORBIDDEN, Here::Submit, None, &sheet)
            }
            None => {
                let form = submit(&self.visitor.csrf, None, None);
                self.page(StatusCode::OK, Here::Submit, None, &form)
            }
        }
    }

    /// The report of a run: a page of its own, or, with `?file`, the file that `fovea report` writes.
    async fn report(&self, run: &RunId, query: &str) -> Reply {
        let back = format!("/runs/{run}");
        match self.dashboard.report(&self.visitor, run).await {
            Ok(Some(report)) => match parse(query.as_bytes()).any(|(key, _)| key == "file") {
                true => file(&format!("{run}.html"), fovea_report::html(&report)),
                false => by_itself(fovea_report::html_from(&report, &back)),
            },
            Ok(None) => {
                let text = "The report is being computed. This page asks for it again.";
                let sheet = message("One moment", text, Some(&back));
                again(self.page(StatusCode::ACCEPTED, Here::Runs, None, &sheet))
            }
            Err(refusal) => self.refused(&refusal, Some(&back)),
        }
    }

    async fn live(&self, page: &str, query: &str) -> Reply {
        let view = View::parse(page, query).filter(View::is_live);
        let Some(view) = view else {
            return self.refused(&Refusal::no_page(), None);
        };
        if let Err(refusal) = self.dashboard.check_there(&view).await {
            return self.refused(&refusal, None);
        }
        let caller = self.visitor.caller.clone().unwrap_or_default();
        let client = Client::member(self.peer.address.ip(), caller.identity);
        match self.dashboard.0.context.limits.watch(Some(client)) {
            Ok(permit) => self.dashboard.live(self.visitor.clone(), view, permit),
            Err(reached) => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let refusal = Refusal::new(status, "Too much at once", reached.to_string());
                self.refused(&refusal, None)
            }
        }
    }

    async fn post(&self, path: &str, form: &Form) -> Reply {
        if !same_csrf(field(form, "csrf"), &self.visitor.csrf) {
            let text = "This form is of an older page: the coordinator was restarted, or you logged in or out since. Go back, \
                        reload, and try again.";
            let refusal = Refusal::new(StatusCode::FORBIDDEN, "Try again", text);
            return self.refused(&refusal, None);
        }
        if path == "/login" {
            return self.log_in(form);
        }
        if let Some(turned_away) = self.let_in("/", "") {
            return turned_away;
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match *parts {
            ["logout"] => {
                if let Some(session) = &self.visitor.session {
                    self.dashboard.0.sessions.end(session);
                }
                let cookie = self.dashboard.cookie(self.peer.is_private);
                with_cookie(see("/login"), &cookie, "", 0)
            }
            ["submit"] => self.submit(field(form, "runfile")).await,
            ["runs", id, what @ ("pause" | "resume" | "cancel")] => match RunId::new(id) {
                Ok(run) => {
                    let back = format!("/runs/{run}");
                    match self.change(&run, what).await {
                        Ok(()) => see(&back),
                        Err(status) => self.refused(&status.into(), Some(&back)),
                    }
                }
                Err(_) => self.refused(&Refusal::no_page(), None),
            },
            ["runs", id, "priority"] => match RunId::new(id) {
                Ok(run) => {
                    let back = format!("/runs/{run}");
                    match self.set_priority(&run, field(form, "priority")).await {
                        Ok(()) => see(&back),
                        Err(status) => self.refused(&status.into(), Some(&back)),
                    }
                }
                Err(_) => self.refused(&Refusal::no_page(), None),
            },
            ["groups", id, "cancel"] => match GroupId::new(id) {
                Ok(group) => {
                    let back = format!("/groups/{group}");
                    match self.cancel_group(&group).await {
                        Ok(()) => see(&back),
                        Err(status) => self.refused(&status.into(), Some(&back)),
                    }
                }
                Err(_) => self.refused(&Refusal::no_page(), None),
            },
            _ => self.refused(&Refusal::no_page(), None),
        }
    }

    /// Asks the services for another priority.
    async fn set_priority(&self, run: &RunId, name: &str) -> Result<(), Status> {
        let known = Priority::ALL.into_iter().find(|p| p.as_str() == name);
        let request = pb::SetPriorityRequest {
            run_id: run.to_string(),
            // The service refuses one that is not set.
            priority: known.map_or(0, |known| pb::Priority::from(known).into()),
        };
        let mut runs = self.dashboard.0.api.runs(&self.visitor);
        runs.set_priority(request).await?;
        Ok(())
    }

    async fn cancel_group(&self, group: &GroupId) -> Result<(), Status> {
        let mut groups = self.dashboard.0.api.groups(&self.visitor);
        let group_id = group.to_string();
        groups.cancel(pb::CancelGroupRequest { group_id }).await?;
        Ok(())
    }

    /// Asks the services for a change, as a client would.
    async fn change(&self, run: &RunId, what: &str) -> Result<(), Status> {
        let mut runs = self.dashboard.0.api.runs(&self.visitor);
        let run_id = run.to_string();
        match what {
            "pause" => runs.pause(pb::PauseRequest { run_id }).await?,
            "cancel" => runs.cancel(pb::CancelRequest { run_id }).await?,
            _ => {
                let request = pb::ResumeRequest {
                    run_id,
                    checkpoint_step: None,
                };
                runs.resume(request).await?
            }
        };
        Ok(())
    }

    async fn submit(&self, text: &str) -> Reply {
        let refused = |status, problem: &str| {
            let form = submit(&self.visitor.csrf, Some(text), Some(problem));
            self.page(status, Here::Submit, None, &form)
        };
        // Browsers send lines with a carriage return.
        let plain = text.replace("\r\n", "\n");
        let spec = RunFile::parse("run file", Path::new(""), &plain).and_then(|file| file.spec());
        let spec = match spec {
            Ok(spec) => spec,
            Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let request = pb::SubmitRequest {
            spec: Some((&spec).into()),
        };
        let mut runs = self.dashboard.0.api.runs(&self.visitor);
        match runs.submit(request).await {
            Ok(reply) => match reply.into_inner().run {
                Some(run) => see(&format!("/runs/{}", run.id)),
                None => see("/runs"),
            },
            Err(status) => {
                let refusal = Refusal::from(status);
                refused(refusal.status, &refusal.text)
            }
        }
    }

    /// None if the visitor is let in.
    fn let_in(&self, path: &str, query: &str) -> Option<Reply> {
        if self.visitor.caller.is_some() {
            return None;
        }
        let cookie = self.dashboard.cookie(self.peer.is_private);
        Some(match &self.visitor.refused {
            // Its token was revoked, or has ended.
            Some(reason) if self.visitor.session.is_some() => {
                let login = self.login(StatusCode::UNAUTHORIZED, "/", Some(reason));
                with_cookie(login, &cookie, "", 0)
            }
            Some(reason) => {
                let refusal = Refusal::new(StatusCode::FORBIDDEN, "Not allowed", reason);
                self.refused(&refusal, None)
            }
            None if path.starts_with("/live") => html(StatusCode::UNAUTHORIZED, String::new()),
            None => {
                let wanted = match query {
                    "" => path.to_owned(),
                    query => format!("{path}?{query}"),
                };
                let mut next = Serializer::new(String::new());
                next.append_pair("next", &wanted);
                see(&format!("/login?{}", next.finish()))
            }
        })
    }

    fn log_in(&self, form: &Form) -> Reply {
        let next = field(form, "next");
        let token = field(form, "token").trim();
        let refused = |reason: &str| self.login(StatusCode::UNAUTHORIZED, next, Some(reason));
        if !self.dashboard.0.access.is_strict() {
            return see("/");
        }
        if !self.dashboard.0.context.config.tokens {
            return refused(
                "This coordinator takes no tokens (tokens = false), only certificates.",
            );
        }
        let Ok(mut header) = HeaderValue::from_str(&format!("Bearer {token}")) else {
            return refused("That is no token; copy the whole line.");
        };
        header.set_sensitive(true);
        let visitor = Visitor {
            token: Some(header.clone()),
            ..self.visitor.clone()
        };
        let caller = match self.dashboard.admit(&visitor, LOOK) {
            Ok(caller) => caller,
            Err(status) => return refused(status.message()),
        };
        let who = caller.to_string();
        info!(who, "dashboard.login: {who} logged in to the dashboard");
        if let Some(before) = &self.visitor.session {
            self.dashboard.0.sessions.end(before);
        }
        let session = self.dashboard.0.sessions.begin(header, unix_ms());
        let cookie = self.dashboard.cookie(self.peer.is_private);
        with_cookie(see(local(next)), &cookie, &session, LASTS_S)
    }

    fn login(&self, status: StatusCode, next: &str, refused: Option<&str>) -> Reply {
        let sheet = login(&self.visitor.csrf, local(next), refused);
        self.page(status, Here::Elsewhere, None, &sheet)
    }

    fn refused(&self, refusal: &Refusal, back: Option<&str>) -> Reply {
        let Refusal {
            status,
            heading,
            text,
        } = refusal;
        self.page(
            *status,
            Here::Elsewhere,
            None,
            &message(heading, text, back),
        )
    }

    fn page(&self, status: StatusCode, here: Here, live: Option<String>, sheet: &Sheet) -> Reply {
        let tls = self.dashboard.tls();
        let shell = Shell {
            viewer: self.dashboard.viewer(&self.visitor),
            here,
            live,
            style: style(),
            script: script(),
            now_ms: unix_ms(),
            version: VERSION.to_owned(),
            cluster: tls.map(|tls| tls.identity().cluster().to_owned()),
        };
        html(status, document(&shell, sheet))
    }
}

/// A path of this server; `/` for everything else that a link could send somebody to.
fn local(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//");
    let is_plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if is_path && is_plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_pages_of_this_server_only() {
        for (next, leads_to) in [
            ("/runs/dr-1?x=y", "/runs/dr-1?x=y"),
            ("//evil.example/", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nset-cookie: x=y", "/"),
            ("", "/"),
        ] {
            assert_eq!(local(next), leads_to, "{next:?}");
        }
    }
}
