//! The limits of what clients use, as the configuration and the descriptors set them.

use std::sync::Arc;

use super::budget::Budget;
use super::quota::{Client, Cure, Limit, LimitReached, Permit, Quota};
use crate::config::Config;
use crate::error::ApiError;

/// How many connections, watches and transfers there may be, for each client and in all. Clones
/// count together.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    connections: Arc<Quota>,
    watches: Arc<Quota>,
    uploads: Arc<Quota>,
    slice_uploads: Arc<Quota>,
    downloads: Arc<Quota>,
}

impl Limits {
    pub(crate) fn new(config: &Config, budget: &Budget) -> Self {
        let key = |most, key| Limit {
            most,
            cure: Cure::Key(key),
        };
        let within = |allowed: u32, configured: u32, name| {
            if allowed < configured {
                Limit {
                    most: allowed,
                    cure: Cure::Descriptors,
                }
            } else {
                key(configured, name)
            }
        };
        Self {
            connections: Quota::new(
                "connections",
                within(
                    budget.connections,
                    config.max_connections,
                    "max_connections",
                ),
                key(
                    config.max_connections_per_client,
                    "max_connections_per_client",
                ),
            ),
            watches: Quota::new(
                "watches",
                key(config.max_watches, "max_watches"),
                key(config.max_watches_per_client, "max_watches_per_client"),
            ),
            uploads: Quota::new(
                "uploads of datasets and weights",
                within(budget.uploads, config.max_uploads, "max_uploads"),
                key(config.max_uploads_per_client, "max_uploads_per_client"),
            ),
            slice_uploads: Quota::new(
                "uploads of checkpoint slices",
                key(config.max_slice_uploads, "max_slice_uploads"),
                key(
                    config.max_slice_uploads_per_client,
                    "max_slice_uploads_per_client",
                ),
            ),
            downloads: Quota::new(
                "downloads",
                within(budget.downloads, config.max_downloads, "max_downloads"),
                key(config.max_downloads_per_client, "max_downloads_per_client"),
            ),
        }
    }

    /// A connection that was accepted.
    pub(crate) fn connection(&self, client: Option<Client>) -> Result<Permit, LimitReached> {
        self.connections.acquire(client)
    }
}

impl Limits {
    /// A stream of a run's events.
    pub(crate) fn watch(&self, client: Option<Client>) -> Result<Permit, LimitReached> {
        self.watches.acquire(client)
    }

    /// The upload of a dataset or of weights.
    pub(crate) fn upload(&self, client: Option<Client>) -> Result<Permit, LimitReached> {
        self.uploads.acquire(client)
    }

    /// The upload of a worker's slice of a checkpoint. Workers try again when it is refused.
    pub(crate) fn slice_upload(&self, client: Option<Client>) -> Result<Permit, LimitReached> {
        self.slice_uploads.acquire(client)
    }

    /// The download of a checkpoint, of packs or of weights. Workers and clients try again when it is refused.
    pub(crate) fn download(&self, client: Option<Client>) -> Result<Permit, LimitReached> {
        self.downloads.acquire(client)
    }
}

impl From<LimitReached> for ApiError {
    fn from(reached: LimitReached) -> Self {
        Self::Exhausted(reached.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;

    #[test]
    fn every_limit_names_its_key_and_what_descriptors_take_away_says_so() {
        let config = Config {
            max_connections: 2,
            max_connections_per_client: 1,
            max_watches: 2,
            max_watches_per_client: 1,
            max_uploads: 2,
            max_uploads_per_client: 1,
            max_slice_uploads: 2,
            max_slice_uploads_per_client: 1,
            max_downloads: 2,
            max_downloads_per_client: 1,
            ..Config::default()
        };
        let budget = Budget {
            connections: 2,
            uploads: 2,
            downloads: 2,
        };
        type Take = fn(&Limits, Option<Client>) -> Result<Permit, LimitReached>;
        let cases: [(&str, Take); 5] = [
            ("max_connections", Limits::connection),
            ("max_watches", Limits::watch),
            ("max_uploads", Limits::upload),
            ("max_slice_uploads", Limits::slice_upload),
            ("max_downloads", Limits::download),
        ];
        let host = |last| Some(Client::at([10, 0, 0, last].into()));
        let limits = Limits::new(&config, &budget);
        for (key, take) in cases {
            let _one = take(&limits, host(1)).unwrap();
            let own = take(&limits, host(1)).unwrap_err().to_string();
            assert!(own.contains(&format!("{key}_per_client")), "{own}");
            let _two = take(&limits, host(2)).unwrap();
            let all = take(&limits, host(3)).unwrap_err();
            assert!(all.to_string().contains(&format!("{key} in")), "{all}");
            let status = Status::from(ApiError::from(all));
            assert_eq!(status.code(), Code::ResourceExhausted);
        }
        let scarce = Budget {
            connections: 1,
            ..budget
        };
        let limits = Limits::new(&config, &scarce);
        let _one = limits.connection(None).unwrap();
        let refused = limits.connection(None).unwrap_err().to_string();
        assert!(refused.contains("ulimit -n"), "{refused}");
    }
}
