//! The certificate or the token with which the command line talks to a coordinator.

use fovea_security::{CertificateInfo, Role, Tls, TlsFiles};
use time::OffsetDateTime;

use super::args::TlsArgs;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::logins::Logins;

/// What flags or the environment name, or somebody has logged in with: a certificate, a token, or nothing.
pub fn credentials(args: &TlsArgs, address: &str) -> Result<Credentials, Error> {
    if let Some(tls) = load(args)? {
        return match &args.token_file {
            None => Ok(Credentials::Certificate(tls)),
            Some(_) => Err(Error::Usage(
                "both a certificate and --token-file are given; which one shall speak for you?"
                    .into(),
            )),
        };
    }
    if let Some(path) = &args.token_file {
        return Credentials::from_file(path);
    }
    // Nobody logs in without TLS, and a machine without a home folder can still be used without.
    if !address.starts_with("https://") {
        return Ok(Credentials::Nothing);
    }
    let found = Logins::of_this_person().and_then(|logins| logins.find(address))?;
    Ok(found.unwrap_or(Credentials::Nothing))
}

/// Loads the certificate that flags or the environment name; None if there is none. It is loaded
/// again when its files change, for commands that last.
fn load(args: &TlsArgs) -> Result<Option<Tls>, Error> {
    let path = |path: &Option<std::path::PathBuf>| path.clone().unwrap_or_default();
    let files = TlsFiles::from_keys(
        &path(&args.tls_certificate),
        &path(&args.tls_key),
        &path(&args.tls_ca),
    )
    .map_err(Error::Usage)?;
    let Some(files) = files else { return Ok(None) };
    let tls = Tls::load(files, "a viewer, a submitter or an admin", Role::is_person)
        .map_err(|error| Error::Tls(error.to_string()))?;
    if let Some(warning) = warning(&tls.certificate()) {
        eprintln!("fovea: {warning}");
    }
    tokio::spawn(tls.clone().reload());
    Ok(Some(tls))
}

fn warning(certificate: &CertificateInfo) -> Option<String> {
    certificate.ends_soon(OffsetDateTime::now_utc()).then(|| {
        format!(
            "your certificate ends on {}; renew it (`fovea certs renew`)",
            certificate.until_text()
        )
    })
}
