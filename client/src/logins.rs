//! Where a person has logged in: a token for each coordinator, in a file of the person's own.
//!
//! `$XDG_CONFIG_HOME/fovea/logins.toml`, or `~/.config/fovea/logins.toml`, with mode 0600: a table from the coordinator's
//! address to the token.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fovea_security::{read_secret, write_private};

use crate::credentials::{Credentials, person};
use crate::error::Error;

/// The file.
#[derive(Debug, Clone)]
pub struct Logins(PathBuf);

impl Logins {
    /// That of this person.
    ///
    /// # Errors
    /// The environment names no home folder.
    pub fn of_this_person() -> Result<Self, Error> {
        let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        let config = match (named("XDG_CONFIG_HOME"), named("HOME")) {
            (Some(config), _) => PathBuf::from(config),
            (None, Some(home)) => PathBuf::from(home).join(".config"),
            (None, None) => {
                return Err(Error::Usage(
                    "neither HOME nor XDG_CONFIG_HOME is set, so that logins have no place; give --token-file".into(),
                ));
            }
        };
        Ok(Self::at(&config.join("fovea")))
    }

    /// In this folder.
    pub fn at(folder: &Path) -> Self {
        Self(folder.join("logins.toml"))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What somebody has logged in with at this address.
    ///
    /// # Errors
    /// The file cannot be read, others can read it, or it is damaged.
    pub fn find(&self, address: &str) -> Result<Option<Credentials>, Error> {
        let all = self.read()?;
        let Some(text) = all.get(key(address)) else {
            return Ok(None);
        };
        let token = person(text).map_err(|problem| self.damaged(&problem))?;
        Ok(Some(Credentials::Token(token)))
    }

    /// Keeps a token for this address, instead of one that is there.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn put(&self, address: &str, token: String) -> Result<(), Error> {
        let mut all = self.read()?;
        all.insert(key(address).to_owned(), token);
        self.write(&all)
    }

    /// Forgets the token for this address. Whether there was one.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn remove(&self, address: &str) -> Result<bool, Error> {
        let mut all = self.read()?;
        let was = all.remove(key(address)).is_some();
        if was {
            self.write(&all)?;
        }
        Ok(was)
    }

    fn read(&self) -> Result<BTreeMap<String, String>, Error> {
        if let Err(error) = fs::metadata(&self.0)
            && error.kind() == io::ErrorKind::NotFound
        {
            return Ok(BTreeMap::new());
        }
        let text = read_secret("logins", &self.0).map_err(|error| Error::Tls(error.to_string()))?;
        toml::from_str(&text).map_err(|error| self.damaged(error.message()))
    }

    fn write(&self, all: &BTreeMap<String, String>) -> Result<(), Error> {
        if let Some(folder) = self.0.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| Error::io(folder, error))?;
        }
        let text = toml::to_string(all).map_err(|error| self.damaged(&error.to_string()))?;
        write_private(&self.0, &text).map_err(|error| Error::Tls(error.to_string()))
    }

    fn damaged(&self, problem: &str) -> Error {
        Error::Tls(format!(
            "{} cannot be used: {problem}; remove it and log in again (`fovea login`)",
            self.0.display()
        ))
    }
}

/// Addresses that differ only in a slash at the end are one.
fn key(address: &str) -> &str {
    address.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fovea_security::{Token, TokenKind};

    use super::*;

    fn token() -> String {
        Token::create(TokenKind::Person, &"0".repeat(64))
            .unwrap()
            .reveal()
    }

    #[test]
    fn each_coordinator_has_its_token_and_nobody_else_can_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let logins = Logins::at(&folder.path().join("fovea"));
        assert!(logins.find("https://a:1").unwrap().is_none());
        assert!(!logins.remove("https://a:1").unwrap());
        logins.put("https://a:1/", token()).unwrap();
        logins.put("https://b:1", token()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(logins.path()), 0o600);
        assert_eq!(mode(logins.path().parent().unwrap()), 0o700);
        assert!(logins.find("https://a:1").unwrap().is_some());
        assert!(logins.remove("https://a:1").unwrap());
        assert!(logins.find("https://a:1").unwrap().is_none());
        assert!(logins.find("https://b:1").unwrap().is_some());

        fs::set_permissions(logins.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let text = logins.find("https://b:1").unwrap_err().to_string();
        assert!(text.contains("chmod 600"), "{text}");
    }

    #[test]
    fn a_damaged_file_is_named_and_its_secrets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let logins = Logins::at(folder.path());
        for content in ["\"https://a:1\" = \"fvt1.secret\"", "nonsense fvt1.secret"] {
            write_private(logins.path(), content).unwrap();
            let text = logins.find("https://a:1").unwrap_err().to_string();
            assert!(text.contains("logins.toml cannot be used"), "{text}");
            assert!(text.contains("fovea login"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
