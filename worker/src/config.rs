//! The worker's configuration and command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::own_kernels::GpuKernels;
use clap::Parser;
use fovea_security::TlsFiles;
use fovea_service::{ConfigError, LogFormat, VERSION, layered, ops};
use serde::{Deserialize, Serialize};

use crate::advertise::Advertised;
use crate::predict::Predict;
use crate::profile::Profile;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Where the coordinator is: https://host:port (http:// without TLS), or file:PATH of a file that holds it, read again
    /// at each attempt.
    pub coordinator: String,
    /// Folder for fetched packs; may be shared by the workers of a machine.
    pub data_dir: PathBuf,
    /// Address to listen on for other workers; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host name or address that other workers reach this one by, with a port or without (then it is that of `listen`);
    /// empty means the address of `listen`.
    pub advertise: String,
    /// First part of the worker's id; empty means the machine's name.
    pub name: String,
    /// Device: `auto` (a GPU if there is one), `cpu` or `cuda:N`.
    pub device: String,
    /// Number of this worker on its machine, from 0: with `auto` each takes a GPU of its own.
    pub local_rank: usize,
    /// Memory for the frozen layers' activations, MiB, so that they are computed once for each image of a run; 0
    /// computes them each time.
    pub cache_mib: u64,
    /// A GPU's memory for photographs, so that each is sent to it once, MiB; 0 sends them in every step.
    pub images_mib: u64,
    /// On a GPU: whether Fovea's own kernels compute what they cover: `auto` (where they have passed a comparison with libtorch's
    /// operations on this GPU, which is done once), `on` or `off`. NVRTC compiles them.
    pub gpu_kernels: GpuKernels,
    /// File for a trace of some steps of the first run, by libtorch's profiler; empty: none.
    pub profile: PathBuf,
    /// Steps that a worker takes before those of the trace.
    pub profile_after: u64,
    /// Steps in the trace.
    pub profile_steps: u64,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// A level or filter.
    pub log_level: String,
    /// How long peers may take to connect when a generation forms, seconds.
    pub connect_timeout_s: u64,
    /// How long this worker waits for a peer in a reduction, seconds. A last resort: the coordinator detects a lost
    /// or stuck peer much earlier.
    pub peer_timeout_s: u64,
    /// Fetch the packs that other workers of a run use, too, while it trains.
    pub prefetch: bool,
    /// Disk space for fetched packs in `data_dir`, MiB; 0 is no limit. Packs that no worker uses are evicted by their
    /// last use.
    pub cache_disk_mib: u64,
    /// Where `/livez`, `/readyz` and `/metrics` are served over plain HTTP, `host:port`; empty: nowhere.
    pub ops_listen: String,
    /// Collector that gets traces by OTLP over gRPC, `http://HOST:4317` or `https://...`; empty: none.
    pub otlp_endpoint: String,
    /// With https: CAs (PEM) that sign the collector's certificate.
    pub otlp_ca: PathBuf,
    /// File with headers of each request to the collector, a line `NAME: VALUE` for each (mode 0600); empty: none.
    pub otlp_headers_file: PathBuf,
    /// A worker that was asked to stop exits after so many seconds at most, whatever its threads or the coordinator wait for.
    pub stop_timeout_s: u64,
    /// A worker that has had no assignment for so many seconds leaves and exits with code 0; 0 never does.
    pub exit_when_idle_s: u64,
    /// This worker's certificate (PEM), for a coordinator with TLS; empty: no TLS. The worker's name is in it.
    pub tls_certificate: PathBuf,
    /// The certificate's private key (PEM, mode 0600).
    pub tls_key: PathBuf,
    /// The cluster's CAs (PEM).
    pub tls_ca: PathBuf,
    /// File with a token to join the cluster with (mode 0600), instead of these three: the coordinator signs a certificate,
    /// which is kept in `data_dir` and renewed; empty: none.
    pub join_token_file: PathBuf,
    /// With TLS: let NCCL send gradients to other machines, which it does in plain text. False sends them over the
    /// encrypted mesh there. NCCL is used where all workers of a run allow it.
    pub allow_plaintext_nccl: bool,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            coordinator: "http://127.0.0.1:7070".into(),
            data_dir: "fovea-worker-data".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: String::new(),
            name: String::new(),
            device: "auto".into(),
            local_rank: 0,
            cache_mib: 2048,
            images_mib: 8192,
            gpu_kernels: GpuKernels::Auto,
            profile: PathBuf::new(),
            profile_after: 20,
            profile_steps: 10,
            log_format: LogFormat::Text,
            log_level: "info".into(),
            connect_timeout_s: 5,
            peer_timeout_s: 300,
            prefetch: true,
            cache_disk_mib: 20480,
            ops_listen: String::new(),
            otlp_endpoint: String::new(),
            otlp_ca: PathBuf::new(),
            otlp_headers_file: PathBuf::new(),
            stop_timeout_s: 10,
            exit_when_idle_s: 0,
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_ca: PathBuf::new(),
            join_token_file: PathBuf::new(),
            allow_plaintext_nccl: false,
        }
    }
}

