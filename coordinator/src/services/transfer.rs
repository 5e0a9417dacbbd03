//! Moving bytes: reading files out in pieces, and taking streams in with a deadline on silence.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fovea_proto::CHUNK_BYTES;
use prost::bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Context;
use crate::error::ApiError;

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

/// Streams `first`, then the file in pieces of at most [`CHUNK_BYTES`]. It must have exactly `bytes`
/// bytes. The receiver's pace is the reader's.
pub(super) async fn send_file<T: Send + 'static>(
    context: &Context,
    path: PathBuf,
    bytes: u64,
    first: Option<T>,
    piece: impl Fn(Bytes) -> T + Send + 'static,
) -> Result<Answers<T>, ApiError> {
    let mut file = File::open(&path).await.map_err(|e| damaged(&path, &e))?;
    let size = file.metadata().await.map_err(|e| damaged(&path, &e))?.len();
    if size != bytes {
        return Err(ApiError::Damaged(format!(
            "the coordinator's file {} has {size} bytes instead of {bytes}",
            name(&path)
        )));
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
    let closing = context.closing.clone();
    context.tasks.spawn(async move {
        let mut left = bytes;
        let mut next = first.map(Ok);
        loop {
            let message = match next.take() {
                Some(message) => message,
                None if left == 0 => return,
                None => match read(&mut file, left).await {
                    Ok(data) => {
                        left -= data.len() as u64;
                        Ok(piece(data))
                    }
                    Err(error) => Err(damaged(&path, &error).into()),
                },
            };
            let last = message.is_err();
            tokio::select! {
                () = closing.cancelled() => return,
                // An error says that the receiver is gone.
                sent = sender.send(message) => if last || sent.is_err() { return },
            }
        }
    });
    Ok(Answers::new(receiver))
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

fn damaged(path: &std::path::Path, error: &io::Error) -> ApiError {
    ApiError::Damaged(format!(
        "the coordinator's file {} cannot be read: {error}",
        name(path)
    ))
}

/// A file's name without the coordinator's folders, which are not the client's business.
fn name(path: &std::path::Path) -> String {
    path.file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}
