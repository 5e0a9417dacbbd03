//! The certificate or the token with which the command line talks to a coordinator.

use std::path::{Path, PathBuf};

use fovea_security::{CertificateInfo, Role, Tls, TlsFiles};
use time::OffsetDateTime;

use super::args::TlsArgs;
use crate::credentials::{Credentials, Source, others};
use crate::error::Error;
use crate::logins::Logins;

/// What flags or the environment name, or somebody has logged in with: a certificate, a token, or nothing. Where more than
/// one of them could be meant, says which is used.
pub fn credentials(args: &TlsArgs, address: &str) -> Result<Credentials, Error> {
    let given = Given::new(args);
    // Nobody logs in without TLS, and a machine without a home folder can still be used without.
    let login = || match address.starts_with("https://") {
        true => Logins::of_this_person().and_then(|logins| logins.find(address)),
        false => Ok(None),
    };
    let source = given.source(|| Ok(login()?.is_some()))?;
    // A login that cannot be read is no reason to refuse what was named.
    let login = login().ok().flatten();
    let is_logged_in = login.is_some();
    let credentials = match source {
        Source::Certificate => Credentials::Certificate(load(given.files()?)?),
        Source::TokenFile => Credentials::from_file(given.token_file)?,
        Source::Login => login.unwrap_or(Credentials::Nothing),
        Source::Nothing => Credentials::Nothing,
    };
    if let Some(remark) = others(source, is_logged_in, given.only_ca(), address) {
        eprintln!("fovea: {remark}");
    }
    Ok(credentials)
}

/// What flags or the environment name instead of the token that somebody logs in with, if they do.
pub fn before_login(args: &TlsArgs, address: &str) -> Option<String> {
    let given = Given::new(args);
    let source = given.source(|| Ok(true)).ok()?;
    others(source, true, given.only_ca(), address)
}

/// What flags or the environment name. An empty variable names nothing.
struct Given<'a> {
    certificate: &'a Path,
    key: &'a Path,
    ca: &'a Path,
    token_file: &'a Path,
}

impl<'a> Given<'a> {
    fn new(args: &'a TlsArgs) -> Self {
        let path = |path: &'a Option<PathBuf>| path.as_deref().unwrap_or(Path::new(""));
        Self {
            certificate: path(&args.tls_certificate),
            key: path(&args.tls_key),
            ca: path(&args.tls_ca),
            token_file: path(&args.token_file),
        }
    }

    fn has_certificate(&self) -> bool {
        [self.certificate, self.key]
            .iter()
            .any(|path| !path.as_os_str().is_empty())
    }

    /// A CA alone: who has a token needs none, because the token names it.
    fn only_ca(&self) -> bool {
        !self.has_certificate() && !self.ca.as_os_str().is_empty()
    }

    /// What is used.
    fn source(&self, is_logged_in: impl FnOnce() -> Result<bool, Error>) -> Result<Source, Error> {
        let token_file = !self.token_file.as_os_str().is_empty();
        match (self.has_certificate(), token_file) {
            (true, true) => Err(Error::Usage(
                "both a certificate (--tls-certificate, --tls-key, or FOVEA_TLS_CERTIFICATE, FOVEA_TLS_KEY) and \
                 a token (--token-file or FOVEA_TOKEN_FILE) are given; which one shall speak for you?"
                    .into(),
            )),
            (true, false) => Ok(Source::Certificate),
            (false, true) => Ok(Source::TokenFile),
            (false, false) if is_logged_in()? => Ok(Source::Login),
            // The error names what is missing beside the CA.
            (false, false) if self.only_ca() => Ok(Source::Certificate),
            (false, false) => Ok(Source::Nothing),
        }
    }

    fn files(&self) -> Result<TlsFiles, Error> {
        let files = TlsFiles::from_keys(self.certificate, self.key, self.ca);
        files
            .map_err(Error::Usage)?
            .ok_or_else(|| Error::Usage("no certificate is given".into()))
    }
}

/// Loads a certificate. It is loaded again when its files change, for commands that last.
fn load(files: TlsFiles) -> Result<Tls, Error> {
    let tls = Tls::load(files, "a viewer, a submitter or an admin", Role::is_person)
        .map_err(|error| Error::Tls(error.to_string()))?;
    if let Some(warning) = warning(&tls.certificate()) {
        eprintln!("fovea: {warning}");
    }
    tokio::spawn(tls.clone().reload());
    Ok(tls)
}

fn warning(certificate: &CertificateInfo) -> Option<String> {
    certificate.ends_soon(OffsetDateTime::now_utc()).then(|| {
        format!(
            "your certificate ends on {}; renew it (`fovea certs renew`)",
            certificate.until_text()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(certificate: &str, ca: &str, token: &str) -> TlsArgs {
        let path = |text: &str| Some(PathBuf::from(text));
        TlsArgs {
            tls_certificate: path(certificate),
            tls_key: path(certificate),
            tls_ca: path(ca),
            token_file: path(token),
        }
    }

    #[test]
    fn a_certificate_comes_before_a_token_file_and_that_before_a_login() {
        for (certificate, ca, token, logged_in, expected) in [
            ("c", "ca", "", true, Source::Certificate),
            ("c", "", "", true, Source::Certificate),
            ("", "", "t", true, Source::TokenFile),
            ("", "ca", "t", false, Source::TokenFile),
            ("", "", "", true, Source::Login),
            ("", "ca", "", true, Source::Login),
            ("", "ca", "", false, Source::Certificate),
            ("", "", "", false, Source::Nothing),
        ] {
            let args = args(certificate, ca, token);
            let source = Given::new(&args).source(|| Ok(logged_in)).unwrap();
            assert_eq!(source, expected, "{args:?} {logged_in}");
        }
        let both = args("c", "ca", "t");
        let error = Given::new(&both).source(|| Ok(false)).unwrap_err();
        assert!(
            error.to_string().contains("which one shall speak"),
            "{error}"
        );
        let alone = args("", "ca", "");
        let error = Given::new(&alone).files().unwrap_err().to_string();
        assert!(
            error.contains("tls_certificate and tls_key are missing"),
            "{error}"
        );
    }
}
