//! The coordinator's configuration: every key, its default, and what it may be.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use fovea_service::{ConfigError, LogFormat};
use serde::{Deserialize, Serialize};

/// All that can be configured. Layers: defaults < file < FOVEA_* < flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen, `host:port`; port 0 lets the system choose.
    pub listen: String,
    /// Folder for the journal, datasets and checkpoints.
    pub data_dir: PathBuf,
    /// Allows listening beyond this machine without TLS: on trusted networks only.
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
    /// How long a stop waits for runs to be checkpointed, seconds.
    pub drain_timeout_s: u64,
    /// How many datasets may be uploaded at the same time.
    pub max_uploads: u32,
    /// A place for TLS; not supported yet.
    pub tls: Tls,
}

/// The place that TLS will have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// File with the certificate chain, PEM.
    pub certificate: String,
    /// File with its private key, PEM.
    pub key: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".into(),
            data_dir: "fovea-data".into(),
            allow_insecure: false,
            log_format: LogFormat::Text,
            log_level: "info".into(),
            heartbeat_ms: 300,
            timeout_ms: 1500,
            forming_grace_ms: 1500,
            drain_timeout_s: 60,
            max_uploads: 4,
            tls: Tls::default(),
        }
    }
}

impl Config {
    /// Checks every value, and resolves `listen` to the addresses to try.
    ///
    /// # Errors
    /// Names the key and says what would be right.
    pub fn validate(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        let bad = |message: String| Err(ConfigError::Value(message));
        if self.tls != Tls::default() {
            return bad(
                "tls is not supported yet: leave it out, and keep to loopback or a trusted \
                 network (allow_insecure)"
                    .into(),
            );
        }
        if self.data_dir.as_os_str().is_empty() {
            return bad("data_dir is empty: name a folder".into());
        }
        // What heartbeats tell of is looked for several times within 5 s (`fovea_core::run`).
        range("heartbeat_ms", self.heartbeat_ms.into(), 10, 1_000)?;
        range("timeout_ms", self.timeout_ms.into(), 20, 600_000)?;
        range("forming_grace_ms", self.forming_grace_ms, 0, 3_600_000)?;
        range("drain_timeout_s", self.drain_timeout_s, 0, 86_400)?;
        range("max_uploads", self.max_uploads.into(), 1, 256)?;
        if self.timeout_ms < self.heartbeat_ms.saturating_mul(2) {
            return bad(format!(
                "timeout_ms is {}, but must be at least twice heartbeat_ms ({}): else one late \
                 heartbeat loses a worker",
                self.timeout_ms, self.heartbeat_ms
            ));
        }
        let addresses: Vec<SocketAddr> = match self.listen.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                return bad(format!(
                    "listen is {:?}, which is not host:port with a known host: {error}",
                    self.listen
                ));
            }
        };
        if addresses.is_empty() {
            return bad(format!("listen: {:?} has no address", self.listen));
        }
        if !self.allow_insecure && addresses.iter().any(|a| !a.ip().is_loopback()) {
            return bad(format!(
                "listen is {:?}, which others can reach, and without TLS anybody there could \
                 command this coordinator. TLS comes later: listen on 127.0.0.1, or set \
                 allow_insecure = true (FOVEA_ALLOW_INSECURE=true) if the network is trusted",
                self.listen
            ));
        }
        Ok(addresses)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
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
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_refused_by_name() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 7] = [
            (|c| c.listen = "nowhere".into(), "listen"),
            (|c| c.listen = "0.0.0.0:7070".into(), "allow_insecure"),
            (|c| c.tls.key = "k.pem".into(), "tls is not supported yet"),
            (|c| c.heartbeat_ms = 0, "heartbeat_ms"),
            (|c| c.timeout_ms = 599, "timeout_ms"),
            (|c| c.max_uploads = 0, "max_uploads"),
            (|c| c.data_dir = "".into(), "data_dir"),
        ];
        for (change, named) in cases {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn loopback_needs_no_permission_and_the_world_does() {
        let mut config = Config::default();
        assert!(config.validate().is_ok());
        config.listen = "[::1]:0".into();
        assert!(config.validate().is_ok());
        config.listen = "0.0.0.0:0".into();
        config.allow_insecure = true;
        assert!(config.validate().is_ok());
    }

    #[test]
    fn the_example_file_holds_the_defaults() {
        let text = include_str!("../../deploy/coordinator.toml");
        let example: Config = toml::from_str(text).unwrap();
        assert_eq!(example, Config::default());
        // Every key is explained there.
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for key in defaults.keys() {
            assert!(text.contains(key.as_str()), "{key} is not in the example");
        }
    }
}
