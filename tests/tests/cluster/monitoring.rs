//! What a real Prometheus reads of a real cluster: every query of the dashboard has data, a lost worker leaves no series, and no
//! counter falls, whoever is killed. The alerts are tested by promtool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_tests::exposition::{self, Exposition};
use fovea_tests::http::request;
use fovea_tests::launch::CoordinatorOptions;
use fovea_tests::{Cluster, Process, free_port, synthetic_dataset};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring")
}

/// Runs promtool, which must have nothing to say against it.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(monitoring())
        .output()
        .expect("promtool starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
}

#[cfg_attr(
    not(has_prometheus),
    ignore = "needs prometheus and promtool: `apt-get install prometheus`"
)]
#[test]
fn the_alerts_fire_when_they_should() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "fovea.rules.test.yml"]);
    // Each alert has a test.
    let read = |name: &str| fs::read_to_string(monitoring().join(name)).expect("a text");
    let (rules, tests) = (read("fovea.rules.yml"), read("fovea.rules.test.yml"));
    let alerts = rules
        .lines()
        .filter_map(|line| line.split("alert: ").nth(1));
    let alerts: Vec<&str> = alerts.collect();
    assert!(alerts.len() > 8, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert}");
    }
}

/// The body of what `address` answers.
fn get(address: &str, path: &str) -> Result<String, std::io::Error> {
    match request(address, "GET", path, None, Duration::from_secs(20))? {
        (200, body) => Ok(body),
        (status, body) => Err(std::io::Error::other(format!("{status}: {body}"))),
    }
}

/// A Prometheus that scrapes every second.
struct Prometheus {
    address: String,
    _process: Process,
}

