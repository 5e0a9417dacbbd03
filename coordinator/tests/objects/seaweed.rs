//! A real S3 server: SeaweedFS, in a process that is killed and started again.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use tempfile::TempDir;
use tokio_stream::StreamExt;

use super::common::{PATIENCE, POLL, eventually, free_port};

const BUCKET: &str = "fovea";
const KEY: (&str, &str) = ("fovea-key", "fovea-secret");

pub const ALL_RIGHTS: [&str; 4] = ["Read", "Write", "List", "Tagging"];

/// The server, with its bucket.
pub struct Seaweed {
    dir: TempDir,
    /// HTTP and gRPC port of master, volume server, filer and S3.
    ports: [(u16, u16); 4],
    child: Option<Child>,
}

fn weed() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.s3-server/bin/weed");
    assert!(path.exists(), "make s3-server fetches {}", path.display());
    path
}

impl Seaweed {
    /// Starts one with an empty bucket, which the credentials in this process's environment may use.
    pub async fn start() -> Self {
        static CREDENTIALS: Once = Once::new();
        CREDENTIALS.call_once(|| {
            // SAFETY: every test waits here before it starts anything that reads the environment.
            unsafe {
                std::env::set_var("AWS_ACCESS_KEY_ID", KEY.0);
                std::env::set_var("AWS_SECRET_ACCESS_KEY", KEY.1);
            }
        });
        let mut server = Self {
            dir: tempfile::tempdir().unwrap(),
            ports: [(); 4].map(|()| (free_port(), free_port())),
            child: None,
        };
        server.write_rights(&ALL_RIGHTS);
        server.go_on().await;
        server
            .shell(&format!("s3.bucket.create -name {BUCKET}"))
            .await;
        server.until_rights(&ALL_RIGHTS).await;
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[3].0)
    }

    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/cluster")
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it, again if need be, at the same address on the same data.
    pub async fn go_on(&mut self) {
        let [master, volume, filer, s3] = self.ports;
        let data = self.dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = Command::new(weed());
        command
            .arg("server")
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            // Services of its own at fixed ports.
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args([
                "-master.telemetry=false",
                // Else it has no leader for 17 s after each start.
                "-master.electionTimeout=1s",
                "-master.heartbeatInterval=100ms",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=30",
                // By default it stores nothing on a disk of which less than 1 % is free, however much that is.
                "-volume.minFreeSpace=64MiB",
            ])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", self.rights().display()))
            // It would make credentials in its environment those of an administrator.
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        for (name, (http, grpc)) in ["master", "volume", "filer", "s3"]
            .iter()
            .zip([master, volume, filer, s3])
        {
            command.arg(format!("-{name}.port={http}"));
            command.arg(format!("-{name}.port.grpc={grpc}"));
        }
        self.child = Some(command.spawn().unwrap());
        eventually("the S3 server", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, s3.0)).is_ok()
        })
        .await;
    }

    /// Starts it again with other rights of the coordinator's credentials in the bucket; returns when it goes by them.
    pub async fn set_rights(&mut self, actions: &[&str]) {
        self.kill();
        self.write_rights(actions);
        self.go_on().await;
        self.until_rights(actions).await;
    }

    async fn until_rights(&self, actions: &[&str]) {
        let (client, probe) = (self.client(), Key::from("probe"));
        let may_write = actions.contains(&"Write");
        let known = async {
            loop {
                match client.put(&probe, "x".into()).await {
                    Ok(_) if may_write => return client.delete(&probe).await.unwrap(),
                    Err(object_store::Error::PermissionDenied { .. }) if !may_write => return,
                    _ => tokio::time::sleep(POLL * 10).await,
                }
            }
        };
        super::common::soon("the rights in the bucket", known).await;
    }

    fn rights(&self) -> PathBuf {
        self.dir.path().join("rights.json")
    }

    fn write_rights(&self, actions: &[&str]) {
        let actions: Vec<String> = actions.iter().map(|a| format!("{a}:{BUCKET}")).collect();
        let rights = serde_json::json!({"identities": [{
            "name": "fovea",
            "credentials": [{"accessKey": KEY.0, "secretKey": KEY.1}],
            "actions": actions,
        }]});
        std::fs::write(self.rights(), rights.to_string()).unwrap();
    }

    /// Does a command of its administration, trying again until its parts have found one another.
    async fn shell(&self, command: &str) {
        let [master, _, filer, _] = self.ports;
        let done = async {
            loop {
                let command = command.to_owned();
                let ran = tokio::task::spawn_blocking(move || {
                    let mut shell = Command::new("timeout")
                        .arg("20")
                        .arg(weed())
                        .arg("shell")
                        .arg(format!("-master=127.0.0.1:{}.{}", master.0, master.1))
                        .arg(format!("-filer=127.0.0.1:{}.{}", filer.0, filer.1))
                        .stdin(Stdio::piped())
                        .stdout(Stdio::piped())
                        .stderr(Stdio::piped())
                        .spawn()
                        .unwrap();
                    let mut input = shell.stdin.take().unwrap();
                    writeln!(input, "{command}").unwrap();
                    drop(input);
                    shell.wait_with_output().unwrap()
                });
                let ran = ran.await.unwrap();
                let text = String::from_utf8_lossy(&ran.stdout).into_owned();
                if ran.status.success() && !text.contains("error") {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        super::common::soon("the S3 server's administration", done).await;
    }

    /// A client of the bucket, as any other program would have.
    fn client(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_retry(RetryConfig {
                max_retries: 0,
                ..Default::default()
            })
            .with_access_key_id(KEY.0)
            .with_secret_access_key(KEY.1)
            .build()
            .unwrap()
    }

    /// Keys in the bucket, without the prefix.
    pub async fn keys(&self) -> Vec<String> {
        let client = self.client();
        let mut listed = client.list(None);
        let mut keys = Vec::new();
        while let Some(object) = listed.next().await {
            let key = object.unwrap().location.to_string();
            keys.extend(key.strip_prefix("cluster/").map(str::to_owned));
        }
        keys.sort();
        keys
    }

    /// Waits until the keys will do.
    pub async fn until_keys(&self, what: &str, will_do: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut last = Vec::new();
        let wait = async {
            loop {
                last = self.keys().await;
                if will_do(&last) {
                    return last.clone();
                }
                tokio::time::sleep(POLL * 10).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(keys) => keys,
            Err(_) => panic!("waited for {what}: {last:?}"),
        }
    }

    /// Uploads in parts that nobody has ended: the server keeps them in a folder.
    pub async fn unfinished(&self) -> usize {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let filer = self.ports[2].0;
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, filer))
            .await
            .unwrap();
        let request = format!(
            "GET /buckets/{BUCKET}/.uploads/?limit=1000 HTTP/1.0\r\nAccept: application/json\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.matches("\"FullPath\"").count()
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(10).collect();
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
