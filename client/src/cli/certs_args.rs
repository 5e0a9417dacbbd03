//! The options of `fovea certs`.

use std::path::PathBuf;

use clap::Subcommand;
use fovea_security::Role;

/// What to do about certificates.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a cluster's CA, and certificates for the coordinator and the first admin
    #[command(after_help = "\
Examples:
  fovea certs init --cluster eyes
  fovea certs init --cluster eyes --if-missing --host coordinator    in a script

Makes in --dir: ca.pem and ca.key, coordinator.pem and .key, admin.pem and .key. Keys have mode 0600.
Keep ca.key away from other machines: who has it can be anybody in this cluster. With --if-missing,
files that are there stay, and only those that are missing are made.")]
    Init {
        /// Name of the cluster: part of every identity in it
        #[arg(long, value_name = "NAME")]
        cluster: String,
        /// Name of the first admin
        #[arg(long, value_name = "NAME", default_value = "admin")]
        admin: String,
        /// Leave files alone that are there already
        #[arg(long)]
        if_missing: bool,
        #[command(flatten)]
        options: CertsOptions,
    },
    /// Make a certificate with its key, signed by the cluster's CA
    #[command(after_help = "\
Examples:
  fovea certs issue worker node-3         makes worker-node-3.pem and worker-node-3.key
  fovea certs issue submitter ann --days 90

Roles: worker (trains), viewer (looks), submitter (also submits runs, and changes its own), admin (may do
all that people may), coordinator. Copy the two files and ca.pem to whom they are for, and name them
in tls_certificate, tls_key and tls_ca. All workers of a machine may share one certificate.")]
    Issue {
        /// worker, viewer, submitter, admin or coordinator
        role: Role,
        /// Name of the machine or the person
        name: String,
        #[command(flatten)]
        options: CertsOptions,
    },
    /// Print what certificates say: whose they are, until when, signed by whom
    #[command(after_help = "\
Example:
  fovea certs show fovea-certs/*.pem

Exit code 2 if one has expired or cannot be read.")]
    Show {
        /// Files with certificates (PEM)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Make a certificate anew, for the same identity and key
    #[command(after_help = "\
Example:
  fovea certs renew fovea-certs/worker-node-3.pem

The file is replaced at once. Programs that run take the new file within some seconds, without losing a
connection; on another machine, copy it there.")]
    Renew {
        /// The certificates to renew (PEM); each key is beside it, with .key instead of .pem
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        options: CertsOptions,
    },
}

/// What all commands that sign have in common.
#[derive(Debug, Clone, clap::Args)]
pub struct CertsOptions {
    /// The folder with ca.pem and ca.key, where new files go, too
    #[arg(long, value_name = "DIR", default_value = "fovea-certs")]
    pub dir: PathBuf,
    /// Days until it expires
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = fovea_security::authority::DAYS,
        value_parser = clap::value_parser!(u32).range(1..=3650)
    )]
    pub days: u32,
    /// A DNS name or address for programs that verify those, such as grpcurl; Fovea does not. May be
    /// given several times
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
}
