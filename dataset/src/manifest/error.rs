//! Why a manifest is not accepted.

/// Why a manifest is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than any manifest has.
    #[error("manifest.json has {bytes} bytes; at most {most} are read")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The most that are read.
        most: u64,
    },
    /// A version that this program does not know.
    #[error(
        "manifest.json has format version {version}, and this Fovea reads versions up to {newest}: \
         use a newer Fovea, or prepare the dataset again with this one"
    )]
    Newer {
        /// The version in the file.
        version: u32,
        /// The newest that is read here.
        newest: u32,
    },
    /// Not JSON, or other fields.
    #[error("manifest.json is not a Fovea dataset's manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A field has an impossible value.
    #[error("manifest.json: {field}: {problem}")]
    Field {
        /// The field's path.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The content does not match the digest.
    #[error(
        "manifest.json was changed after it was written: it states the digest {stated}, its content \
         has {actual}; prepare or copy the dataset again"
    )]
    Digest {
        /// The digest in the file.
        stated: String,
        /// The digest of what is there.
        actual: String,
    },
}

pub(super) fn ensure(
    good: bool,
    field: &str,
    problem: impl FnOnce() -> String,
) -> Result<(), ManifestError> {
    if good {
        return Ok(());
    }
    Err(ManifestError::Field {
        field: field.to_owned(),
        problem: problem(),
    })
}
