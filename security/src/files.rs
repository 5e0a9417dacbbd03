//! Certificates and keys in files: PEM, keys that nobody else can read, writing without half files.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest file that is read, bytes. Bundles of CAs have some hundred kilobytes.
const LARGEST: u64 = 4 << 20;

/// The files of one member, as `tls_certificate`, `tls_key` and `tls_ca` name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, followed by intermediate ones.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs that may have signed a peer's certificate.
    pub ca: PathBuf,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{key} {}: {source}; correct the path, or the rights of the file", path.display())]
    Read {
        /// The configuration's key, or what it is.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{key} {}: {problem}", path.display())]
    Content {
        /// The configuration's key, or what it is.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Others may read a secret.
    #[error(
        "{key} {}: its mode is {mode:03o}, so that others can read this secret; `chmod 600 {}`",
        path.display(),
        path.display()
    )]
    Open {
        /// The configuration's key, or what it is.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl TlsFiles {
    /// The files that three configuration keys name; None if all are empty.
    ///
    /// # Errors
    /// Some are given and some are not; the text names those that are missing.
    pub fn from_keys(certificate: &Path, key: &Path, ca: &Path) -> Result<Option<Self>, String> {
        let all = [
            ("tls_certificate", certificate),
            ("tls_key", key),
            ("tls_ca", ca),
        ];
        let missing: Vec<&str> = all
            .iter()
            .filter(|(_, path)| path.as_os_str().is_empty())
            .map(|(name, _)| *name)
            .collect();
        match missing.len() {
            3 => Ok(None),
            0 => Ok(Some(Self {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                ca: ca.to_owned(),
            })),
            _ => Err(format!(
                "{} missing: TLS needs tls_certificate, tls_key and tls_ca, or none of them (`fovea certs \
                 issue` makes the files)",
                match &*missing {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(" and ")),
                }
            )),
        }
    }
}

/// What the three files hold.
#[derive(PartialEq, Eq)]
pub(crate) struct Contents {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub ca: Vec<u8>,
}

impl Contents {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read, or the key can be read by others.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, FileError> {
        Ok(Self {
            certificate: read("tls_certificate", &files.certificate)?,
            key: read_private("tls_key", &files.key)?,
            ca: read("tls_ca", &files.ca)?,
        })
    }
}

pub(crate) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let fail = |source| FileError::Read {
        key,
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(fail)?.len();
    if length > LARGEST {
        return Err(FileError::Content {
            key,
            path: path.to_owned(),
            problem: format!("it has {length} bytes, too many for certificates; correct the path"),
        });
    }
    fs::read(path).map_err(fail)
}

/// Reads a private key's file.
///
/// # Errors
/// It cannot be read, or others than its owner can. Members of its group may if root owns it: that
/// is how secrets are mounted for a process without root's rights.
pub(crate) fn read_private(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let metadata = fs::metadata(path).map_err(|source| FileError::Read {
        key,
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.mode() & 0o777;
    let allowed = match metadata.uid() {
        0 => 0o740,
        _ => 0o700,
    };
    if mode & !allowed != 0 {
        return Err(FileError::Open {
            key,
            path: path.to_owned(),
            mode,
        });
    }
    read(key, path)
}

/// Reads the one line of a file with a secret.
///
/// # Errors
/// As for private keys; or it is not text.
pub fn read_secret(what: &'static str, path: &Path) -> Result<String, FileError> {
    let bytes = read_private(what, path)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(_) => Err(FileError::Content {
            key: what,
            path: path.to_owned(),
            problem: "it is not text; correct the path".into(),
        }),
    }
}

/// The certificates of a PEM file, in their order; at least one.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn read_certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates(key, path, &read(key, path)?)
}

pub(crate) fn certificates(
    key: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let content = |problem: String| FileError::Content {
        key,
        path: path.to_owned(),
        problem,
    };
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(format!("it is damaged: {error}; make it anew")))?;
    if found.is_empty() {
        return Err(content(
            "it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); correct the path"
                .into(),
        ));
    }
    Ok(found)
}

pub(crate) fn private_key(
    key: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| FileError::Content {
        key,
        path: path.to_owned(),
        problem: format!(
            "it holds no private key in PEM form (-----BEGIN PRIVATE KEY-----): {error}; correct the path"
        ),
    })
}

/// Writes a file that only its owner can read. A file of that name is replaced at once, never half.
///
/// # Errors
/// It cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), FileError> {
    write(path, text, 0o600)
}

/// Writes a file that everybody can read. A file of that name is replaced at once, never half.
///
/// # Errors
/// It cannot be written.
pub fn write_public(path: &Path, text: &str) -> Result<(), FileError> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let write = || -> io::Result<()> {
        // Mode 0600 from its first moment on.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_or_none() {
        let [none, a] = ["", "/a"].map(Path::new);
        assert_eq!(TlsFiles::from_keys(none, none, none), Ok(None));
        assert!(TlsFiles::from_keys(a, a, a).unwrap().is_some());
        let error = TlsFiles::from_keys(a, none, a).unwrap_err();
        assert!(error.starts_with("tls_key is missing"), "{error}");
        let error = TlsFiles::from_keys(none, a, none).unwrap_err();
        assert!(
            error.starts_with("tls_certificate and tls_ca are missing"),
            "{error}"
        );
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_private(&path, "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_private("tls_key", &path).unwrap(), b"secret");
        let is_root = fs::metadata(&path).unwrap().uid() == 0;
        for (mode, good) in [
            (0o400, true),
            (0o700, true),
            (0o640, is_root),
            (0o644, false),
            (0o660, false),
            (0o604, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read_private("tls_key", &path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            if let Err(error) = read {
                let text = error.to_string();
                assert!(text.contains(&format!("mode is {mode:03o}")), "{text}");
                assert!(text.contains("chmod 600"), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_pem_is_named_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem");
        let missing = read_certificates("tls_ca", &path).unwrap_err().to_string();
        assert!(
            missing.contains("tls_ca") && missing.contains("x.pem"),
            "{missing}"
        );
        fs::write(&path, "hello").unwrap();
        let none = read_certificates("tls_ca", &path).unwrap_err().to_string();
        assert!(none.contains("holds no certificate"), "{none}");
        fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let damaged = read_certificates("tls_ca", &path).unwrap_err().to_string();
        assert!(damaged.contains("it is damaged"), "{damaged}");
        let error = private_key("tls_key", &path, b"x").unwrap_err().to_string();
        assert!(error.contains("holds no private key"), "{error}");
    }
}
