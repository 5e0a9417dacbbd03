//! Why the object store does not do what was asked, each with a sentence that says what to do.

use std::error::Error;

use object_store::Error as Cause;
use object_store::client::{HttpError, HttpErrorKind};

use super::location::Location;

/// Why a request to the object store failed.
///
/// | kind | what it says | what follows |
/// |---|---|---|
/// | `Missing`, `NoUpload` | that there is no such object, or upload | the upload begins anew; a download fails |
/// | `Full` | no room | uploads wait, removals go on |
/// | `Damaged`, `Local` | something about one item | that item waits |
/// | all others | the store as a whole | everything waits, with growing pauses |
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// There is no such bucket.
    #[error("the object store {store} has no bucket {bucket:?}: make it, or correct the key store")]
    NoBucket {
        /// The store.
        store: String,
        /// The bucket.
        bucket: String,
    },
    /// The credentials are not known, or not complete.
    #[error(
        "the object store {store} does not accept the credentials ({problem}): correct AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY in the environment, or the role of the machine or pod"
    )]
    Credentials {
        /// The store.
        store: String,
        /// What it says.
        problem: String,
    },
    /// The credentials have no right to do this.
    #[error(
        "the object store {store} does not allow to {action} ({problem}): its policy must allow ListBucket and \
         ListBucketMultipartUploads on the bucket, and GetObject, PutObject, DeleteObject and AbortMultipartUpload under the \
         prefix"
    )]
    Denied {
        /// The store.
        store: String,
        /// What was tried.
        action: String,
        /// What it says.
        problem: String,
    },
    /// The bucket is in another region.
    #[error(
        "the bucket of {store} is not in this region or at this endpoint ({problem}): correct store_region or store_endpoint"
    )]
    Region {
        /// The store.
        store: String,
        /// What it says.
        problem: String,
    },
    /// No TLS connection was made.
    #[error(
        "no TLS connection to the object store {store} ({problem}): its certificate must be valid for that name and signed \
         by a CA that this machine trusts; SSL_CERT_FILE names another file of CAs"
    )]
    Tls {
        /// The store.
        store: String,
        /// What happened.
        problem: String,
    },
    /// It cannot be reached at the first start, and nobody knows yet whose it is.
    #[error(
        "the object store {store} is away ({problem}). It was never used from this data folder, so that the first start needs \
         it: correct what is named and start again, or start without the key store"
    )]
    Needed {
        /// The store.
        store: String,
        /// What happened.
        problem: String,
    },
    /// It cannot be reached, or fails by itself.
    #[error(
        "the object store {store} is away ({problem}); it is tried again, and training goes on"
    )]
    Away {
        /// The store.
        store: String,
        /// What happened.
        problem: String,
    },
    /// The quota or the disk is full.
    #[error(
        "the object store {store} is full ({problem}): free room or raise the quota; uploads wait meanwhile"
    )]
    Full {
        /// The store.
        store: String,
        /// What it says.
        problem: String,
    },
    /// There is no such object.
    #[error("{object} is not in the object store {store}")]
    Missing {
        /// The store.
        store: String,
        /// The object's key.
        object: String,
    },
    /// The upload was aborted, or forgotten by the store.
    #[error(
        "the object store {store} does not know the upload of {object} any more; it begins anew"
    )]
    NoUpload {
        /// The store.
        store: String,
        /// The object's key.
        object: String,
    },
    /// The bucket's prefix is another cluster's.
    #[error(
        "the object store {store} belongs to another cluster: its store.json says {found}, this journal says {expected}. Name \
         another bucket or prefix (key store), or restore the journal that belongs to it (`fovea-coordinator restore`)"
    )]
    Foreign {
        /// The store.
        store: String,
        /// The identity in the journal.
        expected: String,
        /// The identity that was found.
        found: String,
    },
    /// The prefix holds objects of a store, but no identity.
    #[error(
        "the object store {store} holds {object} but no store.json, so nobody knows whose it is. Name an empty prefix (key \
         store); or, if what it holds is this cluster's, start once with --accept-store"
    )]
    Unclaimed {
        /// The store.
        store: String,
        /// One of its objects.
        object: String,
    },
    /// Its identity cannot be used.
    #[error(
        "store.json in the object store {store} is not a store's identity: {problem}. Put it back from a copy, or name another prefix (key store)"
    )]
    Identity {
        /// The store.
        store: String,
        /// What is wrong.
        problem: String,
    },
    /// What was read is not what was stored.
    #[error("{object} in the object store {store} is damaged: {problem}")]
    Damaged {
        /// The store.
        store: String,
        /// The object's key.
        object: String,
        /// What differs.
        problem: String,
    },
    /// The local file cannot be read or written.
    #[error("{0}")]
    Local(String),
    /// The configuration of the client is refused.
    #[error(
        "the object store's client cannot be made: {0}; correct the keys store_* or the variables AWS_*"
    )]
    Config(String),
    /// The answer cannot be understood.
    #[error(
        "the object store {store} gave an answer that S3 does not give ({problem}); does store_endpoint name an S3 service?"
    )]
    Answer {
        /// The store.
        store: String,
        /// What it was.
        problem: String,
    },
}