const AFTER_HELP: &str = "\
Every setting can also be given in a TOML file (--config) or as FOVEA_<KEY>; flags win over the environment, the
environment over the file.

Exit codes:
  0  stopped as asked, or idle for exit_when_idle_s
  1  any other failure
  2  bad command line or configuration; or the coordinator refuses this worker for good (its certificate, say), or
     speaks another version of the protocol
  3  cannot listen on the address
  4  the data folder cannot be used
  5  stopped by force: a second signal
  6  threads hung: the worker could not stop within stop_timeout_s, or too many reads do not return
  9  predict: some photographs could not be read, and the others were scored";

/// Command line of `fovea-worker`.
#[derive(Debug, Parser)]
#[command(
    name = "fovea-worker",
    version = VERSION,
    about = "Hosts virtual ranks of Fovea's runs and trains GoogLeNet on its local device",
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// TOML file with settings
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Coordinator's address, https://host:port (http:// without TLS), or file:PATH of a file that holds it
    /// [default: http://127.0.0.1:7070]
    #[arg(long, value_name = "URL")]
    coordinator: Option<String>,
    /// Folder for fetched packs
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to listen on for other workers [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Host that other workers reach this one by, such as node-3, 10.0.0.3:7071 or [fd00::3]:7071
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// First part of the worker's id [default: the machine's name]
    #[arg(long)]
    name: Option<String>,
    /// auto, cpu or cuda:N [default: auto]
    #[arg(long)]
    device: Option<String>,
    /// Number of this worker on its machine: with `auto` each takes a GPU of its own [default: 0]
    #[arg(long, value_name = "N")]
    local_rank: Option<usize>,
    /// Memory for the frozen layers' activations, MiB [default: 2048]
    #[arg(long, value_name = "MIB")]
    cache_mib: Option<u64>,
    /// Disk space for fetched packs, MiB; 0 is no limit [default: 20480]
    #[arg(long, value_name = "MIB")]
    cache_disk_mib: Option<u64>,
    /// Exit with code 0 after so many seconds without an assignment; 0 never does [default: 0]
    #[arg(long, value_name = "SECONDS")]
    exit_when_idle_s: Option<u64>,
    /// This worker's certificate (PEM), for a coordinator with TLS
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// The private key of the certificate (PEM, mode 0600)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The cluster's CAs (PEM)
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// A file with a token to join the cluster with (mode 0600), instead of a certificate
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// text or json
    #[arg(long)]
    log_format: Option<String>,
    /// error, warn, info, debug, trace, or a filter
    #[arg(long)]
    log_level: Option<String>,
    /// Serve /livez, /readyz and /metrics there, over plain HTTP
    #[arg(long, global = true, value_name = "HOST:PORT")]
    ops_listen: Option<String>,
    /// Print the effective configuration as TOML and exit
    #[arg(long)]
    pub dump_config: bool,
    /// Command to run instead of a worker
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command to run instead of a worker.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Write what the network puts out before its classifier for each photograph, for `fovea baseline --features cnn`
    Features(crate::features::Features),
    /// Print the devices and libraries of this machine, and what is missing
    Devices {
        /// Compute a step on the GPU that `device` names by libtorch's operations and by Fovea's own kernels, and compare them
        #[arg(long)]
        check: bool,
        /// With --check: time so many steps of 256 images of 224 px each way, too
        #[arg(long, value_name = "STEPS", requires = "check")]
        time: Option<u32>,
        /// With --check: images of 224 px in the largest step that is compared [default: one for each 256 MiB of free memory of the
        /// GPU, from 2 to 64]
        #[arg(long, value_name = "N", requires = "check", value_parser = clap::value_parser!(u32).range(1..=1024))]
        images: Option<u32>,
    },
    /// Ask the running worker, at its ops_listen, whether it is connected; exit code 0 if it is, else 1
    Health {
        /// Ask whether it is alive (/livez) instead of connected (/readyz)
        #[arg(long)]
        live: bool,
    },
    /// Score photographs with a model's file, without a coordinator
    Predict(Box<Predict>),
}

