//! S3 and what speaks its protocol.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{BackoffConfig, ClientOptions, Error as Cause, RetryConfig};
use serde::Deserialize;

use super::error::RemoteError;
use super::location::Location;
use super::objects::{Bucket, OpenUpload, OpenUploads};

/// How long a connection may take to be made, and an answer to come: a part of 8 MiB needs 0.8 Mbit/s.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(80);
/// The library repeats a request that failed at the network or in the server. The mirror does, too, with longer pauses.
const REPEATS: usize = 2;
const REPEAT_FOR: Duration = Duration::from_secs(10);
/// How long the URL of a request is valid.
const VALID: Duration = Duration::from_secs(60);

/// The bucket at `location`. Credentials come from the environment (`AWS_*`), a web identity, the container or the instance;
/// nothing is asked yet.
///
/// # Errors
/// `Config` when the environment holds impossible values.
pub(super) fn bucket(location: &Location) -> Result<Bucket, RemoteError> {
    let config = |error: Cause| {
        let (text, mut cause) = (error.to_string(), String::new());
        let mut next = std::error::Error::source(&error);
        while let Some(error) = next {
            cause = error.to_string();
            next = error.source();
        }
        match cause.contains("certificate") {
            // Such as on an image without any CA.
            true => RemoteError::Tls {
                store: location.key(),
                problem: cause,
            },
            false => RemoteError::Config(text),
        }
    };
    let options = ClientOptions::new()
        .with_allow_http(location.allow_http())
        .with_connect_timeout(CONNECT)
        .with_timeout(ANSWER);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(location.bucket())
        .with_client_options(options.clone())
        .with_allow_http(location.allow_http())
        // One request for each object is what every such service knows.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: REPEATS,
            retry_timeout: REPEAT_FOR,
        });
    if let Some(endpoint) = location.endpoint() {
        builder = builder
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(false);
    }
    if let Some(region) = location.region() {
        builder = builder.with_region(region);
    }
    let store = Arc::new(builder.build().map_err(config)?);
    let client = ReqwestConnector::default()
        .connect(&options)
        .map_err(config)?;
    let uploads = Unfinished {
        store: Arc::clone(&store),
        client,
    };
    Ok(Bucket::new(store, Box::new(uploads), location.clone()))
}

/// Lists uploads: the one request that the library does not make. It signs the URL.
#[derive(Debug)]
struct Unfinished {
    store: Arc<AmazonS3>,
    client: HttpClient,
}

/// The answer, as far as it is needed.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: Option<String>,
    #[serde(default)]
    next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

#[tonic::async_trait]
impl OpenUploads for Unfinished {
    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, Cause> {
        let mut open = Vec::new();
        let mut query = vec![("uploads", String::new()), ("prefix", prefix.to_owned())];
        loop {
            let answer = parse(&self.page(query.clone()).await?)?;
            open.extend(answer.uploads.into_iter().map(|upload| OpenUpload {
                key: upload.key,
                id: upload.upload_id,
            }));
            let (Some(key), true) = (answer.next_key_marker, answer.is_truncated) else {
                return Ok(open);
            };
            query.truncate(2);
            query.push(("key-marker", key));
            query.extend(
                answer
                    .next_upload_id_marker
                    .map(|id| ("upload-id-marker", id)),
            );
        }
    }
}

impl Unfinished {
    async fn page(&self, query: Vec<(&str, String)>) -> Result<String, Cause> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Cause::Generic {
            store: "S3",
            source,
        };
        let options = SignedUrlOptions::default().with_query(query);
        let url = self
            .store
            .signed_url_opts(Method::GET, &Path::default(), VALID, &options)
            .await?;
        let request = Request::get(url.as_str())
            .body(HttpRequestBody::empty())
            .map_err(|error| failed(error.into()))?;
        let response = self.client.execute(request).await;
        // Its error does not name the URL, which holds a signature.
        let (head, body) = response.map_err(|error| failed(error.into()))?.into_parts();
        let mut text = Vec::new();
        let mut pieces = body.bytes_stream();
        while let Some(piece) = tokio_stream::StreamExt::next(&mut pieces).await {
            text.extend_from_slice(&piece.map_err(|error| failed(error.into()))?);
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        if head.status.is_success() {
            return Ok(text);
        }
        let source = format!("status code: {} : {text}", head.status.as_u16()).into();
        let path = "uploads".to_owned();
        Err(match head.status.as_u16() {
            403 => Cause::PermissionDenied { path, source },
            404 => Cause::NotFound { path, source },
            _ => failed(source),
        })
    }
}

fn parse(xml: &str) -> Result<Answer, Cause> {
    quick_xml::de::from_str(xml).map_err(|error| Cause::Generic {
        store: "S3",
        source: format!("invalid list response: {error}").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_uploads_are_read() {
        let none = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>";
        assert_eq!(parse(none).unwrap().uploads, []);
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket><KeyMarker></KeyMarker>
<NextKeyMarker>p/b</NextKeyMarker><NextUploadIdMarker>2</NextUploadIdMarker><MaxUploads>2</MaxUploads>
<IsTruncated>true</IsTruncated><Upload><Key>p/a</Key><UploadId>1</UploadId><Initiator><ID>x</ID></Initiator></Upload>
<Upload><Key>p/b</Key><UploadId>2</UploadId></Upload></ListMultipartUploadsResult>"#;
        let answer = parse(xml).unwrap();
        assert!(answer.is_truncated);
        assert_eq!(answer.next_key_marker.as_deref(), Some("p/b"));
        let of = |key: &str, id: &str| Upload {
            key: key.into(),
            upload_id: id.into(),
        };
        assert_eq!(answer.uploads, [of("p/a", "1"), of("p/b", "2")]);
        assert!(parse("<html>hello").is_err());
    }
}
