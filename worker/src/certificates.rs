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
        self.issue_at(role, name, OffsetDateTime::now_utc())
    }

    /// The same at another time; they are valid for 10 days.
    fn issue_at(&self, role: Role, name: &str, now: OffsetDateTime) -> TlsFiles {
        let identity = Identity::new("c", role, name).unwrap();
        let options = Options {
            days: Some(10),
            hosts: vec![],
        };
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

    /// A worker's that ends in so many seconds.
    pub(crate) fn ending_in(&self, seconds: i64, name: &str) -> Tls {
        let ends = time::Duration::seconds(seconds) - time::Duration::days(10);
        let files = self.issue_at(Role::Worker, name, OffsetDateTime::now_utc() + ends);
        Tls::load(files, "any role", |_| true).unwrap()
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}
