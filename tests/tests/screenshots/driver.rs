//! Chromium without a screen, through chromedriver: it opens pages, says what they asked for and complained about, and takes
//! pictures.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use fovea_tests::{Process, free_port, http};
use serde_json::{Value, json};

/// The longest that chromedriver may take for one command.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one window.
pub struct Driver {
    address: String,
    session: String,
    _process: Process,
}

impl Driver {
    /// Starts it with its profile in `dir`. No name leads anywhere, except this machine's address.
    pub fn start(dir: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).env("HOME", dir);
        // The build's libtorch is nothing to it.
        command.env_remove("LD_LIBRARY_PATH");
        let process = Process::start(command, dir.join("chromedriver.log"));
        let mut driver = Self {
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
            _process: process,
        };
        let profile = dir.join("profile");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }}});
        let end = Instant::now() + PATIENCE;
        let answer = loop {
            match driver.ask("POST", "/session", &wanted) {
                Ok(answer) => break answer,
                Err(problem) => assert!(Instant::now() < end, "{problem}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        let session = answer["sessionId"].as_str().expect("a session");
        driver.session = format!("/session/{session}");
        // Chromium begins with a page of its own.
        driver.open("about:blank").expect("an empty page");
        driver.requests();
        driver.errors();
        driver
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = (method == "POST").then(|| body.to_string());
        let answer = http::request(&self.address, method, path, body.as_deref(), PATIENCE);
        let (status, text) = answer.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match status {
            200 => Ok(answer["value"].clone()),
            _ => Err(answer["value"]["message"].to_string()),
        }
    }

    fn command(&self, name: &str, body: &Value) -> Result<Value, String> {
        self.ask("POST", &format!("{}/{name}", self.session), body)
    }

    fn devtools(&self, name: &str, parameters: &Value) {
        let body = json!({"cmd": name, "params": parameters});
        let done = self.command("goog/cdp/execute", &body);
        done.unwrap_or_else(|problem| panic!("{name}: {problem}"));
    }

    /// Opens an address.
    ///
    /// # Errors
    /// There is no page, in Chromium's words.
    pub fn open(&self, url: &str) -> Result<(), String> {
        self.command("url", &json!({"url": url})).map(drop)
    }

    /// What a function's body returns in the page.
    pub fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        let result = self.command("execute/sync", &body);
        result.unwrap_or_else(|problem| panic!("{script}: {problem}"))
    }

    /// The window's size in CSS pixels.
    pub fn resize(&self, width: u32, height: u64) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Whether the person prefers dark colours.
    pub fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        // Without motion, so that no picture shows half a transition.
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": value},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// The window as a PNG.
    pub fn picture(&self) -> Vec<u8> {
        let answer = self.ask("GET", &format!("{}/screenshot", self.session), &Value::Null);
        let text = answer.unwrap_or_else(|problem| panic!("a picture: {problem}"));
        let text = text.as_str().expect("base64");
        let decoded = base64::engine::general_purpose::STANDARD.decode(text);
        decoded.expect("base64")
    }

    /// What was asked for since the last time, whoever asked.
    pub fn requests(&self) -> Vec<String> {
        let mut urls = Vec::new();
        for entry in self.log("performance") {
            let text = entry["message"].as_str().expect("a text");
            let event: Value = serde_json::from_str(text).expect("JSON");
            let event = &event["message"];
            let url = match event["method"].as_str() {
                Some("Network.requestWillBeSent") => &event["params"]["request"]["url"],
                Some("Network.webSocketCreated") => &event["params"]["url"],
                _ => continue,
            };
            urls.push(url.as_str().expect("a text").to_owned());
        }
        urls
    }

    /// What the console says since the last time, as errors: where each comes from, and its text.
    pub fn errors(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let log = self.log("browser");
        let severe = log.iter().filter(|entry| entry["level"] == "SEVERE");
        severe
            .map(|entry| (text(&entry["source"]), text(&entry["message"])))
            .collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.command("se/log", &json!({"type": kind}));
        let log = log.unwrap_or_else(|problem| panic!("log {kind}: {problem}"));
        log.as_array().expect("a list").clone()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Chromium ends with its session, not with chromedriver.
        let _ = self.ask("DELETE", &self.session, &Value::Null);
    }
}
