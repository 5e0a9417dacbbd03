//! What Fovea's programs share: layered configuration, logs, signals and the version.

mod config;
mod logging;
mod shutdown;

pub use config::{ConfigError, layered};
pub use logging::{LogFormat, init_logging};
pub use shutdown::{FORCED, Shutdown};

/// Fovea's version with the commit that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FOVEA_COMMIT"), ")");
