//! What Fovea's programs share: layered configuration, logs, requests to stop, limits of the
//! process, random bytes and the version.

mod config;
mod descriptors;
mod logging;
mod nearest;
pub mod ops;
mod random;
mod repeated;
mod shutdown;
pub mod supervisor;

pub use config::{ConfigError, layered, misspelt, warn_misspelt};
pub use descriptors::{descriptor_limit, open_descriptors, raise_descriptor_limit};
pub use logging::{LogFormat, LoggingError, init_logging};
pub use nearest::nearest;
pub use random::random_bytes;
pub use repeated::Repeated;
pub use shutdown::{FORCED, Shutdown, StopRequests, leave};

/// Fovea's version with the commit that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FOVEA_COMMIT"), ")");
