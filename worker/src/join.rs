//! Joining a cluster with a token: the worker's certificate comes from the coordinator, and is renewed in time.
//!
//! ```text
//! data_dir/identity: key.pem ──signing request──> Identity/Join (token) ──> certificate.pem, ca.pem ──> Tls
//!                       └────────────────────────> Identity/Renew, at two thirds of its life ──> certificate.pem ─┘
//! ```
//!
//! The token names the CA, so that nobody else can be the coordinator. The private key never leaves the folder. Workers
//! that share a data folder share the identity: a lock in the folder lets one of them ask at a time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use fovea_proto::pb::identity_client::IdentityClient;
use fovea_proto::{ChannelError, connect_pinned, connect_with, describe, is_file, pb};
use fovea_security::authority::{self, AuthorityError};
use fovea_security::{
    FileError, Pin, Role, Tls, TlsError, TlsFiles, Token, TokenKind, read_certificates,
    read_secret, write_private, write_public,
};
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tracing::{error, info, warn};

/// How long a connection or an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The pauses between attempts to join.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause after a renewal that failed. There is a third of the certificate's life for it.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// The longest sleep at once: the system's clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Why a worker cannot join, whatever it tries.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The token's file holds none for joining.
    #[error("join_token_file {}: {problem}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The folder of the identity.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key.
    #[error(transparent)]
    Key(#[from] AuthorityError),
    /// The certificate that came cannot be used.
    #[error("the certificate that the coordinator has signed cannot be used: {0}")]
    Certificate(#[from] TlsError),
    /// The coordinator's answer names another CA than the token.
    #[error(
        "the coordinator's CAs are others than the one that the token names; take a new token (`fovea token create \
         --role worker`)"
    )]
    OtherCa,
    /// The address, or who answers there.
    #[error("cannot join: {0}")]
    Channel(ChannelError),
    /// The coordinator refuses.
    #[error("the coordinator refuses to let this worker join: {0}")]
    Refused(String),
    /// A task of this program.
    #[error("cannot join: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// What a worker joins with.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The coordinator's address.
    pub coordinator: String,
    /// The file with the token.
    pub token_file: PathBuf,
    /// The worker's data folder.
    pub data_dir: PathBuf,
    /// The machine's name, or the name that the worker would like.
    pub host: String,
}

