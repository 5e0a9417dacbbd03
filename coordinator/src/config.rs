//! The coordinator's configuration: every key, its default, and what it may be.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use fovea_security::TlsFiles;
use fovea_service::{ConfigError, LogFormat, ops};
use serde::{Deserialize, Serialize};

use crate::net::Deadlines;
use crate::remote::{Location, redact};
use crate::stop::{OnStop, StopLimits};

/// All that can be configured. Layers: defaults < file < FOVEA_* < flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen, `host:port`: on every address that the host has. Port 0 lets the system choose.
    pub listen: String,
    /// Folder for the journal, datasets, weights and checkpoints.
    pub data_dir: PathBuf,
    /// Object store that gets a copy of checkpoints, datasets and weights, `s3://BUCKET/PREFIX`; empty: none.
    #[serde(serialize_with = "redacted")]
    pub store: String,
    /// Where its service is, `https://HOST:PORT`; empty: AWS.
    #[serde(serialize_with = "redacted")]
    pub store_endpoint: String,
    /// Its region; empty: AWS_REGION, or us-east-1.
    pub store_region: String,
    /// Allows an endpoint without TLS.
    pub store_allow_http: bool,
    /// The coordinator's certificate (PEM); empty: no TLS.
    pub tls_certificate: PathBuf,
    /// The certificate's private key (PEM, mode 0600).
    pub tls_key: PathBuf,
    /// The cluster's CAs (PEM): they sign who may connect.
    pub tls_ca: PathBuf,
    /// The private key of one of these CAs (PEM, mode 0600): with it the coordinator signs certificates of workers that
    /// join with a token; empty: none can join.
    pub tls_ca_key: PathBuf,
    /// Lets people in with a token instead of a certificate, and workers that join; false: only certificates count.
    pub tokens: bool,
    /// Allows listening beyond this machine without TLS: on closed networks only.
    pub allow_insecure: bool,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// A level, or a filter such as `info,fovea_coordinator=debug`.
    pub log_level: String,
    /// How often workers send a heartbeat, milliseconds.
    pub heartbeat_ms: u32,
    /// Silence from a worker for so long means that it is gone, milliseconds.
    pub timeout_ms: u32,
    /// How long a run that could start with fewer workers waits for more, milliseconds.
    pub forming_grace_ms: u64,
    /// A queued run rises by one priority for so long a wait, seconds; 0: never.
    pub priority_age_s: u64,
    /// A run that gave its workers to one of higher priority keeps those that it gets back for so long, seconds.
    pub min_hold_s: u64,
    /// How many workers the runs of one person may have together; 0: any number. It needs TLS, without which nobody has a name.
    pub quota_workers: u32,
    /// The same for single persons, by name: `ann=8, bob=2`.
    pub quotas: String,
    /// What a request to stop does about the runs under way: `checkpoint` or `hand-over`.
    pub on_stop: OnStop,
    /// How long a stop waits for runs to be checkpointed, seconds.
    pub drain_timeout_s: u64,
    /// How many connections may be open. The limit of file descriptors may allow fewer.
    pub max_connections: u32,
    /// How many of them one client address may have (for IPv6: one /64 network).
    pub max_connections_per_client: u32,
    /// How long a new connection may take for the HTTP/2 handshake, seconds.
    pub handshake_timeout_s: u64,
    /// How long a connection may have no open request before it is closed, seconds.
    pub idle_timeout_s: u64,
    /// How many streams of runs' events may be open.
    pub max_watches: u32,
    /// How many of them one client (with TLS: a member at an address) may have.
    pub max_watches_per_client: u32,
    /// How many datasets and files of weights may be uploaded at the same time.
    pub max_uploads: u32,
    /// How many of them one client (with TLS: a member at an address) may upload.
    pub max_uploads_per_client: u32,
    /// How many slices of checkpoints may be uploaded at the same time.
    pub max_slice_uploads: u32,
    /// How many of them the workers of one address may upload.
    pub max_slice_uploads_per_client: u32,
    /// How many downloads (checkpoints, packs) there may be at the same time.
    pub max_downloads: u32,
    /// How many of them one client (with TLS: a member at an address) may have.
    pub max_downloads_per_client: u32,
    /// How long files stay in the trash before they are deleted, days.
    pub trash_keep_days: u32,
    /// Free disk space below which no run starts and uploads are refused, MiB; 0 never does.
    pub min_free_mib: u64,
    /// How long a run waits for a checkpoint that cannot be read before it goes on from the one
    /// before, seconds.
    pub unreadable_patience_s: u64,
    /// How long a run waits for enough workers without trouble of their own before it fails, seconds.
    pub no_worker_patience_s: u64,
    /// Accepts a checkpoint store that is not the one that the journal knows.
    pub accept_store: bool,
    /// Allows a data folder on a network file system.
    pub allow_network_data_dir: bool,
    /// Where `/livez`, `/readyz` and `/metrics` are served over plain HTTP, `host:port`; empty: nowhere.
    pub ops_listen: String,
    /// Collector that gets traces by OTLP over gRPC, `http://HOST:4317` or `https://...`; empty: none.
    pub otlp_endpoint: String,
    /// With https: CAs (PEM) that sign the collector's certificate.
    pub otlp_ca: PathBuf,
    /// File with headers of each request to the collector, a line `NAME: VALUE` for each (mode 0600); empty: none.
    pub otlp_headers_file: PathBuf,
    /// Where event files for TensorBoard are written while runs train, a folder for each; empty: nowhere.
    pub tensorboard_dir: PathBuf,
    /// Where the dashboard is served, `host:port`; empty: nowhere. Plain HTTP on this machine, HTTPS beyond it.
    pub http_listen: String,
    /// Puts workers that share a GPU into one run; for tests.
    pub allow_shared_gpu: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".into(),
            data_dir: "fovea-data".into(),
            store: String::new(),
            store_endpoint: String::new(),
            store_region: String::new(),
            store_allow_http: false,
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_ca: PathBuf::new(),
            tls_ca_key: PathBuf::new(),
            tokens: true,
            allow_insecure: false,
            log_format: LogFormat::Text,
            log_level: "info".into(),
            heartbeat_ms: 300,
            timeout_ms: 1500,
            forming_grace_ms: 1500,
            priority_age_s: 3600,
            min_hold_s: 300,
            quota_workers: 0,
            quotas: String::new(),
            on_stop: OnStop::Checkpoint,
            drain_timeout_s: 60,
            max_connections: 4096,
            max_connections_per_client: 512,
            handshake_timeout_s: 10,
            idle_timeout_s: 300,
            max_watches: 2000,
            max_watches_per_client: 200,
            max_uploads: 4,
            max_uploads_per_client: 4,
            max_slice_uploads: 1024,
            max_slice_uploads_per_client: 256,
            max_downloads: 64,
            max_downloads_per_client: 32,
            trash_keep_days: 7,
            min_free_mib: 1024,
            unreadable_patience_s: 600,
            no_worker_patience_s: 600,
            accept_store: false,
            allow_network_data_dir: false,
            ops_listen: String::new(),
            otlp_endpoint: String::new(),
            otlp_ca: PathBuf::new(),
            otlp_headers_file: PathBuf::new(),
            tensorboard_dir: PathBuf::new(),
            http_listen: String::new(),
            allow_shared_gpu: false,
        }
    }
}

