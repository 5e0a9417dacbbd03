//! The gRPC framing of what a client sends, and how long it may be silent within a request.
//!
//! tonic reports bytes that are no gRPC message as INTERNAL, as if the server had failed. This
//! looks at the frames before tonic does, and reports them as INVALID_ARGUMENT.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

/// A frame begins with a flag (1: compressed) and the message's length, 4 bytes, big endian.
const HEADER: usize = 5;

/// Follows the frames of a request's body.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes seen of the present frame's header; [`HEADER`] once it is complete.
    header: usize,
    /// Bytes that the present message still lacks, as far as the header is known.
    left: u64,
}

impl Frames {
    fn on_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.header < HEADER {
                match (self.header, *byte) {
                    (0, 0) => self.left = 0,
                    (0, 1) => {
                        return Err(Status::invalid_argument(
                            "the message is compressed; this coordinator takes only plain messages",
                        ));
                    }
                    (0, flag) => {
                        return Err(Status::invalid_argument(format!(
                            "the body is not a gRPC message: it begins with byte {flag}, and only \
                             0 is possible"
                        )));
                    }
                    (_, byte) => self.left = self.left << 8 | u64::from(byte),
                }
                self.header += 1;
                bytes = rest;
            } else {
                let taken = self.left.min(bytes.len() as u64);
                self.left -= taken;
                bytes = &bytes[taken as usize..];
            }
            if self.header == HEADER && self.left == 0 {
                self.header = 0;
            }
        }
        Ok(())
    }

    fn at_end(&self) -> Result<(), Status> {
        match (self.header, self.left) {
            (0, _) => Ok(()),
            (HEADER, left) => Err(Status::invalid_argument(format!(
                "the body ended within a message: {left} bytes of it are missing"
            ))),
            _ => Err(Status::invalid_argument(
                "the body ended within the 5 bytes that begin a message",
            )),
        }
    }
}

/// A request's body: an error instead of bytes that are no gRPC messages, or of long silence.
pub(super) struct CheckedBody {
    body: Body,
    frames: Frames,
    /// The longest that is waited for the next bytes; None if the client may be silent.
    silence: Option<Duration>,
    /// Runs while the next bytes are waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl CheckedBody {
    pub(super) fn new(body: Body, silence: Option<Duration>) -> Self {
        Self {
            body,
            frames: Frames::default(),
            silence,
            timer: None,
        }
    }
}

impl HttpBody for CheckedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            let Some(silence) = this.silence else {
                return Poll::Pending;
            };
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(silence)));
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Some(Err(Status::deadline_exceeded(format!(
                "nothing came for {} s in the midst of a request; it is given up",
                silence.as_secs()
            )))));
        };
        this.timer = None;
        let checked = match &frame {
            None => this.frames.at_end(),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => this.frames.on_bytes(data),
                None => Ok(()),
            },
            Some(Err(_)) => Ok(()),
        };
        Poll::Ready(match checked {
            Ok(()) => frame,
            Err(status) => Some(Err(status)),
        })
    }

    /// The body's end is part of the check, so tonic must ask for it.
    fn is_end_stream(&self) -> bool {
        self.frames.header == 0 && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend((bytes as u32).to_be_bytes());
        framed.resize(HEADER + bytes, 9);
        framed
    }

    #[test]
    fn messages_pass_however_they_are_cut() {
        let stream = [message(3), message(0), message(300), message(0)].concat();
        for piece in 1..stream.len() {
            let mut frames = Frames::default();
            for part in stream.chunks(piece) {
                frames.on_bytes(part).unwrap();
            }
            frames.at_end().unwrap();
        }
    }

    #[test]
    fn garbage_and_halves_are_the_clients_mistake() {
        let good = message(10);
        let cases: [(Vec<u8>, &str); 5] = [
            (b"GET / HTTP/1.1".to_vec(), "begins with byte 71"),
            ([&good[..], b"\xff"].concat(), "begins with byte 255"),
            (vec![1, 0, 0, 0, 0], "compressed"),
            (good[..9].to_vec(), "6 bytes of it are missing"),
            ([&good[..], &[0, 0]].concat(), "5 bytes that begin"),
        ];
        for (bytes, named) in cases {
            let mut frames = Frames::default();
            let result = frames.on_bytes(&bytes).and_then(|()| frames.at_end());
            let status = result.unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(named), "{status}");
        }
    }
}
