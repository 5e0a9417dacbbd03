//! The command line and the exit codes.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Parser;
use fovea_coordinator::{OnStop, RestoreError, ServeError};
use fovea_service::ops::HealthError;
use fovea_service::{LogFormat, VERSION};

/// Options of the program. Exit codes: 0 stopped as asked; 1 other failures; 2 the command line, the
/// configuration or the certificate; 3 the address cannot be listened on; 4 the data folder or the object store
/// cannot be used, or another coordinator or cluster has it; 5 stopped by force: by a second signal, or because the stop took too
/// long.
#[derive(Debug, Parser)]
#[command(
    name = "fovea-coordinator",
    version = VERSION,
    about = "Fovea's coordinator: takes runs, leads workers, keeps datasets and checkpoints.",
    long_about = None,
    after_help = AFTER_HELP
)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen: on every address of the host; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Folder for the journal, datasets and checkpoints
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Object store that gets a copy of checkpoints, datasets and weights: s3://BUCKET/PREFIX
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// What a request to stop does about runs under way: checkpoint (they are stopped, and go on
    /// after the next start) or hand-over (their workers train on meanwhile)
    #[arg(long, value_name = "WHAT")]
    on_stop: Option<OnStop>,
    /// The coordinator's certificate (PEM), for TLS
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// The private key of the certificate (PEM, mode 0600)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// The cluster's CAs (PEM): they sign who may connect
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// The private key of the CA (PEM, mode 0600): with it the coordinator signs certificates of workers that join with a
    /// token
    #[arg(long, value_name = "FILE")]
    tls_ca_key: Option<String>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Write the address that is listened on (the first, if there are several) to this file once it serves
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
    /// Accept stores of checkpoints or datasets that are not those that the journal knows (they were
    /// replaced on purpose)
    #[arg(long)]
    accept_store: bool,
    /// Serve /livez, /readyz and /metrics there, over plain HTTP
    #[arg(long, global = true, value_name = "HOST:PORT")]
    ops_listen: Option<String>,
    /// Serve the dashboard there: plain HTTP on this machine (127.0.0.1:7080), HTTPS beyond it
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// Print the configuration that holds, and exit
    #[arg(long)]
    pub dump_config: bool,
    /// Command to run instead of a coordinator
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command to run instead of a coordinator.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Put the journal of a backup (`fovea admin backup`) into the data folder, which must have none
    Restore {
        /// The backup
        file: PathBuf,
    },
    /// Ask the running coordinator, at its ops_listen, whether it is ready; exit code 0 if it is, else 1
    Health {
        /// Ask whether it is alive (/livez) instead of ready (/readyz)
        #[arg(long)]
        live: bool,
    },
}

const AFTER_HELP: &str = "\
Configuration, weakest first: defaults, --config, FOVEA_* variables (FOVEA_DATA_DIR), flags.
SIGTERM, SIGINT, SIGHUP, SIGUSR1 or SIGUSR2 checkpoints the runs and stops, or with on_stop =
\"hand-over\" leaves them to their workers and stops within 2 s; a second one quits at once. Under
nohup, SIGHUP is ignored.

An object store (store, store_endpoint, store_region) takes its credentials from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY), a web identity, or the role of the machine, never from the configuration.

Exit codes:
  0  stopped as asked
  1  any other failure
  2  bad command line, configuration or certificate
  3  cannot listen on the address
  4  the data folder or the object store cannot be used, or another coordinator or cluster uses it
  5  stopped by force: a second signal, or the stop took too long";

impl Args {
    /// The flags that were given, as configuration keys.
    pub fn overrides(&self) -> Vec<(&'static str, String)> {
        let format = self.log_format.map(|format| match format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        });
        [
            ("listen", self.listen.clone()),
            ("data_dir", self.data_dir.clone()),
            ("store", self.store.clone()),
            ("on_stop", self.on_stop.map(|on_stop| on_stop.to_string())),
            ("tls_certificate", self.tls_certificate.clone()),
            ("tls_key", self.tls_key.clone()),
            ("tls_ca", self.tls_ca.clone()),
            ("tls_ca_key", self.tls_ca_key.clone()),
            ("log_format", format),
            ("log_level", self.log_level.clone()),
            ("ops_listen", self.ops_listen.clone()),
            ("http_listen", self.http_listen.clone()),
            ("accept_store", self.accept_store.then(|| "true".to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

/// Why the program ends, and its exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub fn config(message: impl Display) -> Self {
        Self::new(2, message)
    }

    pub fn bind(listen: &str, error: &impl Display) -> Self {
        Self::new(
            3,
            format!(
                "cannot listen on {listen}: {error}; is another program there? Port 0 takes a free one"
            ),
        )
    }

    pub fn address_file(path: &Path, error: &std::io::Error) -> Self {
        Self::new(
            1,
            format!("cannot write --address-file {}: {error}", path.display()),
        )
    }

    pub fn serve(error: &ServeError) -> Self {
        Self::new(u8::try_from(error.exit_code()).unwrap_or(1), error)
    }

    pub fn restore(error: &RestoreError) -> Self {
        Self::new(error.exit_code(), error)
    }

    pub fn health(error: &HealthError) -> Self {
        Self::new(error.exit_code(), error)
    }

    pub fn other(error: impl Display) -> Self {
        Self::new(1, error)
    }

    fn new(code: u8, message: impl Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// People write the options of a command behind it.
    #[test]
    fn what_a_command_needs_may_stand_before_it_or_behind_it() {
        for line in [
            "fovea-coordinator --data-dir d restore fovea.tar",
            "fovea-coordinator restore fovea.tar --data-dir d",
            "fovea-coordinator restore --data-dir d fovea.tar",
            "fovea-coordinator --ops-listen h:1 health --data-dir d --live",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            let overrides = args.overrides();
            assert!(
                overrides.contains(&("data_dir", "d".to_owned())),
                "{line}: {overrides:?}"
            );
        }
        let health = Args::try_parse_from(["x", "health", "--ops-listen", "h:1", "--config", "c"]);
        let health = health.unwrap();
        assert_eq!(health.config, Some("c".into()));
        assert_eq!(health.overrides(), [("ops_listen", "h:1".to_owned())]);
    }
}
