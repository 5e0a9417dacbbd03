//! `fovea certs`: the cluster's CA, and what it signs.

use std::path::{Path, PathBuf};

use fovea_security::authority::{Authority, AuthorityError, Options, Pair};
use fovea_security::{
    CertificateInfo, FileError, Identity, IdentityError, Role, read_certificates, write_private,
    write_public,
};
use time::OffsetDateTime;

use super::certs_args::{CertsCommand, CertsOptions};
use super::output::Output;
use super::record::Record;
use crate::error::Error;

/// The coordinator of a cluster needs no name of its own.
const COORDINATOR: &str = "coordinator";

/// Runs one of the commands.
pub fn run(command: CertsCommand, output: &Output) -> Result<(), Error> {
    match command {
        CertsCommand::Init {
            cluster,
            admin,
            if_missing,
            options,
        } => init(&cluster, &admin, if_missing, &options, output),
        CertsCommand::Issue {
            role,
            name,
            options,
        } => issue(role, &name, &options, output),
        CertsCommand::Show { files } => show(&files, output),
        CertsCommand::Renew { files, options } => renew(&files, &options, output),
    }
}

fn init(
    cluster: &str,
    admin: &str,
    if_missing: bool,
    options: &CertsOptions,
    output: &Output,
) -> Result<(), Error> {
    // All that can be wrong is looked at before anything is written.
    let dir = &options.dir;
    let members = [
        Identity::new(cluster, Role::Coordinator, COORDINATOR)?,
        Identity::new(cluster, Role::Admin, admin)?,
    ];
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let ca = Files::new(dir, "ca");
    let files = [Files::new(dir, COORDINATOR), Files::new(dir, "admin")];
    let all = [&ca, &files[0], &files[1]];
    if !if_missing && let Some(there) = all.iter().find(|files| files.certificate.exists()) {
        return Err(there.exist_already("--if-missing leaves such files alone"));
    }
    for (files, identity) in files.iter().zip(&members) {
        if files.are_there()? {
            files.check_identity(identity)?;
        }
    }
    if !ca.are_there()? {
        if let Some(there) = files.iter().find(|files| files.certificate.exists()) {
            return Err(Error::Tls(format!(
                "{} is there, and {}, which has signed it, is not; restore that, or remove the others",
                there.certificate.display(),
                ca.certificate.display()
            )));
        }
        let (_, pair) = Authority::create(cluster, now())?;
        ca.write(&pair)?;
    }
    report(&ca.certificate, output)?;
    let authority = authority(dir)?;
    for (files, identity) in files.iter().zip(&members) {
        if !files.are_there()? {
            let pair = authority.issue(identity, &wanted(identity, options), now())?;
            files.write(&pair)?;
        }
        report(&files.certificate, output)?;
    }
    output.remark(format!(
        "Keep {} away from other machines: who has it can be anybody in {cluster}.",
        ca.key.display()
    ));
    Ok(())
}

fn issue(role: Role, name: &str, options: &CertsOptions, output: &Output) -> Result<(), Error> {
    let authority = authority(&options.dir)?;
    let identity = Identity::new(&cluster(&options.dir)?, role, name)?;
    let files = Files::new(&options.dir, &format!("{role}-{name}"));
    if files.are_there()? {
        return Err(files.exist_already("`fovea certs renew` makes a new certificate of it"));
    }
    let pair = authority.issue(&identity, &wanted(&identity, options), now())?;
    files.write(&pair)?;
    report(&files.certificate, output)
}

fn renew(paths: &[PathBuf], options: &CertsOptions, output: &Output) -> Result<(), Error> {
    let authority = authority(&options.dir)?;
    for path in paths {
        let info = read(path)?;
        let identity = info.identity.clone().map_err(|error| {
            Error::Tls(format!(
                "{}: {error}, so that it cannot be renewed",
                path.display()
            ))
        })?;
        let mut wanted = Options {
            days: Some(options.days),
            hosts: info.hosts,
        };
        if !options.hosts.is_empty() {
            wanted.hosts.clone_from(&options.hosts);
        }
        let key = path.with_extension("key");
        let certificate = authority.renew(&identity, &wanted, &key, now())?;
        write_public(path, &certificate)?;
        report(path, output)?;
    }
    Ok(())
}

