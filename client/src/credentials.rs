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

/// Where credentials come from, the first of those there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A certificate that flags or the environment name.
    Certificate,
    /// A token in a file that they name.
    TokenFile,
    /// The token that somebody has logged in with at this address.
    Login,
    /// None.
    Nothing,
}

/// What to tell a person for whom something else could speak than what is used: a login beside a certificate or a token file,
/// and a CA (`only_ca`: without a certificate) beside a token, which names its own.
pub(crate) fn others(
    used: Source,
    is_logged_in: bool,
    only_ca: bool,
    address: &str,
) -> Option<String> {
    let login = format!("what you have logged in with at {address}");
    match used {
        Source::Certificate if is_logged_in => Some(format!(
            "your certificate (--tls-certificate or FOVEA_TLS_CERTIFICATE) speaks for you, and not {login}: unset \
             FOVEA_TLS_CERTIFICATE, FOVEA_TLS_KEY and FOVEA_TLS_CA to use the login, or `fovea logout`"
        )),
        Source::TokenFile if is_logged_in => Some(format!(
            "the token in --token-file (or FOVEA_TOKEN_FILE) speaks for you, and not {login}: unset FOVEA_TOKEN_FILE to \
             use the login, or `fovea logout`"
        )),
        Source::Login if only_ca => Some(format!(
            "{login} speaks for you; the CA of --tls-ca (or FOVEA_TLS_CA) is not used, because the token names the \
             cluster's CA itself"
        )),
        Source::Certificate | Source::TokenFile | Source::Login | Source::Nothing => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_could_mean_something_else_reads_what_is_used() {
        let said = |used, logged_in, ca| others(used, logged_in, ca, "https://a:1");
        for (used, logged_in, ca, begins) in [
            (Source::Certificate, true, false, "your certificate"),
            (Source::TokenFile, true, false, "the token in --token-file"),
            (
                Source::Login,
                true,
                true,
                "what you have logged in with at https://a:1 speaks",
            ),
        ] {
            let text = said(used, logged_in, ca).unwrap();
            assert!(text.starts_with(begins), "{text}");
            assert!(text.contains("https://a:1"), "{text}");
        }
        // Nothing else could be meant.
        assert_eq!(said(Source::Certificate, false, false), None);
        assert_eq!(said(Source::TokenFile, false, true), None);
        assert_eq!(said(Source::Login, true, false), None);
        assert_eq!(said(Source::Nothing, false, false), None);
    }
}
