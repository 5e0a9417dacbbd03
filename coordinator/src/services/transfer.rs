//! Moving bytes: reading files out in pieces, and taking streams in with a deadline on silence.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use fovea_proto::{CHUNK_BYTES, cause};
use prost::bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Context;
use crate::error::ApiError;
use crate::net::{Pace, Permit};
use crate::store::StoreError;

/// Pieces read ahead of the receiver: enough to keep it busy, and the bound on memory.
const AHEAD: usize = 4;

/// What a stream of answers gives the server.
pub(super) type Answers<T> = tokio_stream::wrappers::ReceiverStream<Result<T, Status>>;

/// An upload under way. It is given up when the client is silent or too slow.
pub(super) struct Receiving<T> {
    stream: Streaming<T>,
    pace: Pace,
    /// Bytes that a message brings.
    size: fn(&T) -> usize,
}

impl<T> Receiving<T> {
    pub(super) fn new(stream: Streaming<T>, size: fn(&T) -> usize) -> Self {
        Self {
            stream,
            pace: Pace::new(Instant::now()),
            size,
        }
    }

    /// The next message; None at the end.
    pub(super) async fn next(&mut self, context: &Context) -> Result<Option<T>, ApiError> {
        self.pace.waiting(Instant::now());
        let deadline = self.pace.deadline().into();
        tokio::select! {
            () = context.closing.cancelled() => Err(ApiError::ShuttingDown),
            message = tokio::time::timeout_at(deadline, self.stream.message()) => match message {
                Err(_) => Err(ApiError::Silent(
                    "nothing came for 30 s, or less than 16 KiB/s for a minute; the upload is given up".into(),
                )),
                Ok(Ok(message)) => {
                    let bytes = message.as_ref().map_or(0, self.size);
                    self.pace.on_bytes(Instant::now(), bytes as u64);
                    Ok(message)
                }
                Ok(Err(status)) => Err(broken(&status)),
            },
        }
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
        // A status that this end made of an error of the connection has a source.
        _ => ApiError::BrokenOff(match std::error::Error::source(status) {
            None => format!("the stream was ended: {}", status.message()),
            Some(source) => format!("the connection broke: {}", cause(source)),
        }),
    }
}

/// A stored file that is to be sent.
pub(super) struct Stored {
    pub file: std::fs::File,
    /// What it is, for people.
    pub what: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub sha256: String,
}

/// Streams `first`, then the file in pieces of at most [`CHUNK_BYTES`], at the receiver's pace. It must have the size
/// and the digest that were stored; otherwise the stream ends with an error. `read` hears what the reading showed,
/// before the receiver does, and may replace the error's text; it is not called when the receiver breaks off.
pub(super) fn send_file<T, F>(
    context: &Context,
    stored: Stored,
    first: Option<T>,
    piece: impl Fn(Bytes) -> T + Send + 'static,
    permit: Permit,
    read: impl FnOnce(Result<(), StoreError>) -> F + Send + 'static,
) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = Option<String>> + Send,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    let closing = context.closing.clone();
    context.tasks.spawn(async move {
        let _permit = permit;
        let sent = tokio::select! {
            () = closing.cancelled() => return,
            // None says that the receiver is gone.
            sent = send_pieces(&sender, stored, first, piece) => sent,
        };
        let Some(result) = sent else { return };
        let error = result.as_ref().err().map(ApiError::from);
        let text = read(result).await;
        if let Some(error) = error {
            let error = match (error, text) {
                (ApiError::Damaged(_), Some(text)) => ApiError::Damaged(text),
                (ApiError::Unavailable(_), Some(text)) => ApiError::Unavailable(text),
                (error, _) => error,
            };
            let _ = sender.send(Err(error.into())).await;
        }
    });
    Answers::new(receiver)
}

async fn send_pieces<T>(
    sender: &mpsc::Sender<Result<T, Status>>,
    stored: Stored,
    first: Option<T>,
    piece: impl Fn(Bytes) -> T,
) -> Option<Result<(), StoreError>> {
    let Stored {
        file,
        what,
        bytes,
        sha256,
    } = stored;
    let path = PathBuf::from(&what);
    let mut file = File::from_std(file);
    let mut hash = Sha256::new();
    if let Some(first) = first {
        sender.send(Ok(first)).await.ok()?;
    }
    let mut sent = 0;
    loop {
        let data = match read(&mut file).await {
            Ok(data) => data,
            Err(source) => return Some(Err(StoreError::Unreadable { path, source })),
        };
        if data.is_empty() {
            break;
        }
        sent += data.len() as u64;
        if sent > bytes {
            let problem = format!("it is longer than the {bytes} bytes that were stored");
            return Some(Err(StoreError::Corrupt { path, problem }));
        }
        hash.update(&data);
        sender.send(Ok(piece(data))).await.ok()?;
    }
    if sent != bytes {
        let problem = format!("it has {sent} bytes, {bytes} were stored");
        return Some(Err(StoreError::Corrupt { path, problem }));
    }
    let found = hex::encode(hash.finalize());
    if found != sha256 {
        let problem = format!("its SHA-256 is {found}, {sha256} was stored");
        return Some(Err(StoreError::Corrupt { path, problem }));
    }
    Some(Ok(()))
}

/// The next piece of a file; empty at its end.
async fn read(file: &mut File) -> io::Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    while buffer.len() < CHUNK_BYTES {
        let mut rest = (&mut *file).take((CHUNK_BYTES - buffer.len()) as u64);
        if rest.read_buf(&mut buffer).await? == 0 {
            break;
        }
    }
    Ok(buffer.freeze())
}