impl RemoteError {
    /// It is about one item, and not about the store as a whole.
    pub(super) fn of_item(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::NoUpload { .. }
            | Self::Damaged { .. }
            | Self::Local(_) => true,
            Self::NoBucket { .. }
            | Self::Credentials { .. }
            | Self::Denied { .. }
            | Self::Region { .. }
            | Self::Tls { .. }
            | Self::Needed { .. }
            | Self::Away { .. }
            | Self::Full { .. }
            | Self::Foreign { .. }
            | Self::Unclaimed { .. }
            | Self::Identity { .. }
            | Self::Config(_)
            | Self::Answer { .. } => false,
        }
    }

    /// Starting must be refused, though the store worked before: nothing of another cluster's is to be touched, and no
    /// run may take a number that the store knows.
    pub(super) fn forbids_start(&self) -> bool {
        matches!(
            self,
            Self::Foreign { .. } | Self::Unclaimed { .. } | Self::Identity { .. } | Self::Config(_)
        )
    }

    /// The prefix may have been claimed for all that is known: an answer was lost.
    pub(crate) fn may_have_claimed(&self) -> bool {
        matches!(
            self,
            Self::Needed { .. } | Self::Away { .. } | Self::Answer { .. } | Self::Local(_)
        )
    }

    /// What an error of the library means. `action`: what was tried ("write checkpoints/r-1/..."); `object`: its key.
    pub(super) fn of(location: &Location, action: &str, object: &str, error: &Cause) -> Self {
        let answer = Answer::of(error);
        let store = format!("{location} at {}", location.host());
        let problem = answer.text();
        match &*answer.code {
            "NoSuchBucket" => {
                return Self::NoBucket {
                    store,
                    bucket: location.bucket().to_owned(),
                };
            }
            "NoSuchUpload" | "InvalidPart" => {
                return Self::NoUpload {
                    store,
                    object: object.to_owned(),
                };
            }
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "RequestTimeTooSkewed"
            | "AuthorizationHeaderMalformed"
                if !problem.contains("region") =>
            {
                return Self::Credentials { store, problem };
            }
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => return Self::Region { store, problem },
            "QuotaExceeded"
            | "XMinioStorageFull"
            | "InsufficientStorage"
            | "StorageFull"
            | "XMinioAdminBucketQuotaExceeded"
            | "BucketQuotaExceeded" => {
                return Self::Full { store, problem };
            }
            _ => {}
        }
        if answer.beyond_end {
            return Self::Damaged {
                store,
                object: object.to_owned(),
                problem: "it is shorter than its manifest says; nothing was stored".to_owned(),
            };
        }
        match error {
            Cause::NotFound { .. } => Self::Missing {
                store,
                object: object.to_owned(),
            },
            Cause::PermissionDenied { .. } if problem.to_ascii_lowercase().contains("quota") => {
                Self::Full { store, problem }
            }
            Cause::PermissionDenied { .. } => Self::Denied {
                store,
                action: action.to_owned(),
                problem,
            },
            Cause::Unauthenticated { .. } => Self::Credentials { store, problem },
            _ if answer.redirected => Self::Region { store, problem },
            _ if answer.tls => Self::Tls { store, problem },
            _ if answer.credentials => Self::Credentials { store, problem },
            _ if answer.status == Some(507) => Self::Full { store, problem },
            _ if answer.decode => Self::Answer { store, problem },
            _ => Self::Away { store, problem },
        }
    }
}

/// What is known from an error: the library hides the response, but shows it in the text.
#[derive(Debug, Default)]
struct Answer {
    /// S3's error code; empty: none.
    code: String,
    message: String,
    status: Option<u16>,
    redirected: bool,
    tls: bool,
    credentials: bool,
    decode: bool,
    /// The range that was to be read begins after the object's end.
    beyond_end: bool,
    /// The innermost error.
    root: String,
}

