//! Where the object store is, as configured: `s3://bucket/prefix`, and how it is reached.

use std::fmt;

/// What the configuration says of the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    bucket: String,
    /// Without slashes at its ends; empty: the whole bucket.
    prefix: String,
    /// Empty: that of AWS.
    endpoint: String,
    /// Empty: `AWS_REGION`, or `us-east-1`.
    region: String,
    allow_http: bool,
}

impl Location {
    /// Reads the keys `store`, `store_endpoint`, `store_region` and `store_allow_http`. None: `store` is empty, there is no
    /// object store.
    ///
    /// # Errors
    /// Names the key and says what would be right. No value that may hold a secret is in the text.
    pub(crate) fn from_keys(
        store: &str,
        endpoint: &str,
        region: &str,
        allow_http: bool,
    ) -> Result<Option<Self>, String> {
        for (key, value) in [("store", store), ("store_endpoint", endpoint)] {
            if redact(value) != value {
                return Err(format!(
                    "{key} holds credentials ({}); leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the \
                     environment, or use the machine's or the pod's role",
                    redact(value)
                ));
            }
        }
        if store.is_empty() {
            let others = [
                ("store_endpoint", !endpoint.is_empty()),
                ("store_region", !region.is_empty()),
                ("store_allow_http", allow_http),
            ];
            return match others.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(format!(
                    "{key} is set, but store is empty; set store = \"s3://BUCKET/PREFIX\", or leave {key} out"
                )),
                None => Ok(None),
            };
        }
        let Some(rest) = store.strip_prefix("s3://") else {
            return Err(format!(
                "store is {store:?}; use s3://BUCKET/PREFIX, or nothing for folders in data_dir alone"
            ));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let of_name =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(of_name) {
            return Err(format!(
                "store is {store:?}, whose bucket {bucket:?} is not a name that S3 allows: 3 to 63 small letters, digits, \
                 hyphens and dots"
            ));
        }
        let prefix = prefix.trim_matches('/');
        let of_prefix = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let good = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(of_prefix);
        if !prefix.is_empty() && !prefix.split('/').all(good) {
            return Err(format!(
                "store is {store:?}, whose prefix {prefix:?} is not made of names of letters, digits, hyphens, dots and \
                 underscores with single slashes between them"
            ));
        }
        let endpoint = endpoint.trim_end_matches('/');
        if !endpoint.is_empty() {
            let (scheme, host) = endpoint.split_once("://").unwrap_or(("", ""));
            let plain = host.is_empty()
                || host.contains(['/', '?', '#'])
                || host.contains(char::is_whitespace);
            if !matches!(scheme, "http" | "https") || plain {
                return Err(format!(
                    "store_endpoint is {endpoint:?}; use https://HOST or https://HOST:PORT"
                ));
            }
            if scheme == "http" && !allow_http {
                return Err(format!(
                    "store_endpoint is {endpoint:?}, where everything goes over the network in plain text. Use https, or set \
                     store_allow_http = true if the network is closed"
                ));
            }
        }
        if !region
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(format!(
                "store_region is {region:?}; use a region's name, such as eu-central-1"
            ));
        }
        Ok(Some(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: endpoint.to_owned(),
            region: region.to_owned(),
            allow_http,
        }))
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn endpoint(&self) -> Option<&str> {
        Some(&*self.endpoint).filter(|endpoint| !endpoint.is_empty())
    }

    pub(super) fn region(&self) -> Option<&str> {
        Some(&*self.region).filter(|region| !region.is_empty())
    }

    pub(super) fn allow_http(&self) -> bool {
        self.allow_http
    }

    /// The host that is asked, for people.
    pub(super) fn host(&self) -> &str {
        match self.endpoint() {
            Some(endpoint) => endpoint,
            None => "AWS",
        }
    }

    /// What tells this store from others: uploads that are under way belong to it.
    pub(super) fn key(&self) -> String {
        format!("{self} at {}", self.host())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.prefix {
            "" => write!(f, "s3://{}", self.bucket),
            prefix => write!(f, "s3://{}/{prefix}", self.bucket),
        }
    }
}

/// A URL without what may be a secret in it: a user's name with a password, and a query.
pub(crate) fn redact(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => rest.to_owned(),
    };
    match rest.split_once('?') {
        Some((path, _)) => format!("{scheme}{path}?***"),
        None => format!("{scheme}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_values_are_read() {
        let read = |store| Location::from_keys(store, "", "", false).unwrap();
        assert_eq!(read(""), None);
        for (store, shown) in [
            ("s3://fovea", "s3://fovea"),
            ("s3://fovea/", "s3://fovea"),
            ("s3://my.bucket-1/a/b_c/", "s3://my.bucket-1/a/b_c"),
        ] {
            assert_eq!(read(store).unwrap().to_string(), shown);
        }
        let location = Location::from_keys("s3://fovea/x", "http://127.0.0.1:8333/", "eu-1", true);
        let location = location.unwrap().unwrap();
        assert_eq!(location.endpoint(), Some("http://127.0.0.1:8333"));
        assert_eq!(location.region(), Some("eu-1"));
    }

    #[test]
    fn wrong_values_are_refused_by_key_and_secrets_are_not_repeated() {
        for (store, endpoint, region, http, named) in [
            ("/srv/store", "", "", false, "store is"),
            ("gs://fovea", "", "", false, "store is"),
            ("s3://ab", "", "", false, "bucket \"ab\""),
            ("s3://Fovea/x", "", "", false, "bucket \"Fovea\""),
            ("s3://fovea/a//b", "", "", false, "prefix \"a//b\""),
            ("s3://fovea/../x", "", "", false, "prefix \"../x\""),
            ("s3://fovea", "minio:9000", "", false, "store_endpoint"),
            ("s3://fovea", "https://h/path", "", false, "store_endpoint"),
            ("s3://fovea", "http://h", "", false, "store_allow_http"),
            ("s3://fovea", "", "eu west", false, "store_region"),
            ("", "https://h", "", false, "store_endpoint is set"),
            ("", "", "eu", false, "store_region is set"),
            ("", "", "", true, "store_allow_http is set"),
            (
                "s3://AKIA:hunter2@fovea",
                "",
                "",
                false,
                "store holds credentials",
            ),
            (
                "s3://fovea",
                "https://u:hunter2@h",
                "",
                false,
                "store_endpoint holds credentials",
            ),
            (
                "s3://fovea?secret=hunter2",
                "",
                "",
                false,
                "store holds credentials",
            ),
        ] {
            let error = Location::from_keys(store, endpoint, region, http).unwrap_err();
            assert!(error.contains(named), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
