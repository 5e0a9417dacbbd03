//! `make screenshots`: pictures of every page of the dashboard, in two widths, while workers and the coordinator are killed.
//!
//! A browser logs in with a token and follows every link. It is an error if a page asks another host for anything, is wider than
//! the window, has an error of a script or of the policy, or does not come. People look at the pictures.

mod driver;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use driver::Driver;
use fovea_core::random;
use fovea_proto::pb;
use fovea_tests::{Cluster, free_port, synthetic_dataset};

const WIDTHS: [u32; 2] = [1280, 400];
/// Pages whose pictures are taken in the dark, too.
const DARK: usize = 4;
/// Longer than a coordinator is ever away.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many pages are visited at most: links to more of the same kind lead on and on.
const MOST: usize = 60;

/// What is measured in a page: whether it is styled, its height, what is outside of it, and where its links lead, those to files
/// excepted.
const LOOK: &str = r#"
const width = innerWidth, root = document.documentElement;
const outside = [...document.body.querySelectorAll("*")].filter(e => {
  if (e.closest(".scroll, .skip, svg")) return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && (box.right > width + 0.5 || box.left < -0.5);
});
return {
  path: location.pathname + location.search, ready: document.readyState === "complete" && document.styleSheets.length > 0,
  heading: document.querySelector("h1")?.textContent || "", height: root.scrollHeight, wide: root.scrollWidth > width,
  outside: outside.slice(0, 3).map(e => e.tagName + "." + e.className + ": " + e.textContent.trim().slice(0, 60)),
  links: [...document.querySelectorAll("a[href]")].filter(a => a.origin === location.origin && a.search !== "?file").map(a => a.pathname + a.search),
};
"#;

