//! The certificates of a cluster with TLS, made by `fovea certs` as people make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use fovea_security::{Role, Tls, TlsFiles};

use crate::process::binary;

/// A folder of certificates.
#[derive(Debug, Clone)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes a CA, and certificates for the coordinator and an admin.
    ///
    /// # Panics
    /// If `fovea certs` fails.
    pub fn create(dir: PathBuf) -> Self {
        let certificates = Self { dir };
        certificates.certs(&["init", "--cluster", "eyes"]);
        certificates
    }

    /// Runs `fovea certs` in this folder.
    ///
    /// # Panics
    /// If it fails.
    pub fn certs(&self, args: &[&str]) {
        let output = Command::new(binary("fovea"))
            .arg("certs")
            .args(args)
            .arg("--dir")
            .arg(&self.dir)
            .output()
            .expect("fovea starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fovea certs {args:?}: {text}");
    }

    /// The files of the coordinator.
    pub fn coordinator(&self) -> TlsFiles {
        self.files("coordinator")
    }

    /// The CA's key.
    pub fn ca_key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    /// The files of the first admin.
    pub fn admin(&self) -> TlsFiles {
        self.files("admin")
    }

    /// The files of a member, which are made if they are not there.
    pub fn member(&self, role: Role, name: &str) -> TlsFiles {
        let files = self.files(&format!("{role}-{name}"));
        if !files.certificate.exists() {
            self.certs(&["issue", role.as_str(), name]);
        }
        files
    }

    /// The admin's certificate, for a channel.
    ///
    /// # Panics
    /// If it cannot be used.
    pub fn admin_tls(&self) -> Tls {
        Tls::load(self.admin(), "an admin", Role::is_person).expect("a certificate")
    }

    fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            certificate: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
            ca: self.dir.join("ca.pem"),
        }
    }
}

/// The variables that name these files to any of the programs.
pub fn environment(files: &TlsFiles) -> [(String, String); 3] {
    let text = |path: &Path| path.display().to_string();
    [
        ("FOVEA_TLS_CERTIFICATE".into(), text(&files.certificate)),
        ("FOVEA_TLS_KEY".into(), text(&files.key)),
        ("FOVEA_TLS_CA".into(), text(&files.ca)),
    ]
}
