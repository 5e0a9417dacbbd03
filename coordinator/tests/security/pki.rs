//! A cluster's CA and the files that it signs.

use std::path::{Path, PathBuf};

use fovea_coordinator::Config;
use fovea_proto::{ChannelError, connect_with};
use fovea_security::authority::{Authority, Options, Pair};
use fovea_security::{Identity, Role, Tls, TlsFiles, write_private, write_public};
use time::OffsetDateTime;
use tonic::transport::Channel;

use crate::common::*;

/// A CA with a folder.
pub struct Pki {
    cluster: &'static str,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Pki {
    pub fn new(cluster: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, pair) = Authority::create(cluster, OffsetDateTime::now_utc()).unwrap();
        write_public(&folder.path().join("ca.pem"), &pair.certificate).unwrap();
        write_private(&folder.path().join("ca.key"), &pair.key).unwrap();
        Self {
            cluster,
            folder,
            authority,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn ca_key(&self) -> PathBuf {
        self.path().join("ca.key")
    }

    pub fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// A certificate in another cluster's name.
    pub fn pair_in(&self, cluster: &str, role: Role, name: &str, days: u32) -> Pair {
        let identity = Identity::new(cluster, role, name).unwrap();
        let options = Options {
            days: Some(days),
            hosts: vec!["localhost".into()],
        };
        let now = OffsetDateTime::now_utc();
        self.authority.issue(&identity, &options, now).unwrap()
    }

    /// A certificate that was made at that time, for a year.
    pub fn issue_at(&self, identity: &Identity, made: OffsetDateTime) -> Pair {
        self.authority
            .issue(identity, &Options::default(), made)
            .unwrap()
    }

    /// New files of a member, which replace older ones.
    pub fn issue(&self, role: Role, name: &str, days: u32) -> TlsFiles {
        self.write(name, &self.pair_in(self.cluster, role, name, days))
    }

    pub fn write(&self, name: &str, pair: &Pair) -> TlsFiles {
        let at = |end: &str| self.path().join(format!("{name}.{end}"));
        write_private(&at("key"), &pair.key).unwrap();
        write_public(&at("pem"), &pair.certificate).unwrap();
        TlsFiles {
            certificate: at("pem"),
            key: at("key"),
            ca: self.ca(),
        }
    }

    pub fn member(&self, role: Role, name: &str) -> Tls {
        load(self.issue(role, name, 30))
    }

    /// Starts a coordinator of this cluster; its own channel is an admin's.
    pub async fn server(&self, change: impl FnOnce(&mut Config)) -> Server {
        let files = self.issue(Role::Coordinator, "main", 30);
        let admin = self.member(Role::Admin, "root");
        let data = self.path().join("data");
        Server::start_for(&admin, &data, |config| {
            with(config, files);
            change(config);
        })
        .await
    }
}

pub fn with(config: &mut Config, files: TlsFiles) {
    let TlsFiles {
        certificate,
        key,
        ca,
    } = files;
    (config.tls_certificate, config.tls_key, config.tls_ca) = (certificate, key, ca);
}

pub fn load(files: TlsFiles) -> Tls {
    Tls::load(files, "any role", |_| true).unwrap()
}

pub async fn channel(server: &Server, tls: &Tls) -> Result<Channel, ChannelError> {
    connect_with(&server.address, Some(tls), PATIENCE).await
}