fn spec(name: &str, epochs: u32, least: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        train: Some(pb::TrainSpec {
            epochs: Some(epochs),
            virtual_ranks: Some(2),
            batch: Some(3),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(least),
            max: Some(2),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Kills workers and the coordinator at random, from a thread of its own.
struct Chaos {
    stop: Sender<()>,
    thread: JoinHandle<(Cluster, u32)>,
}

impl Chaos {
    fn start(mut cluster: Cluster) -> Self {
        let (stop, stopped) = mpsc::channel();
        let work = move || {
            let mut random = random::stream("screenshots", &[1]);
            let mut kills = 0;
            loop {
                // A pause between two faults.
                let pause = Duration::from_millis(1000 + random::below(&mut random, 2000));
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return (cluster, kills);
                }
                kills += 1;
                let coordinator = random::below(&mut random, 3) == 0;
                eprintln!(
                    "killed: {}",
                    if coordinator { "coordinator" } else { "worker" }
                );
                if coordinator {
                    cluster.coordinator.kill();
                    cluster.restart_coordinator();
                } else {
                    let at = random::below(&mut random, cluster.workers.len() as u64) as usize;
                    // Dropped, it is killed.
                    drop(cluster.workers.remove(at));
                    cluster.add_worker();
                }
            }
        };
        Self {
            stop,
            thread: std::thread::spawn(work),
        }
    }

    /// The cluster as it is then, and how much was killed.
    fn stop(self) -> (Cluster, u32) {
        let _ = self.stop.send(());
        self.thread.join().expect("the cluster bears it")
    }
}

/// Visits pages and takes their pictures.
struct Visitor {
    driver: Driver,
    base: String,
    token: String,
    out: PathBuf,
    wrong: Vec<String>,
    pictures: usize,
    requests: usize,
}

impl Visitor {
    /// Opens a page, logging in again if the coordinator has forgotten the session, until it is there. What LOOK says of it.
    fn open(&self, path: &str) -> serde_json::Value {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "{path} did not come");
            if self.driver.open(&format!("{}{path}", self.base)).is_ok() {
                let seen = self.driver.run(LOOK);
                let at = seen["path"].as_str().unwrap_or_default();
                if seen["ready"] == true && seen["heading"] != "" {
                    if at == path {
                        return seen;
                    }
                    if at.starts_with("/login") {
                        self.log_in();
                        continue;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn log_in(&self) {
        let script = format!(
            "document.querySelector('input[name=token]').value = {:?}; document.querySelector('main form').submit();",
            self.token
        );
        self.driver.run(&script);
        // The next page says whether it worked.
        let end = Instant::now() + PATIENCE;
        let over =
            "return document.readyState === 'complete' && !location.pathname.startsWith('/login')";
        while self.driver.run(over) != true && Instant::now() < end {
            if self.driver.open(&format!("{}/login", self.base)).is_ok()
                && self.driver.run("return location.pathname") == "/login"
            {
                self.driver.run(&script);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Takes pictures of a page that is open, and judges it.
    fn look(&mut self, name: &str, dark: bool) {
        for width in WIDTHS {
            self.driver.resize(width, 900);
            let seen = self.driver.run(LOOK);
            if seen["wide"] == true || seen["outside"].as_array().is_some_and(|o| !o.is_empty()) {
                let outside = &seen["outside"];
                self.wrong
                    .push(format!("{name} at {width}: is wider: {outside}"));
            }
            let height = seen["height"].as_u64().unwrap_or(900);
            self.driver.resize(width, height.clamp(900, 8000));
            for dark in [false, true].into_iter().take(1 + usize::from(dark)) {
                self.driver.dark(dark);
                let kind = if dark { "-dark" } else { "" };
                let file = self.out.join(format!("{name}-{width}{kind}.png"));
                fs::write(file, self.driver.picture()).expect("a picture can be written");
                self.pictures += 1;
            }
            self.driver.dark(false);
        }
        self.driver.resize(WIDTHS[0], 900);
        self.judge(name);
    }

    /// What the page asked for and complained about.
    fn judge(&mut self, name: &str) {
        for url in self.driver.requests() {
            self.requests += 1;
            let own = url.starts_with(&format!("{}/", self.base)) || url.starts_with("data:");
            if !own {
                self.wrong.push(format!("{name}: asks for {url}"));
            }
        }
        for (source, text) in self.driver.errors() {
            // A coordinator that is killed does not answer, and forgets who has logged in; and a page that is not there is
            // reported, too.
            let answer = source == "network" && text.starts_with(&self.base);
            if !answer {
                self.wrong.push(format!("{name}: {source}: {text}"));
            }
        }
    }
}

/// A name for the picture of this page.
fn name_of(path: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = path.trim_matches('/').chars().map(plain).collect();
    match name.as_str() {
        "" => "overview".into(),
        _ => name,
    }
}

/// Runs in every state but one, which the chaos brings about.
async fn fill(cluster: &Cluster, dataset: &Path) -> Vec<String> {
    cluster.fovea(&["dataset", "add", dataset.to_str().expect("UTF-8")]);
    let mut ids = Vec::new();
    for (name, epochs) in [("first", 4), ("second", 3)] {
        let run = cluster.submit(spec(name, epochs, 1)).await;
        cluster.wait_completed(&run.id).await;
        ids.push(run.id);
    }
    cluster.fovea(&["evaluate", &ids[0]]);
    let curves = cluster.submit(spec("curves", 500, 1)).await;
    cluster
        .run_until(&curves.id, |run| run.epochs.len() >= 2)
        .await;
    let stopped = cluster.submit(spec("stopped", 50, 1)).await;
    let request = pb::CancelRequest { run_id: stopped.id };
    let cancelled = cluster.runs().await.cancel(request).await;
    cancelled.expect("it can be cancelled");
    let waiting = cluster.submit(spec("waiting", 50, 2)).await;
    ids.extend([curves.id, waiting.id]);
    ids
}

#[ignore = "takes minutes and is for people: `make screenshots`; needs Chromium and chromedriver"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_has_its_picture_while_everything_dies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let out = std::env::var_os("SCREENSHOTS").expect("SCREENSHOTS names a folder for the pictures");
    let out = PathBuf::from(out);
    fs::create_dir_all(&out).expect("the folder can be made");
    let prepared = synthetic_dataset(dir, 24, 64);
    let mut cluster = Cluster::start_secure(dir, 2);
    let listen = format!("127.0.0.1:{}", free_port());
    let environment = &mut cluster.options.environment;
    environment.push(("FOVEA_HTTP_LISTEN".into(), listen.clone()));
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    let ids = fill(&cluster, &prepared).await;
    let token = cluster.fovea(&["token", "create", "--role", "admin", "--name", "ann"]);

    let chaos = Chaos::start(cluster);
    let mut visitor = Visitor {
        driver: Driver::start(dir),
        base: format!("http://{listen}"),
        token: token.trim().to_owned(),
        out,
        wrong: Vec::new(),
        pictures: 0,
        requests: 0,
    };
    let visiting = tokio::task::spawn_blocking(move || {
        visit(&mut visitor, &ids);
        visitor
    });
    let visitor = visiting.await;
    let (mut cluster, kills) = chaos.stop();
    let visitor = visitor.expect("every page comes");
    cluster.coordinator.kill();
    println!(
        "{} pictures in {}, {} requests, {kills} kills",
        visitor.pictures,
        visitor.out.display(),
        visitor.requests
    );
    assert!(visitor.wrong.is_empty(), "{:#?}", visitor.wrong);
    assert!(visitor.requests > visitor.pictures / 2 && kills > 2);
}

fn visit(visitor: &mut Visitor, ids: &[String]) {
    // Whoever comes first has to log in.
    let driver = &visitor.driver;
    driver.resize(WIDTHS[0], 900);
    driver.dark(false);
    let end = Instant::now() + PATIENCE;
    while driver.open(&format!("{}/login", visitor.base)).is_err()
        || driver.run(LOOK)["ready"] != true
    {
        assert!(Instant::now() < end, "the login did not come");
        std::thread::sleep(Duration::from_millis(200));
    }
    visitor.look("login", true);

    let compare = format!("/compare?run={}&run={}", ids[0], ids[1]);
    let mut queue: VecDeque<String> = ["/", &compare, "/nothing", "/runs/none-1"]
        .map(str::to_owned)
        .into();
    queue.extend(ids.iter().map(|id| format!("/runs/{id}")));
    let mut known: BTreeSet<String> = queue.iter().cloned().collect();
    let mut visited = 0;
    while let Some(path) = queue.pop_front() {
        eprintln!("{path}");
        let seen = visitor.open(&path);
        for link in seen["links"].as_array().into_iter().flatten() {
            let link = link.as_str().expect("a path").to_owned();
            if known.len() < MOST && known.insert(link.clone()) {
                queue.push_back(link);
            }
        }
        visited += 1;
        visitor.look(&name_of(&path), visited <= DARK || path.contains("curves"));
    }
    for page in ["/runs", "/workers", "/datasets", "/submit"] {
        assert!(known.contains(page), "no link leads to {page}");
    }
}
