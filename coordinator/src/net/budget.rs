//! Sharing the process's file descriptors between clients and the coordinator's own files.
//!
//! A connection takes one descriptor; a dataset's upload up to two and a download one for files.
//! What the journal and the stores need is reserved before clients get any.

use fovea_service::{descriptor_limit, open_descriptors};
use tracing::warn;

use crate::config::Config;

/// Descriptors kept for the journal, the stores and what the libraries open.
const RESERVE: u64 = 64;

/// A larger process keeps this part of its descriptors: it assembles more checkpoints at once.
const RESERVED_PART: u64 = 16;

/// More than this is never reserved.
const MOST_RESERVED: u64 = 4096;

/// How much clients may use, by the configuration and by the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    pub connections: u32,
    pub uploads: u32,
    pub downloads: u32,
}

impl Budget {
    /// The budget of this process, whose own files are open. Logs if the descriptors allow less
    /// than the configuration.
    pub(crate) fn of_this_process(config: &Config) -> Self {
        let limit = descriptor_limit();
        // Without /proc: the few that a coordinator has open at the start.
        let open = open_descriptors().unwrap_or(32);
        let budget = Self::plan(limit, open, config);
        if budget != Self::configured(config) {
            let Self {
                connections,
                uploads,
                downloads,
            } = budget;
            warn!(
                "descriptors.scarce: {limit} file descriptors allow {connections} connections, \
                 {uploads} uploads and {downloads} downloads, less than max_connections \
                 ({}), max_uploads ({}) and max_downloads ({}); raise the limit (ulimit -n, or \
                 LimitNOFILE of the service) if more clients are expected",
                config.max_connections, config.max_uploads, config.max_downloads
            );
        }
        budget
    }

    fn configured(config: &Config) -> Self {
        Self {
            connections: config.max_connections,
            uploads: config.max_uploads,
            downloads: config.max_downloads,
        }
    }

    /// The budget of a process that may have `limit` descriptors and has `open` ones. There is at
    /// least one of everything.
    fn plan(limit: u64, open: u64, config: &Config) -> Self {
        let wanted = Self::configured(config);
        let free = limit.saturating_sub(open);
        let reserve = (limit / RESERVED_PART).clamp(RESERVE, MOST_RESERVED);
        let for_clients = free - reserve.min(free / 2);
        // Files get at most a quarter, and of that uploads a third.
        let files = for_clients / 4;
        let least = |wanted: u32, allowed: u64| {
            wanted.min(u32::try_from(allowed).unwrap_or(u32::MAX).max(1))
        };
        let uploads = least(wanted.uploads, files / 3 / 2);
        let downloads = least(wanted.downloads, files - files / 3);
        let for_files = u64::from(uploads) * 2 + u64::from(downloads);
        let connections = least(wanted.connections, for_clients.saturating_sub(for_files));
        Self {
            connections,
            uploads,
            downloads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_what_the_coordinator_needs() {
        let config = Config::default();
        for limit in [64, 100, 256, 1024, 4096, 20_000, 1 << 20] {
            for open in [10, 20, 30] {
                let Budget {
                    connections,
                    uploads,
                    downloads,
                } = Budget::plan(limit, open, &config);
                let clients = u64::from(connections + 2 * uploads + downloads);
                let left = limit - open - clients;
                let needed = RESERVE.min((limit - open) / 2 - 1);
                assert!(left >= needed, "{limit}, {open}: {left} left");
                assert!(connections >= 10, "{limit}, {open}: {connections}");
            }
        }
    }

    #[test]
    fn the_configuration_holds_where_descriptors_are_plenty() {
        let config = Config::default();
        for limit in [8192, u64::MAX] {
            let budget = Budget::plan(limit, 30, &config);
            assert_eq!(budget, Budget::configured(&config), "{limit}");
        }
        let some = Budget::plan(1024, 30, &config);
        assert!((700..960).contains(&some.connections), "{some:?}");
        assert_eq!((some.uploads, some.downloads), (4, 64));
        let none = Budget::plan(10, 30, &config);
        assert_eq!((none.connections, none.uploads, none.downloads), (1, 1, 1));
    }
}
