//! Whose the bucket's prefix is: a `store.json` in it, as in the stores' folders, and the same id in the journal.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::RemoteError;
use super::item::IDENTITY;
use super::location::Location;
use super::objects::Objects;
use crate::clock::unix_ms;

/// The newest format of a prefix that this version reads.
const FORMAT: u32 = 1;
/// In `store.json`.
const KIND: &str = "objects";

/// What `store.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    kind: String,
    id: String,
    created_at_ms: u64,
}

/// 128 random bits in hex.
pub(crate) fn new_id() -> String {
    let bytes: [u8; 16] = fovea_service::random_bytes();
    hex::encode(bytes)
}

/// Makes sure that the prefix is that of `id`, and claims it where it is empty. Of two who claim it at the same time one
/// succeeds. With `accept` a prefix that holds objects and no identity is claimed, too.
///
/// Returns whether it was claimed now, and what is in it.
pub(super) async fn claim(
    objects: &dyn Objects,
    location: &Location,
    id: &str,
    accept: bool,
) -> Result<(bool, BTreeMap<String, u64>), RemoteError> {
    match objects.get(IDENTITY).await {
        Ok(bytes) => {
            check(&bytes, location, id)?;
            return Ok((false, objects.list().await?));
        }
        Err(RemoteError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let listed = objects.list().await?;
    let ours = ["checkpoints/", "ledger/", "datasets/", "weights/"];
    let of_store = |key: &&String| ours.iter().any(|folder| key.starts_with(folder));
    if let Some(object) = listed.keys().find(of_store)
        && !accept
    {
        return Err(RemoteError::Unclaimed {
            store: location.to_string(),
            object: object.clone(),
        });
    }
    let identity = Identity {
        format: FORMAT,
        kind: KIND.to_owned(),
        id: id.to_owned(),
        created_at_ms: unix_ms(),
    };
    let mut bytes = serde_json::to_vec_pretty(&identity)
        .map_err(|error| RemoteError::Local(error.to_string()))?;
    bytes.push(b'\n');
    if objects.create(IDENTITY, Bytes::from(bytes)).await? {
        // Nothing is asked after that: a claim must not be taken for a failure.
        return Ok((true, listed));
    }
    // Somebody else was faster, or an answer to this very request was lost.
    check(&objects.get(IDENTITY).await?, location, id)?;
    Ok((false, listed))
}

fn check(bytes: &[u8], location: &Location, id: &str) -> Result<(), RemoteError> {
    let wrong = |problem: String| RemoteError::Identity {
        store: location.to_string(),
        problem,
    };
    /// The one field that every format has.
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } =
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if format > FORMAT {
        return Err(wrong(format!(
            "it has format {format}, and this version of Fovea reads {FORMAT}; start the newer version"
        )));
    }
    let found: Identity =
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if found.kind != KIND {
        return Err(wrong(format!("it is that of a store of {}", found.kind)));
    }
    if found.id != id {
        return Err(RemoteError::Foreign {
            store: location.to_string(),
            expected: id.to_owned(),
            found: found.id,
        });
    }
    Ok(())
}
