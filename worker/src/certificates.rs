//! Certificates for tests.

use std::path::PathBuf;

use fovea_security::authority::{Authority, Options};
use fovea_security::{Identity, Role, Tls, TlsFiles, write_private, write_public};
use time::OffsetDateTime;

/// A CA and the folder of its members' files.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Certificates {
    pub(crate) fn create() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, pair) = Authority::create("c", OffsetDateTime::now_utc()).unwrap();
        let made = Self { folder, authority };
        write_public(&made.ca(), &pair.certificate).unwrap();
        made
    }

    /// New files of a member, in the place of those that it has.
    pub(crate) fn issue(&self, role: Role, name: &str) -> TlsFiles {
        let identity = Identity::new("c", role, name).unwrap();
        let options = Options {
            days: Some(10),
            hosts: vec![],
        };
        let now = OffsetDateTime::now_utc();
        let pair = self.authority.issue(&identity, &options, now).unwrap();
        let at = |end: &str| self.folder.path().join(format!("{role}-{name}.{end}"));
        write_public(&at("pem"), &pair.certificate).unwrap();
        write_private(&at("key"), &pair.key).unwrap();
        TlsFiles {
            certificate: at("pem"),
            key: at("key"),
            ca: self.ca(),
        }
    }

    pub(crate) fn tls(&self, role: Role, name: &str) -> Tls {
        Tls::load(self.issue(role, name), "any role", |_| true).unwrap()
    }

    pub(crate) fn worker(&self, name: &str) -> Tls {
        self.tls(Role::Worker, name)
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}
