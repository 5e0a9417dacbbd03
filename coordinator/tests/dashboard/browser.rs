//! A browser without a screen: HTTP/1.1 over a socket, cookies, and forms by their names.

use std::sync::Arc;

use fovea_security::{Expected, Role, Tls, begin};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::*;

/// A stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Somebody with a browser.
#[derive(Clone)]
pub struct Browser {
    address: String,
    tls: Option<Arc<Tls>>,
    /// The cookie, as it is sent.
    pub cookie: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// What a form of the page sends back.
    pub fn csrf(&self) -> &str {
        let (_, rest) = self
            .body
            .split_once("name=\"csrf\" value=\"")
            .expect("a form");
        rest.split('"').next().unwrap()
    }

    pub fn contains(&self, text: &str) {
        assert!(
            self.body.contains(text),
            "{} without {text:?}:\n{}",
            self.status,
            self.body
        );
    }

    pub fn lacks(&self, text: &str) {
        assert!(!self.body.contains(text), "{text:?} is in:\n{}", self.body);
    }
}

impl Browser {
    pub fn new(server: &Server) -> Self {
        Self {
            address: server.http.clone(),
            tls: None,
            cookie: String::new(),
        }
    }

    /// The same over TLS, with this member's certificate.
    pub fn with_tls(server: &Server, tls: Tls) -> Self {
        let port = server.http.rsplit_once(':').unwrap().1;
        Self {
            address: format!("127.0.0.1:{port}"),
            tls: Some(Arc::new(tls)),
            cookie: String::new(),
        }
    }

    pub async fn connect(&self) -> Box<dyn Stream> {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let Some(tls) = &self.tls else {
            return Box::new(stream);
        };
        let config = tls.client_config(Expected::Role(Role::Coordinator), &[b"http/1.1"]);
        // A server of HTTP/1.1 says nothing before it is asked.
        let patience = std::time::Duration::from_millis(300);
        let begun = begin(stream, config, "127.0.0.1", patience).await;
        Box::new(begun.unwrap_or_else(|e| panic!("{e:?}")))
    }

    /// The text of a request.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> String {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        let own = |name: &str| headers.iter().any(|(key, _)| *key == name);
        if !own("host") {
            text += &format!("host: {}\r\n", self.address);
        }
        if !self.cookie.is_empty() {
            text += &format!("cookie: {}\r\n", self.cookie);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            if !own("content-type") {
                text += "content-type: application/x-www-form-urlencoded\r\n";
            }
            text += &format!("content-length: {}\r\n", body.len());
        }
        text + "connection: close\r\n\r\n" + body
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let asking = async {
            let mut stream = self.connect().await;
            let request = self.request(method, path, headers, body);
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A TLS connection may end without a goodbye.
            let _ = stream.read_to_end(&mut answer).await;
            parse(&answer)
        };
        soon("an answer", asking).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// Sends a form with these fields.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        self.ask("POST", path, &[], &form.finish()).await
    }

    /// Logs in and keeps the cookie.
    pub async fn log_in(&mut self, token: &str) -> Answer {
        let csrf = self.get("/login").await.csrf().to_owned();
        let answer = self
            .post(
                "/login",
                &[("csrf", &csrf), ("token", token), ("next", "/runs")],
            )
            .await;
        let cookie = answer.header("set-cookie");
        if !cookie.is_empty() {
            cookie
                .split(';')
                .next()
                .unwrap()
                .clone_into(&mut self.cookie);
        }
        answer
    }
}

/// An answer of a server that closes the connection.
pub fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_lowercase(), value.to_owned())
    });
    Answer {
        status: status.parse().unwrap(),
        headers: headers.collect(),
        body: body.to_owned(),
    }
}
