//! What a person shows the coordinator: a certificate, a token, or nothing.

use std::path::Path;

use fovea_security::{NoToken, Tls, Token, TokenKind, read_secret};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::error::Error;

/// What a person shows the coordinator.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Nothing: a coordinator without TLS.
    Nothing,
    /// A certificate.
    Certificate(Tls),
    /// A token.
    Token(Token),
}

impl Credentials {
    /// The token in a file that only its owner can read.
    ///
    /// # Errors
    /// It cannot be read, others can read it, or it holds no person's token.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text =
            read_secret("token file", path).map_err(|error| Error::Tls(error.to_string()))?;
        let token = person(&text)
            .map_err(|problem| Error::Tls(format!("{}: {problem}", path.display())))?;
        Ok(Self::Token(token))
    }

    /// What puts them into each request.
    pub(crate) fn bearer(&self) -> Bearer {
        match self {
            Self::Nothing | Self::Certificate(_) => Bearer(None),
            Self::Token(token) => {
                let text = format!("Bearer {}", token.reveal());
                let value = MetadataValue::try_from(text).ok().map(|mut value| {
                    // Libraries do not print it, then.
                    value.set_sensitive(true);
                    value
                });
                Bearer(value)
            }
        }
    }
}

/// A person's token.
///
/// # Errors
/// It is none, or one for joining.
pub(crate) fn person(text: &str) -> Result<Token, String> {
    let token: Token = text.parse().map_err(|error: NoToken| error.to_string())?;
    match token.kind() {
        TokenKind::Person => Ok(token),
        TokenKind::Join => Err(
            "this token is for workers that join (their key join_token_file names its file); people need one of their \
             own (`fovea token create --role viewer --name NAME`)"
                .into(),
        ),
    }
}

/// Puts a token into each request.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}