impl Answer {
    fn of(error: &Cause) -> Self {
        let all = error.to_string();
        let mut answer = Self {
            code: between(&all, "<Code>", "</Code>").unwrap_or_default(),
            message: between(&all, "<Message>", "</Message>").unwrap_or_default(),
            status: between(&all, "status code: ", " ")
                .and_then(|s| s.trim_end_matches(':').parse().ok()),
            redirected: all.contains("redirect without LOCATION")
                || all.contains("status code: 30"),
            // Of the providers of credentials, which are asked before S3 is.
            credentials: ["metadata", "WebIdentity", "credential", "token"]
                .iter()
                .any(|word| all.contains(word))
                && !all.contains("status code: 5"),
            ..Self::default()
        };
        answer.beyond_end = answer.code == "InvalidRange"
            || answer.status == Some(416)
            || all.contains("Wanted range starting at");
        let mut next: Option<&dyn Error> = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if let Some(http) = error.downcast_ref::<HttpError>() {
                answer.decode |= http.kind() == HttpErrorKind::Decode;
            }
            answer.tls |= [
                "certificate",
                "TLS",
                "tls handshake",
                "InvalidContentType",
                "corrupt message",
            ]
            .iter()
            .any(|word| text.contains(word));
            answer.decode |= text.contains("invalid list response")
                || text.contains("invalid multipart response");
            next = error.source();
            if next.is_none() {
                answer.root = text;
            }
        }
        answer
    }

    /// For people, in one line, without what the server repeats of the request.
    fn text(&self) -> String {
        let status = self.status.map(|status| format!("status {status}"));
        let code = Some(&self.code).filter(|code| !code.is_empty()).cloned();
        let message = Some(&self.message).filter(|text| !text.is_empty()).cloned();
        let parts: Vec<String> = [code.or(status), message].into_iter().flatten().collect();
        let text = match parts.is_empty() {
            false => parts.join(": "),
            // An answer's body is left out: it may hold what was signed.
            true => self.root.split('<').next().unwrap_or_default().to_owned(),
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().take(200).collect()
    }
}

fn between(text: &str, from: &str, to: &str) -> Option<String> {
    let (_, rest) = text.split_once(from)?;
    Some(rest.split_once(to)?.0.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> Location {
        let read = Location::from_keys("s3://fovea/x", "https://s3.example", "", false);
        read.unwrap().unwrap()
    }

    fn status(status: u16, code: &str, message: &str) -> String {
        format!(
            "Error performing PUT https://s3.example/fovea/x/a in 3ms - Server returned non-2xx status code: {status} Some \
             Reason: <Error><Code>{code}</Code><Message>{message}</Message><AWSAccessKeyId>AKIAhunter2</AWSAccessKeyId></Error>"
        )
    }

    fn denied(code: &str, message: &str) -> Cause {
        Cause::PermissionDenied {
            path: "x/a".into(),
            source: status(403, code, message).into(),
        }
    }

    fn generic(text: String) -> Cause {
        Cause::Generic {
            store: "S3",
            source: text.into(),
        }
    }

    #[test]
    fn each_failure_has_its_sentence_and_no_secret() {
        let not_found = |code: &str| Cause::NotFound {
            path: "x/a".into(),
            source: status(404, code, "").into(),
        };
        for (error, part) in [
            (not_found("NoSuchBucket"), "has no bucket \"fovea\""),
            (not_found("NoSuchKey"), "a is not in the object store"),
            (not_found("NoSuchUpload"), "begins anew"),
            (denied("AccessDenied", "Access Denied."), "does not allow to write a (AccessDenied: Access Denied.)"),
            (denied("InvalidAccessKeyId", ""), "does not accept the credentials (InvalidAccessKeyId)"),
            (denied("SignatureDoesNotMatch", ""), "does not accept the credentials"),
            (denied("AccessDenied", "Bucket quota exceeded"), "is full"),
            (
                generic(status(400, "AuthorizationHeaderMalformed", "the region 'a' is wrong; expecting 'b'")),
                "correct store_region",
            ),
            (
                generic("Received redirect without LOCATION, this normally indicates an incorrectly configured region".into()),
                "correct store_region",
            ),
            (
                generic(status(416, "InvalidRange", "")),
                "shorter than its manifest",
            ),
            (generic(status(507, "XMinioStorageFull", "")), "is full"),
            (generic(status(503, "SlowDown", "Please reduce")), "is away (SlowDown: Please reduce)"),
            (generic("error sending request: connection refused".into()), "is away"),
            (generic("invalid peer certificate: UnknownIssuer".into()), "no TLS connection"),
        ] {
            let text = RemoteError::of(&location(), "write a", "a", &error).to_string();
            assert!(text.contains(part), "{text}");
            assert!(text.contains("s3://fovea/x"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