impl Config {
    /// Checks every value, and resolves `listen` to the addresses to listen on, each once.
    ///
    /// # Errors
    /// Names the key and says what would be right.
    pub fn validate(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        let bad = |message: String| Err(ConfigError::Value(message));
        self.ops_address()?;
        self.http_addresses()?;
        self.traces()?;
        let tls = self.tls_files()?;
        self.object_store()?;
        let signs = !self.tls_ca_key.as_os_str().is_empty();
        if signs && tls.is_none() {
            return bad(
                "tls_ca_key is set, and tls_certificate, tls_key and tls_ca are not: set all, or none".into(),
            );
        }
        if signs && !self.tokens {
            return bad(
                "tls_ca_key is set, with which workers join by tokens, and tokens is false: remove one of the two"
                    .into(),
            );
        }
        if self.data_dir.as_os_str().is_empty() {
            return bad("data_dir is empty: name a folder".into());
        }
        // `fovea_core::run` detects a stuck worker within 5 s, by the progress that several
        // heartbeats report.
        range("heartbeat_ms", self.heartbeat_ms.into(), 10, 1_000)?;
        range("timeout_ms", self.timeout_ms.into(), 20, 600_000)?;
        range("forming_grace_ms", self.forming_grace_ms, 0, 3_600_000)?;
        range("priority_age_s", self.priority_age_s, 0, 31_536_000)?;
        range("min_hold_s", self.min_hold_s, 0, 86_400)?;
        range("quota_workers", self.quota_workers.into(), 0, 1 << 20)?;
        for quota in self.single_quotas() {
            quota.map_err(|part| {
                ConfigError::Value(format!(
                    "quotas has {part:?}, which is not NAME=WORKERS: write ann=8, bob=2"
                ))
            })?;
        }
        if tls.is_none() && (self.quota_workers > 0 || !self.quotas.is_empty()) {
            return bad(
                "quota_workers or quotas is set, and without TLS nobody has a name: set tls_certificate, tls_key and tls_ca, \
                 or remove the quotas"
                    .into(),
            );
        }
        range("drain_timeout_s", self.drain_timeout_s, 0, 86_400)?;
        range("handshake_timeout_s", self.handshake_timeout_s, 1, 600)?;
        // Clients come back to a connection between two commands of a person.
        range("idle_timeout_s", self.idle_timeout_s, 1, 86_400)?;
        self.validate_counts()?;
        range("trash_keep_days", self.trash_keep_days.into(), 0, 36_500)?;
        range("min_free_mib", self.min_free_mib, 0, 1 << 40)?;
        range(
            "unreadable_patience_s",
            self.unreadable_patience_s,
            1,
            604_800,
        )?;
        range(
            "no_worker_patience_s",
            self.no_worker_patience_s,
            1,
            604_800,
        )?;
        if self.timeout_ms < self.heartbeat_ms.saturating_mul(2) {
            return bad(format!(
                "timeout_ms is {}, but must be at least twice heartbeat_ms ({}): else one late \
                 heartbeat loses a worker",
                self.timeout_ms, self.heartbeat_ms
            ));
        }
        let addresses = addresses("listen", &self.listen)?;
        let open = addresses.iter().any(|a| !a.ip().is_loopback());
        if open && tls.is_none() && !self.allow_insecure {
            return bad(format!(
                "listen is {:?}, which others can reach, and without TLS anybody there could \
                 command this coordinator. Set tls_certificate, tls_key and tls_ca (`fovea certs \
                 init` makes the files); or listen on 127.0.0.1; or, if the network is closed and \
                 everybody in it may command the coordinator and read all data, set allow_insecure = \
                 true (FOVEA_ALLOW_INSECURE=true)",
                self.listen
            ));
        }
        Ok(addresses)
    }