impl Prometheus {
    fn start(dir: &Path, coordinator: &str, workers: &[String]) -> Self {
        let rules = monitoring().join("fovea.rules.yml");
        let job = |name: &str, targets: &str| {
            format!("- {{job_name: {name}, static_configs: [{{targets: [{targets}]}}]}}\n")
        };
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n{}{}",
            rules.display(),
            job("fovea-coordinator", &format!("\"{coordinator}\"")),
            job("fovea-worker", &format!("\"{}\"", workers.join("\", \"")))
        );
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).expect("a file can be written");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("series").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        Self {
            address,
            _process: Process::start(command, dir.join("prometheus.log")),
        }
    }

    /// The result of a query now: labels and value of each series.
    fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let Ok(body) = get(&self.address, &format!("/api/v1/query?query={escaped}")) else {
            return Vec::new();
        };
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().expect("a list");
        let series = result.iter().map(|series| {
            let value = series["value"][1].as_str().expect("a text");
            (series["metric"].clone(), value.parse().expect("a number"))
        });
        series.collect()
    }

    /// The result of a query as soon as `holds`.
    fn until(&self, query: &str, holds: impl Fn(&[(Value, f64)]) -> bool) -> Vec<(Value, f64)> {
        let end = Instant::now() + DEADLINE;
        loop {
            let result = self.query(query);
            if holds(&result) {
                return result;
            }
            assert!(Instant::now() < end, "{query}: {result:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Title and query of each panel.
fn dashboard() -> Vec<(String, String)> {
    let text = fs::read_to_string(monitoring().join("grafana.json")).expect("a text");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query");
            let query = query
                .replace("$__rate_interval", "20s")
                .replace("$run", ".*");
            queries.push((title.to_owned(), query));
        }
    }
    queries
}

fn spec() -> pb::RunSpec {
    pb::RunSpec {
        name: "watched".into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        train: Some(pb::TrainSpec {
            epochs: Some(500),
            virtual_ranks: Some(2),
            batch: Some(3),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        model: Some(pb::ModelSpec {
            frozen: Some(pb::LayerList {
                names: ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"]
                    .map(Into::into)
                    .into(),
            }),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(1),
            max: Some(2),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(1),
            every_steps: Some(5),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg_attr(
    not(has_prometheus),
    ignore = "needs prometheus and promtool: `apt-get install prometheus`"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_prometheus_reads_is_true_while_everything_dies() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let prepared = synthetic_dataset(dir, 24, 64);
    let listener = || format!("127.0.0.1:{}", free_port());
    let ops = listener();
    let mut options = CoordinatorOptions::new(dir);
    options
        .environment
        .push(("FOVEA_OPS_LISTEN".into(), ops.clone()));
    let mut cluster = Cluster::start_with(dir, 0, options);
    let workers = [listener(), listener()];
    for worker in &workers {
        cluster.add_worker_on("cpu", &[("FOVEA_OPS_LISTEN", worker)]);
    }
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let prometheus = Prometheus::start(dir, &ops, &workers);
    let run = cluster.submit(spec()).await;
    cluster
        .run_until(&run.id, |run| !run.epochs.is_empty())
        .await;

    // People see the same figures of both workers.
    let measured = |text: &str| {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines
            .filter(|w| w["step_ms"].is_number() && w["wait_ratio"].is_number())
            .count()
    };
    cluster.fovea_until(&["--json", "workers"], |text| measured(text) == 2);
    let both = |result: &[(Value, f64)]| result.len() == 2;
    prometheus.until("fovea_worker_step_seconds > 0", both);
    let resident = prometheus.until("fovea_worker_resident_bytes", both);
    assert!(
        resident.iter().all(|(_, bytes)| *bytes > 1e7),
        "{resident:?}"
    );

    // A lost worker is gone, and the run goes on.
    cluster.workers[1].kill();
    cluster.run_until(&run.id, |run| run.generation >= 2).await;
    let lost = "fovea_worker_connected_seconds{worker=~\"w1-.*\"}";
    prometheus.until(lost, <[_]>::is_empty);
    prometheus.until("fovea_workers{state=\"training\"}", |r| {
        r.iter().any(|(_, n)| *n == 1.0)
    });
    prometheus.until("fovea_recovery_seconds_count", |r| {
        r.iter().any(|(_, n)| *n >= 1.0)
    });

    // The worker that stayed computes the frozen layers once for each image and rotation, and its packs are on its disk since.
    let one = |query: &str| {
        let of = format!("{query}{{instance=\"{}\"}}", workers[0]);
        prometheus.until(&of, |r| r.len() == 1)[0].1
    };
    let local = |what: &str| one(&format!("fovea_local_{what}_total"));
    let hits = format!(
        "fovea_local_activation_cache_hits_total{{instance=\"{}\"}}",
        workers[0]
    );
    prometheus.until(&hits, |r| r.iter().any(|(_, hits)| *hits > 100.0));
    let computed = local("images");
    let (hits, misses) = (
        local("activation_cache_hits"),
        local("activation_cache_misses"),
    );
    assert!(hits + misses >= computed, "{hits} {misses} {computed}");
    // Four rotations of both eyes of each patient, at most.
    let images = 4 * 2 * 24;
    assert!(misses > 0.0 && misses <= f64::from(images), "{misses}");
    // It needed all packs in the end, and each was fetched once: for an assignment, or ahead.
    let (hits, misses) = (local("pack_cache_hits"), local("pack_cache_misses"));
    assert!(hits > 0.0 && misses > 0.0, "{hits} {misses}");

    for (title, query) in dashboard() {
        // There is no GPU.
        if !title.starts_with("GPU") {
            prometheus.until(&query, |result| !result.is_empty());
        }
    }
    for address in [&ops, &workers[0]] {
        let text = get(address, "/metrics").expect("metrics");
        Exposition::parse(&text).unwrap_or_else(|problem| panic!("{address}: {problem}\n{text}"));
        let complaints = exposition::promtool(&text).expect("promtool answers");
        assert!(complaints.is_empty(), "{address}: {complaints:?}");
    }

    // The coordinator is killed, and the run is sent back to an older checkpoint.
    let steps = |result: &[(Value, f64)]| result.first().map_or(0.0, |(_, steps)| *steps);
    let before = steps(&prometheus.until("fovea_steps_total", |r| !r.is_empty()));
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    prometheus.until("fovea_steps_total", |r| steps(r) > before + 5.0);
    let request = pb::PauseRequest {
        run_id: run.id.clone(),
    };
    let paused = cluster.runs().await.pause(request).await;
    paused.expect("it can be paused");
    let paused = cluster
        .run_until(&run.id, |run| run.phase() == pb::Phase::Paused)
        .await;
    let (first, last) = (&paused.checkpoints[0], paused.progress.expect("steps").step);
    assert!(first.step < last, "{paused:?}");
    let request = pb::ResumeRequest {
        run_id: run.id.clone(),
        checkpoint_step: Some(first.step),
    };
    let resumed = cluster.runs().await.resume(request).await;
    resumed.expect("it can be resumed");
    prometheus.until("fovea_steps_total", |r| steps(r) > last as f64 + 5.0);
    let now = cluster.run(&run.id).await.progress.expect("steps").step;
    // Both are true: what was ever committed, and where the run is.
    let ever = steps(&prometheus.until("fovea_steps_total", |r| {
        steps(r) >= (now + last - first.step) as f64
    }));
    prometheus.until("fovea_run_step", |r| {
        steps(r) >= now as f64 && steps(r) < ever
    });
    for counter in ["steps", "images", "generations"] {
        let resets = prometheus.query(&format!("resets(fovea_{counter}_total[10m])"));
        // Of generations there is a series for each reason.
        let one = counter != "generations";
        assert_eq!(resets.len() == 1, one, "{counter}: {resets:?}");
        let fell = resets.iter().any(|(_, resets)| *resets != 0.0);
        assert!(!fell, "{counter} fell: {resets:?}");
    }
    // Why they formed, also before the kill.
    for (reason, least) in [("started", 1.0), ("worker_lost", 1.0), ("resumed", 1.0)] {
        prometheus.until(
            &format!("fovea_generations_total{{reason=\"{reason}\"}}"),
            |r| r.len() == 1 && r[0].1 >= least,
        );
    }
    prometheus.until("sum(fovea_queue_runs) == 0", |r| r.len() == 1);
    prometheus.until("fovea_checkpoint_failures_total", |r| r.len() == 1);
    // A step uses as many images as its virtual ranks' batches have, at most.
    let images = prometheus.until("fovea_images_total / fovea_steps_total", |r| !r.is_empty());
    assert!(images[0].1 > 1.0 && images[0].1 <= 6.0, "{images:?}");
    prometheus.until(
        "fovea_audited_step > 0 and fovea_audit_problems == 0",
        |r| r.len() == 1,
    );
}
