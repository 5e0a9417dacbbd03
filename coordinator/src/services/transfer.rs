//! Moving bytes: reading files out in pieces, and taking streams in with a deadline on silence.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fovea_proto::CHUNK_BYTES;
use prost::bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Context;
use crate::error::ApiError;
use crate::owner::Message;

/// An upload that is silent for so long is given up, so that it does not hold its place for ever.
const SILENCE: Duration = Duration::from_secs(30);

/// Pieces read ahead of the receiver: enough to keep it busy, and the bound on memory.
const AHEAD: usize = 4;

/// What a stream of answers gives the server.
pub(super) type Answers<T> = tokio_stream::wrappers::ReceiverStream<Result<T, Status>>;

/// The next message of an upload; None at its end.
pub(super) async fn next<T>(
    stream: &mut Streaming<T>,
    context: &Context,
) -> Result<Option<T>, ApiError> {
    tokio::select! {
        () = context.closing.cancelled() => Err(ApiError::ShuttingDown),
        message = tokio::time::timeout(SILENCE, stream.message()) => match message {
            Err(_) => Err(ApiError::Silent(format!(
                "nothing came for {} s; the upload is given up",
                SILENCE.as_secs()
            ))),
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(broken(&status)),
        },
    }
}

/// What a stream's error means for its request.
pub(super) fn broken(status: &Status) -> ApiError {
    match status.code() {
        // Messages that are too large or cannot be decoded.
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            ApiError::invalid("message", status.message())
        }
        tonic::Code::Internal | tonic::Code::InvalidArgument => {
            ApiError::invalid("message", status.message())
        }
        _ => ApiError::BrokenOff(format!("the stream broke: {}", status.message())),
    }
}

/// The digest that a file must have, and what to tell the owner if it has another.
pub(super) struct Verify {
    pub sha256: String,
    pub damage: Box<dyn FnOnce(String) -> Message + Send>,
}

/// Streams `first`, then the file in pieces of at most [`CHUNK_BYTES`]. It must have exactly `bytes`
/// bytes and the digest in `verify`; otherwise the stream ends with an error. The receiver's pace is the
/// reader's.
pub(super) async fn send_file<T: Send + 'static>(
    context: &Context,
    path: PathBuf,
    bytes: u64,
    first: Option<T>,
    piece: impl Fn(Bytes) -> T + Send + 'static,
    verify: Option<Verify>,
) -> Result<Answers<T>, ApiError> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let closing = context.closing.clone();
    let owner = context.owner.clone();
    context.tasks.spawn(async move {
        let mut hash = verify.as_ref().map(|_| Sha256::new());
        let sent = tokio::select! {
            () = closing.cancelled() => return,
            // None says that the receiver is gone.
            sent = send_pieces(&sender, &path, bytes, first, piece, &mut hash) => sent,
        };
        let result = match sent {
            None => return,
            Some(Err(problem)) => Err(problem),
            Some(Ok(())) => {
                let found = hash.map(|hash| hex::encode(hash.finalize()));
                match (&verify, found) {
                    (Some(verify), Some(found)) if found != verify.sha256 => Err(format!(
                        "its SHA-256 is {found}, but {} was stored",
                        verify.sha256
                    )),
                    _ => Ok(()),
                }
            }
        };
        if let Err(problem) = result {
            let what = format!(
                "the coordinator's file {} is damaged: {problem}",
                name(&path)
            );
            if let Some(verify) = verify {
                owner.tell((verify.damage)(problem)).await;
            }
            let _ = sender.send(Err(ApiError::Damaged(what).into())).await;
        }
    });
    Ok(Answers::new(receiver))
}

async fn send_pieces<T>(
    sender: &mpsc::Sender<Result<T, Status>>,
    path: &Path,
    bytes: u64,
    first: Option<T>,
    piece: impl Fn(Bytes) -> T,
    hash: &mut Option<Sha256>,
) -> Option<Result<(), String>> {
    let opened = async {
        let file = File::open(path).await?;
        let size = file.metadata().await?.len();
        io::Result::Ok((file, size))
    };
    let (mut file, size) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return Some(Err(format!("it cannot be read: {error}"))),
    };
    if size != bytes {
        return Some(Err(format!("it has {size} bytes instead of {bytes}")));
    }
    if let Some(first) = first {
        sender.send(Ok(first)).await.ok()?;
    }
    let mut left = bytes;
    while left > 0 {
        let data = match read(&mut file, left).await {
            Ok(data) => data,
            Err(error) => return Some(Err(format!("it cannot be read: {error}"))),
        };
        left -= data.len() as u64;
        if let Some(hash) = hash {
            hash.update(&data);
        }
        sender.send(Ok(piece(data))).await.ok()?;
    }
    Some(Ok(()))
}

async fn read(file: &mut File, left: u64) -> io::Result<Bytes> {
    let want = left.min(CHUNK_BYTES as u64) as usize;
    let mut buffer = BytesMut::with_capacity(want);
    while buffer.len() < want {
        let mut rest = (&mut *file).take((want - buffer.len()) as u64);
        if rest.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.freeze())
}

/// A file's name without the coordinator's folders, which are not the client's business.
fn name(path: &std::path::Path) -> String {
    path.file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}