fn show(paths: &[PathBuf], output: &Output) -> Result<(), Error> {
    let mut worst = Ok(());
    for path in paths {
        match read(path) {
            Ok(info) => {
                print(path, &info, output);
                if info.until <= now() {
                    let path = path.display();
                    worst = Err(Error::Tls(format!(
                        "{path} has expired on {}",
                        info.until_text()
                    )));
                }
            }
            Err(error) => {
                output.complain(&error.to_string());
                worst = Err(Error::Tls("not every file could be read".into()));
            }
        }
    }
    worst
}

/// A certificate and its key.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, name: &str) -> Self {
        Self {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        }
    }

    /// Whether both are. The certificate is written last, so that a key alone is of a start that was cut off.
    fn are_there(&self) -> Result<bool, Error> {
        match (self.certificate.exists(), self.key.exists()) {
            (true, false) => Err(Error::Tls(format!(
                "{} is there, and its key {} is not; restore it, or remove the certificate",
                self.certificate.display(),
                self.key.display()
            ))),
            (certificate, _) => Ok(certificate),
        }
    }

    fn check_identity(&self, wanted: &Identity) -> Result<(), Error> {
        let path = self.certificate.display();
        match read(&self.certificate)?.identity {
            Ok(found) if found == *wanted => Ok(()),
            Ok(found) => Err(Error::Tls(format!(
                "{path} is {found}, and not {wanted}; give another --dir, or the names that are in it"
            ))),
            Err(error) => Err(Error::Tls(format!("{path}: {error}"))),
        }
    }

    fn exist_already(&self, advice: &str) -> Error {
        Error::Tls(format!(
            "{} exists already; {advice}",
            self.certificate.display()
        ))
    }

    fn write(&self, pair: &Pair) -> Result<(), Error> {
        write_private(&self.key, &pair.key)?;
        Ok(write_public(&self.certificate, &pair.certificate)?)
    }
}

fn authority(dir: &Path) -> Result<Authority, Error> {
    let ca = Files::new(dir, "ca");
    Ok(Authority::read(&ca.certificate, &ca.key, now())?)
}

/// The cluster of the coordinator's certificate in the folder, which `init` has made.
fn cluster(dir: &Path) -> Result<String, Error> {
    let path = Files::new(dir, COORDINATOR).certificate;
    match read(&path)?.identity {
        Ok(identity) => Ok(identity.cluster().to_owned()),
        Err(error) => Err(Error::Tls(format!("{}: {error}", path.display()))),
    }
}

/// A coordinator's certificate names hosts, too: grpcurl and grpcio verify them.
fn wanted(identity: &Identity, options: &CertsOptions) -> Options {
    let mut hosts = options.hosts.clone();
    if identity.role() == Role::Coordinator {
        for host in ["localhost", identity.name()] {
            if !hosts.iter().any(|given| given == host) {
                hosts.push(host.to_owned());
            }
        }
    }
    Options {
        days: Some(options.days),
        hosts,
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn read(path: &Path) -> Result<CertificateInfo, Error> {
    let all = read_certificates("certificate", path)?;
    CertificateInfo::read(&all[0])
        .map_err(|error| Error::Tls(format!("{}: {error}", path.display())))
}

fn report(path: &Path, output: &Output) -> Result<(), Error> {
    print(path, &read(path)?, output);
    Ok(())
}

fn print(path: &Path, info: &CertificateInfo, output: &Output) {
    let identity = info.identity.as_ref().ok().map(Identity::to_string);
    let whose = match &identity {
        Some(identity) => identity.clone(),
        None if info.is_ca => format!("CA, key sha256:{}", info.key_sha256),
        None => "no identity of Fovea".into(),
    };
    let left = info.left(now());
    let left = match left.whole_days() {
        _ if left.is_negative() => "EXPIRED".into(),
        0 => format!("{} h left", left.whole_hours()),
        days => format!("{days} days left"),
    };
    output.line(format!(
        "{}: {whose}\n  valid {} to {} ({left}), signed by {}",
        path.display(),
        info.from_text(),
        info.until_text(),
        info.issuer
    ));
    if !info.hosts.is_empty() {
        output.line(format!("  hosts {}", info.hosts.join(", ")));
    }
    output.record(&Record::Certificate {
        path,
        identity,
        ca: info.is_ca,
        valid_from_s: info.from.unix_timestamp(),
        valid_until_s: info.until.unix_timestamp(),
        issuer: &info.issuer,
        key_sha256: &info.key_sha256,
        hosts: &info.hosts,
    });
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Error::Tls(error.to_string())
    }
}

impl From<AuthorityError> for Error {
    fn from(error: AuthorityError) -> Self {
        Error::Tls(error.to_string())
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        Error::Usage(error.to_string())
    }
}
