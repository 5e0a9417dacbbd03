//! Clients without a certificate, that know the coordinator by a token's digest.

use super::*;
use crate::{Pin, read_certificates};

fn pin(cluster: &Cluster) -> Pin {
    let ca = read_certificates("ca", &cluster.ca()).unwrap();
    Pin::new(&CertificateInfo::read(&ca[0]).unwrap().key_sha256)
}

#[tokio::test]
async fn a_stranger_knows_the_coordinator_by_the_digest_of_its_ca() {
    let cluster = Cluster::new("c");
    let coordinator = cluster.member(Role::Coordinator, "main");
    let ours = pin(&cluster);
    assert_eq!(
        coordinator.ca_sha256().map(|digest| Pin::new(&digest)),
        Some(ours.clone())
    );
    let (client, server) = meet(
        coordinator.coordinator_config(true, PROTOCOLS),
        ours.client_config(PROTOCOLS),
    )
    .await;
    assert_eq!(client.unwrap(), None);
    assert_eq!(server.unwrap(), Some(coordinator.identity()));
    // Where certificates are demanded, there is no way in.
    let (client, server) = meet(
        coordinator.coordinator_config(false, PROTOCOLS),
        ours.client_config(PROTOCOLS),
    )
    .await;
    refused(client, &["PEER showed no certificate"]);
    assert!(server.is_err());
}

#[tokio::test]
async fn somebody_else_at_the_address_is_refused() {
    let (cluster, other) = (Cluster::new("c"), Cluster::new("c"));
    let ours = pin(&cluster);
    let stranger = other.member(Role::Coordinator, "main");
    let config = stranger.coordinator_config(true, PROTOCOLS);
    let (_, server) = meet(config, ours.client_config(PROTOCOLS)).await;
    refused(server, &["another cluster than the token", "somebody else"]);
    // One who shows our CA's certificate, which is no secret, behind his own.
    let mixed = other.folder.path().join("mixed.pem");
    let chain = [stranger.files.certificate.clone(), cluster.ca()];
    let text: Vec<String> = chain
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    std::fs::write(&mixed, text.concat()).unwrap();
    let files = TlsFiles {
        certificate: mixed,
        ..(*stranger.files).clone()
    };
    let config = load(files).unwrap().coordinator_config(true, PROTOCOLS);
    let (_, server) = meet(config, ours.client_config(PROTOCOLS)).await;
    refused(server, &["signed by another CA"]);
    // A worker of the own cluster is no coordinator.
    let worker = cluster.member(Role::Worker, "w");
    let config = worker.coordinator_config(true, PROTOCOLS);
    let (_, server) = meet(config, ours.client_config(PROTOCOLS)).await;
    refused(server, &["worker/w", "a coordinator was expected"]);
}

#[tokio::test]
async fn a_certificate_that_is_shown_counts_also_where_none_is_demanded() {
    let (cluster, other) = (Cluster::new("c"), Cluster::new("c"));
    let coordinator = cluster.member(Role::Coordinator, "main");
    let config = coordinator.coordinator_config(true, PROTOCOLS);
    let ann = cluster.member(Role::Viewer, "ann");
    let as_client = |tls: &Tls| tls.client_config(Expected::coordinator(), PROTOCOLS);
    let (client, _) = meet(Arc::clone(&config), as_client(&ann)).await;
    assert_eq!(client.unwrap(), Some(ann.identity()));
    // The stranger's own check of the server comes first, so that he must be made to trust it.
    let stranger = other.member(Role::Viewer, "ann");
    let files = TlsFiles {
        ca: both(&cluster, &other),
        ..(*stranger.files).clone()
    };
    let (client, _) = meet(config, as_client(&load(files).unwrap())).await;
    refused(client, &["signed by another CA"]);
}

/// A file with the CAs of both.
fn both(one: &Cluster, other: &Cluster) -> std::path::PathBuf {
    let path = one.folder.path().join("both.pem");
    let text: Vec<String> = [one, other]
        .iter()
        .map(|cluster| std::fs::read_to_string(cluster.ca()).unwrap())
        .collect();
    std::fs::write(&path, text.concat()).unwrap();
    path
}

#[test]
fn the_key_of_any_ca_in_the_file_signs() {
    let (one, other) = (Cluster::new("c"), Cluster::new("c"));
    let ca = both(&one, &other);
    for cluster in [&one, &other] {
        let key = cluster.folder.path().join("ca.key");
        assert!(Authority::read(&ca, &key, now()).is_ok());
    }
}