    /// The parts of `quotas`: name and number of workers, or what cannot be read.
    fn single_quotas(&self) -> impl Iterator<Item = Result<(&str, u32), &str>> {
        let parts = self.quotas.split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(|part| {
            let (name, workers) = part.split_once('=').ok_or(part)?;
            let workers = workers.trim().parse().map_err(|_| part)?;
            Ok((name.trim(), workers))
        })
    }

    /// How many workers the runs of a person may have together; None: any number.
    pub(crate) fn quota_of(&self, person: &str) -> Option<usize> {
        let own = self
            .single_quotas()
            .flatten()
            .find(|(name, _)| *name == person);
        let for_all = Some(self.quota_workers).filter(|workers| *workers > 0);
        own.map(|(_, workers)| workers)
            .or(for_all)
            .map(|workers| workers as usize)
    }

    /// The limits of clients: in all, and for each.
    fn validate_counts(&self) -> Result<(), ConfigError> {
        for (key, all, each, most) in [
            (
                "max_connections",
                self.max_connections,
                self.max_connections_per_client,
                1 << 20,
            ),
            (
                "max_watches",
                self.max_watches,
                self.max_watches_per_client,
                1 << 20,
            ),
            (
                "max_uploads",
                self.max_uploads,
                self.max_uploads_per_client,
                256,
            ),
            (
                "max_slice_uploads",
                self.max_slice_uploads,
                self.max_slice_uploads_per_client,
                1 << 16,
            ),
            (
                "max_downloads",
                self.max_downloads,
                self.max_downloads_per_client,
                1 << 16,
            ),
        ] {
            range(key, all.into(), 1, most)?;
            range(&format!("{key}_per_client"), each.into(), 1, most)?;
        }
        Ok(())
    }