impl Joining {
    /// This worker's certificate: the one of an earlier join if it is valid yet, or a new one. Waits for as long as no
    /// coordinator answers.
    ///
    /// # Errors
    /// Another attempt would meet the same.
    pub async fn certificate(&self) -> Result<Tls, JoinError> {
        let begun = Instant::now();
        let mut pauses = pauses();
        loop {
            let problem = match self.attempt().await {
                Ok(tls) => return Ok(tls),
                Err(Problem::Final(error)) => return Err(error),
                Err(Problem::Passing(problem)) => problem,
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            warn!(
                "identity.waiting: cannot join yet, after {} s: {problem}; trying again in {pause:.1?}",
                begun.elapsed().as_secs()
            );
            sleep(pause).await;
        }
    }

    async fn attempt(&self) -> Result<Tls, Problem> {
        let files = files(&self.data_dir);
        // Held until the certificate is there, so that others find it.
        let _lock = lock(&self.data_dir).await?;
        let token = self.token().await;
        if let Some(tls) = kept(&files, token.as_ref().ok()).await? {
            return Ok(tls);
        }
        let token = token?;
        let request = signing_request(&files, true).await?;
        let pin = Pin::new(token.ca_sha256());
        let channel = connect_pinned(&self.coordinator, &pin, ANSWER)
            .await
            .map_err(|error| Problem::of_channel(error, &self.coordinator))?;
        let request = pb::JoinRequest {
            token: token.reveal(),
            signing_request: request.into(),
            host: self.host.clone(),
        };
        let mut client = IdentityClient::new(channel);
        let reply = timeout(ANSWER, client.join(request))
            .await
            .map_err(|_| Problem::Passing(format!("no answer within {ANSWER:?}")))?
            .map_err(|status| Problem::of_status(&status))?
            .into_inner();
        let tls = spawn_blocking(move || store(&files, &pin, &reply))
            .await
            .map_err(JoinError::from)??;
        let (identity, until) = (tls.identity(), tls.certificate().until_text());
        info!(
            %identity,
            until,
            "identity.joined: this worker is {identity} from now on; its certificate is valid until {until}, and \
             renewed before"
        );
        Ok(tls)
    }

    async fn token(&self) -> Result<Token, JoinError> {
        let path = self.token_file.clone();
        spawn_blocking(move || {
            let text = read_secret("join_token_file", &path)?;
            let wrong = |problem: String| JoinError::Token {
                path: path.clone(),
                problem,
            };
            let token: Token = text.parse().map_err(|error| wrong(format!("{error}")))?;
            match token.kind() {
                TokenKind::Join => Ok(token),
                TokenKind::Person => Err(wrong(
                    "this token stands for a person; take one for workers (`fovea token create --role worker`)".into(),
                )),
            }
        })
        .await?
    }

    /// Renews the certificate in time, until it is dropped. [`Tls::reload`] uses the new one. Ends when the certificate has
    /// expired, because nobody was there to renew it: this process cannot talk to the coordinator any more, and the next
    /// one joins anew.
    pub async fn renew(self, tls: Tls) {
        loop {
            let certificate = tls.certificate();
            if certificate.until <= OffsetDateTime::now_utc() {
                let until = certificate.until_text();
                error!(
                    until,
                    "identity.expired: the certificate of {} has expired on {until} and could not be renewed; this worker \
                     stops, and joins anew when it is started again",
                    tls.identity()
                );
                return;
            }
            let life = certificate.until - certificate.from;
            let due = certificate.from + life * 2 / 3;
            let left: time::Duration = due - OffsetDateTime::now_utc();
            if left.is_positive() {
                sleep(left.unsigned_abs().min(LONGEST_SLEEP)).await;
                continue;
            }
            match self.renew_once(&tls).await {
                // Used within seconds.
                Ok(()) => sleep(fovea_security::RELOAD_EVERY * 2).await,
                Err(problem) => {
                    let until = certificate.until_text();
                    warn!(
                        until,
                        "identity.renew_failed: the certificate cannot be renewed, which is valid until {until}: \
                         {problem}; trying again in {} s",
                        RENEW_AGAIN.as_secs()
                    );
                    sleep(RENEW_AGAIN).await;
                }
            }
        }
    }

    async fn renew_once(&self, tls: &Tls) -> Result<(), Problem> {
        let files = files(&self.data_dir);
        let _lock = lock(&self.data_dir).await?;
        // Another process may have done it, and this one not have seen it yet.
        if let Some(now) = kept(&files, None).await?
            && now.certificate().until > tls.certificate().until
        {
            return Ok(());
        }
        let request = signing_request(&files, false).await?;
        let channel = connect_with(&self.coordinator, Some(tls), ANSWER)
            .await
            .map_err(|error| Problem::of_channel(error, &self.coordinator))?;
        let request = pb::RenewRequest {
            signing_request: request.into(),
        };
        let mut client = IdentityClient::new(channel);
        let reply = timeout(ANSWER, client.renew(request))
            .await
            .map_err(|_| Problem::Passing(format!("no answer within {ANSWER:?}")))?
            .map_err(|status| Problem::of_status(&status))?
            .into_inner();
        let written = spawn_blocking(move || {
            write_public(&files.ca, &reply.ca)?;
            write_public(&files.certificate, &reply.certificate)
        });
        written
            .await
            .map_err(JoinError::from)?
            .map_err(JoinError::from)?;
        info!(
            "identity.renewed: the coordinator has renewed the certificate of {}",
            tls.identity()
        );
        Ok(())
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Final(#[from] JoinError),
    /// It may go away.
    #[error("{0}")]
    Passing(String),
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Final(error.into())
    }
}

impl Problem {
    fn of_channel(error: ChannelError, address: &str) -> Self {
        // An address in a file may be another one next time.
        match error.is_final() && !is_file(address) {
            true => Self::Final(JoinError::Channel(error)),
            false => Self::Passing(error.to_string()),
        }
    }

    fn of_status(status: &Status) -> Self {
        match status.code() {
            Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Final(JoinError::Refused(describe(status))),
            _ => Self::Passing(describe(status)),
        }
    }
}

/// Where a worker with this data folder keeps its identity.
fn files(data_dir: &Path) -> TlsFiles {
    let folder = folder(data_dir);
    TlsFiles {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        ca: folder.join("ca.pem"),
    }
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("identity")
}

/// The certificate that is there already, if it is of the token's cluster and can be used.
async fn kept(files: &TlsFiles, token: Option<&Token>) -> Result<Option<Tls>, JoinError> {
    let (files, wanted) = (
        files.clone(),
        token.map(|token| token.ca_sha256().to_owned()),
    );
    let kept = spawn_blocking(move || {
        if !files.certificate.exists() {
            return None;
        }
        let path = files.certificate.display().to_string();
        match Tls::load(files, "a worker", |role| role == Role::Worker) {
            Ok(tls) if wanted.is_none() || tls.ca_sha256() == wanted => Some(tls),
            Ok(tls) => {
                let identity = tls.identity();
                info!(%identity, "identity.replaced: {path} is {identity}, of another CA than the token's; joining anew");
                None
            }
            Err(error) => {
                info!("identity.replaced: {path} cannot be used any more ({error}); joining anew");
                None
            }
        }
    });
    Ok(kept.await?)
}

/// A request for this worker's key, which is made if there is none and `may_create`.
async fn signing_request(files: &TlsFiles, may_create: bool) -> Result<Vec<u8>, JoinError> {
    let key = files.key.clone();
    spawn_blocking(move || {
        if may_create && !key.exists() {
            write_private(&key, &authority::key()?)?;
        }
        Ok(authority::request_for(&key)?)
    })
    .await?
}

/// Writes what came, the certificate last, and reads it.
fn store(files: &TlsFiles, pin: &Pin, reply: &pb::JoinResponse) -> Result<Tls, JoinError> {
    write_public(&files.ca, &reply.ca)?;
    let cas = read_certificates("the coordinator's CAs", &files.ca)?;
    if !cas.iter().any(|ca| pin.is_of(ca)) {
        return Err(JoinError::OtherCa);
    }
    write_public(&files.certificate, &reply.certificate)?;
    Ok(Tls::load(files.clone(), "a worker", |role| {
        role == Role::Worker
    })?)
}

/// Lets one process at a time see to the identity of this data folder. Freed when it is dropped.
async fn lock(data_dir: &Path) -> Result<File, JoinError> {
    let folder = folder(data_dir);
    spawn_blocking(move || {
        let open = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)?;
            let file = File::create(folder.join("lock"))?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(|source| JoinError::Folder {
            path: folder.clone(),
            source,
        })
    })
    .await?
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
