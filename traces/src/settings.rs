//! Where the collector is: the keys `otlp_...` of a configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fovea_security::{FileError, read_certificates, read_secret};
use rustls::pki_types::CertificateDer;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Uri;

/// Where spans are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub(crate) endpoint: Uri,
    pub(crate) ca: PathBuf,
    pub(crate) headers: PathBuf,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CAs cannot be used.
    #[error("otlp_ca {}: {source}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// A line of the headers' file.
    #[error(
        "otlp_headers_file {}, line {line}: it is not NAME: VALUE in printable ASCII letters; write authorization: Bearer ...",
        path.display()
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl Settings {
    /// From the keys `otlp_endpoint`, `otlp_ca` and `otlp_headers_file`. None: spans go nowhere.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn from_keys(endpoint: &str, ca: &Path, headers: &Path) -> Result<Option<Self>, String> {
        let given = |path: &Path| !path.as_os_str().is_empty();
        if endpoint.is_empty() {
            for (key, path) in [("otlp_ca", ca), ("otlp_headers_file", headers)] {
                if given(path) {
                    return Err(format!(
                        "{key} is set, and otlp_endpoint is not: set it, or remove {key}"
                    ));
                }
            }
            return Ok(None);
        }
        let uri: Option<Uri> = endpoint.parse().ok();
        let whole = |uri: &Uri| {
            uri.host().is_some() && uri.port().is_some() && matches!(uri.path(), "" | "/")
        };
        let Some((uri, scheme)) = uri
            .filter(whole)
            .and_then(|uri| Some((uri.clone(), uri.scheme_str()?.to_owned())))
        else {
            return Err(no_address(endpoint));
        };
        match scheme.as_str() {
            "https" if !given(ca) => {
                return Err(format!(
                    "otlp_endpoint is {endpoint:?}, with TLS: set otlp_ca to the CAs that sign the collector's certificate (PEM; \
                     the system's are often /etc/ssl/certs/ca-certificates.crt)"
                ));
            }
            "http" if given(ca) => {
                return Err(format!(
                    "otlp_endpoint is {endpoint:?}, without TLS, and otlp_ca is set: write https://, or remove otlp_ca"
                ));
            }
            "http" if given(headers) && !is_loopback(&uri) => {
                return Err(format!(
                    "otlp_endpoint is {endpoint:?}, without TLS, and otlp_headers_file is set: a secret must not be sent in plain \
                     text; write https://"
                ));
            }
            "https" | "http" => {}
            _ => return Err(no_address(endpoint)),
        }
        Ok(Some(Self {
            endpoint: uri,
            ca: ca.to_owned(),
            headers: headers.to_owned(),
        }))
    }

    pub(crate) fn has_headers(&self) -> bool {
        !self.headers.as_os_str().is_empty()
    }

    /// The CAs; none without TLS.
    pub(crate) fn cas(&self) -> Result<Vec<CertificateDer<'static>>, TracesError> {
        match self.ca.as_os_str().is_empty() {
            true => Ok(Vec::new()),
            false => Ok(read_certificates("otlp_ca", &self.ca)?),
        }
    }

    /// What each request carries, read from the file.
    pub(crate) fn metadata(&self) -> Result<MetadataMap, TracesError> {
        let mut metadata = MetadataMap::new();
        if !self.has_headers() {
            return Ok(metadata);
        }
        let text = read_secret("otlp_headers_file", &self.headers)?;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let read = line.split_once(':').and_then(|(name, value)| {
                let name = name.trim().to_ascii_lowercase();
                let mut value = AsciiMetadataValue::try_from(value.trim()).ok()?;
                value.set_sensitive(true);
                Some((name.parse::<AsciiMetadataKey>().ok()?, value))
            });
            let (name, value) = read.ok_or_else(|| TracesError::Header {
                path: self.headers.clone(),
                line: at + 1,
            })?;
            metadata.append(name, value);
        }
        Ok(metadata)
    }
}

fn no_address(endpoint: &str) -> String {
    format!(
        "otlp_endpoint is {endpoint:?}, which is not http://HOST:PORT or https://HOST:PORT of a collector that takes OTLP over \
         gRPC (its port is most often 4317)"
    )
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