    /// The files of TLS; None without TLS.
    ///
    /// # Errors
    /// Some of the three keys are given, and some are not.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>, ConfigError> {
        TlsFiles::from_keys(&self.tls_certificate, &self.tls_key, &self.tls_ca)
            .map_err(ConfigError::Value)
    }

    /// Where the object store is; None: there is none.
    ///
    /// # Errors
    /// One of the keys `store...` has an impossible value.
    pub(crate) fn object_store(&self) -> Result<Option<Location>, ConfigError> {
        let Self {
            store,
            store_endpoint,
            store_region,
            store_allow_http,
            ..
        } = self;
        Location::from_keys(store, store_endpoint, store_region, *store_allow_http)
            .map_err(ConfigError::Value)
    }

    /// How long the parts of a stop may take.
    pub fn stop_limits(&self) -> StopLimits {
        self.on_stop
            .limits(Duration::from_secs(self.drain_timeout_s))
    }

    /// When connections are closed.
    pub(crate) fn deadlines(&self) -> Deadlines {
        Deadlines {
            handshake: Duration::from_secs(self.handshake_timeout_s),
            idle: Duration::from_secs(self.idle_timeout_s),
        }
    }

    /// The address of `ops_listen`; None if it is empty.
    ///
    /// # Errors
    /// It is not an address.
    pub fn ops_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        ops::address(&self.ops_listen)
    }

    /// Where traces go; None: nowhere.
    ///
    /// # Errors
    /// One of the keys `otlp_...` has an impossible value.
    pub fn traces(&self) -> Result<Option<fovea_traces::Settings>, ConfigError> {
        let (ca, headers) = (&self.otlp_ca, &self.otlp_headers_file);
        fovea_traces::Settings::from_keys(&self.otlp_endpoint, ca, headers)
            .map_err(ConfigError::Value)
    }

    /// The addresses of `http_listen`, each once; none if it is empty.
    ///
    /// # Errors
    /// It is no address, or one that others can reach, without TLS.
    pub fn http_addresses(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        if self.http_listen.is_empty() {
            return Ok(Vec::new());
        }
        let addresses = addresses("http_listen", &self.http_listen)?;
        let open = addresses.iter().any(|a| !a.ip().is_loopback());
        if open && self.tls_files()?.is_none() && !self.allow_insecure {
            return Err(ConfigError::Value(format!(
                "http_listen is {:?}, which others can reach, and without TLS anybody there could command this \
                 coordinator. Set tls_certificate, tls_key and tls_ca (`fovea certs init` makes the files); or listen on \
                 127.0.0.1 and come through ssh (`ssh -L 7080:127.0.0.1:7080 HOST`); or, if the network is closed, set \
                 allow_insecure = true (FOVEA_ALLOW_INSECURE=true)",
                self.http_listen
            )));
        }
        Ok(addresses)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}

/// A URL without what may be a secret in it: the configuration is shown to people (`--dump-config`).
fn redacted<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redact(url))
}

/// The addresses that `text` names, each once.
fn addresses(key: &str, text: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    let bad = |message: String| Err(ConfigError::Value(message));
    let found = match text.to_socket_addrs() {
        Ok(found) => found,
        Err(error) => {
            return bad(format!(
                "{key} is {text:?}, which is not host:port with a known host: {error}"
            ));
        }
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return bad(format!("{key}: {text:?} has no address"));
    }
    Ok(addresses)
}

fn range(key: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Value(format!(
        "{key} is {value}; use {low} to {high}"
    )))
}

#[cfg(test)]
mod tests;