impl Cli {
    /// The effective configuration, validated.
    pub fn config(&self) -> Result<WorkerConfig, ConfigError> {
        let text = |path: &PathBuf| path.display().to_string();
        let flags: Vec<(&str, String)> = [
            ("coordinator", self.coordinator.clone()),
            ("data_dir", self.data_dir.as_ref().map(text)),
            ("listen", self.listen.clone()),
            ("advertise", self.advertise.clone()),
            ("name", self.name.clone()),
            ("device", self.device.clone()),
            ("local_rank", self.local_rank.map(|rank| rank.to_string())),
            ("cache_mib", self.cache_mib.map(|mib| mib.to_string())),
            (
                "cache_disk_mib",
                self.cache_disk_mib.map(|mib| mib.to_string()),
            ),
            (
                "exit_when_idle_s",
                self.exit_when_idle_s.map(|seconds| seconds.to_string()),
            ),
            ("tls_certificate", self.tls_certificate.as_ref().map(text)),
            ("tls_key", self.tls_key.as_ref().map(text)),
            ("tls_ca", self.tls_ca.as_ref().map(text)),
            ("join_token_file", self.join_token_file.as_ref().map(text)),
            ("log_format", self.log_format.clone()),
            ("log_level", self.log_level.clone()),
            ("ops_listen", self.ops_listen.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|v| (key, v)))
        .collect();
        let config: WorkerConfig = layered(self.config.as_deref(), std::env::vars(), &flags)?;
        config.validate()?;
        Ok(config)
    }
}

impl WorkerConfig {
    /// `images_mib` in bytes.
    pub fn images_bytes(&self) -> u64 {
        self.images_mib.saturating_mul(1 << 20)
    }

    /// `cache_disk_mib` in bytes; 0 is no limit.
    pub fn cache_disk_bytes(&self) -> u64 {
        self.cache_disk_mib.saturating_mul(1 << 20)
    }

