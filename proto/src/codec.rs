//! The codec of the servers: a message that cannot be decoded is the caller's mistake.
//!
//! tonic's own codec answers INTERNAL, which says that the server failed. Clients keep tonic's: to
//! them, an answer that cannot be decoded is not an argument of theirs.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Encodes `T` and decodes `U` as `tonic_prost::ProstCodec` does, but reports a message that cannot
/// be decoded as INVALID_ARGUMENT.
#[derive(Debug)]
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ServerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ServerCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ServerDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ServerDecoder(PhantomData)
    }
}

/// Decodes messages that clients send.
#[derive(Debug)]
pub struct ServerDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for ServerDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        match U::decode(buffer) {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(Status::invalid_argument(format!(
                "the message is not valid protobuf of the type that this method takes ({error}); \
                 is the client of this version?"
            ))),
        }
    }
}