    /// `cache_mib` in bytes.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_mib.saturating_mul(1 << 20)
    }

    /// What records some steps on `device`; None if `profile` is empty.
    pub fn profile(&self, device: tch::Device) -> Option<Profile> {
        let (after, steps) = (self.profile_after, self.profile_steps);
        (!self.profile.as_os_str().is_empty())
            .then(|| Profile::new(self.profile.clone(), after, steps, device))
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

    /// The files of TLS; None without TLS.
    ///
    /// # Errors
    /// Some of the three keys are given, and some are not.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>, ConfigError> {
        TlsFiles::from_keys(&self.tls_certificate, &self.tls_key, &self.tls_ca)
            .map_err(ConfigError::Value)
    }

    /// Whether it joins with a token.
    pub fn joins(&self) -> bool {
        !self.join_token_file.as_os_str().is_empty()
    }

    /// `exit_when_idle_s`; None for never.
    pub fn exit_when_idle(&self) -> Option<Duration> {
        (self.exit_when_idle_s > 0).then(|| Duration::from_secs(self.exit_when_idle_s))
    }

    /// The address by which other workers reach one that listens on `listen`: `host:port`.
    ///
    /// # Errors
    /// If `advertise` is not an address that anybody can connect to.
    pub fn address(&self, listen: SocketAddr) -> Result<String, ConfigError> {
        if self.advertise.is_empty() {
            return Ok(listen.to_string());
        }
        let advertised: Advertised = self.advertise.parse().map_err(|error| {
            ConfigError::Value(format!(
                "advertise: {error}. Give the host name or address by which other workers reach this one, such as \
                 node-3, 10.0.0.3:7071 or [fd00::3]:7071"
            ))
        })?;
        Ok(advertised.address(listen.port()))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.ops_address()?;
        self.traces()?;
        let tls = self.tls_files()?;
        if tls.is_some() && self.joins() {
            return Err(ConfigError::Value(
                "join_token_file and tls_certificate are both set, and a worker has one identity: remove one of the two"
                    .into(),
            ));
        }
        let bad = |message: String| Err(ConfigError::Value(message));
        if self.listen.ip().is_unspecified() && self.advertise.is_empty() {
            return bad(format!(
                "listen: {} listens everywhere, so give `advertise`, the host that other workers reach \
                 this one by",
                self.listen
            ));
        }
        self.address(self.listen)?;
        for (key, value) in [
            ("connect_timeout_s", self.connect_timeout_s),
            ("peer_timeout_s", self.peer_timeout_s),
            ("stop_timeout_s", self.stop_timeout_s),
        ] {
            if value == 0 {
                return bad(format!("{key}: is 0; give at least 1 second"));
            }
        }
        if !(1..=1000).contains(&self.profile_steps) {
            return bad(format!(
                "profile_steps: is {}; give 1 to 1000 steps, of which each adds some MB to the trace",
                self.profile_steps
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<WorkerConfig, ConfigError> {
        Cli::parse_from([&["fovea-worker"], args].concat()).config()
    }

    #[test]
    fn flags_override_defaults() {
        let config =
            config(&["--listen", "127.0.0.2:0", "--name", "a", "--device", "cpu"]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.2:0");
        assert_eq!(config.name, "a");
        assert_eq!(config.cache_bytes(), 2 << 30);
        let config = self::config(&["--cache-mib", "3"]).unwrap();
        assert_eq!(config.cache_bytes(), 3 << 20);
    }

    #[test]
    fn the_advertised_address_has_the_listeners_port_unless_it_has_one() {
        let listen: SocketAddr = "[::]:7071".parse().unwrap();
        for (advertise, address) in [
            ("node-3", "node-3:7071"),
            ("node-3:90", "node-3:90"),
            ("fd00::3", "[fd00::3]:7071"),
        ] {
            let config = config(&["--listen", "[::]:7071", "--advertise", advertise]).unwrap();
            assert_eq!(config.address(listen).unwrap(), address);
        }
        let config = config(&["--listen", "[::1]:7071"]).unwrap();
        assert_eq!(config.address(config.listen).unwrap(), "[::1]:7071");
    }

    #[test]
    fn a_worker_that_may_be_idle_for_0_s_is_one_that_never_exits() {
        assert_eq!(config(&[]).unwrap().exit_when_idle(), None);
        let config = config(&["--exit-when-idle-s", "90"]).unwrap();
        assert_eq!(config.exit_when_idle(), Some(Duration::from_secs(90)));
    }

    #[test]
    fn the_example_file_holds_every_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/worker.toml");
        assert_eq!(
            config(&["--config", path]).unwrap(),
            WorkerConfig::default()
        );
        let text = std::fs::read_to_string(path).unwrap();
        let keys = toml::Table::try_from(WorkerConfig::default()).unwrap();
        for key in keys.keys() {
            assert!(text.contains(&format!("\n{key} = ")), "{key} is missing");
        }
    }

    #[test]
    fn a_worker_has_one_identity() {
        let files = ["--tls-certificate", "c", "--tls-key", "k", "--tls-ca", "a"];
        assert!(config(&files).is_ok());
        assert!(config(&["--join-token-file", "t"]).unwrap().joins());
        let both = [&files[..], &["--join-token-file", "t"]].concat();
        let error = config(&both).unwrap_err().to_string();
        assert!(
            error.contains("join_token_file and tls_certificate"),
            "{error}"
        );
    }

    #[test]
    fn impossible_values_are_named() {
        for (args, key) in [
            (["--listen", "0.0.0.0:0"], "advertise"),
            (["--listen", "nowhere"], "listen"),
            (["--log-format", "xml"], "log_format"),
            (["--advertise", "http://node-3:7071"], "advertise"),
            (["--advertise", "node-3:0"], "advertise"),
            (["--advertise", ":7071"], "advertise"),
            (["--advertise", "0.0.0.0"], "advertise"),
            (["--advertise", "::"], "advertise"),
            (["--advertise", " "], "advertise"),
            (
                ["--tls-key", "k.pem"],
                "tls_certificate and tls_ca are missing",
            ),
        ] {
            let error = config(&args).unwrap_err().to_string();
            assert!(error.contains(key), "{args:?}: {error}");
        }
    }
}
