//! Another implementation of TLS, as a client: openssl s_client.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use fovea_security::{Role, TlsFiles};

use super::pki::*;

/// What s_client says of a connection.
fn s_client(address: &str, more: &[&str], files: Option<&TlsFiles>) -> String {
    let path = |path: &Path| path.display().to_string();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", address, "-alpn", "h2", "-ign_eof"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(files) = files {
        command
            .args([
                "-cert",
                &path(&files.certificate),
                "-key",
                &path(&files.key),
            ])
            .args(["-CAfile", &path(&files.ca), "-verify_return_error"]);
    }
    let mut child = command.spawn().unwrap();
    // Neither HTTP/2 nor a pause: the coordinator answers with an error and closes.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"hello hello hello hello\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg_attr(not(has_openssl), ignore = "needs the command openssl")]
#[tokio::test(flavor = "multi_thread")]
async fn openssl_gets_in_with_a_certificate_and_tls_1_3_only() {
    let pki = Pki::new("eyes");
    let server = pki
        .server(|config| (config.handshake_timeout_s, config.tokens) = (2, false))
        .await;
    let files = pki.issue(Role::Viewer, "ann", 9);
    let ask = |more: &'static [&'static str], files: Option<TlsFiles>| {
        let address = server.address.clone();
        tokio::task::spawn_blocking(move || s_client(&address, more, files.as_ref()))
    };
    let good = ask(&[], Some(files.clone())).await.unwrap();
    assert!(good.contains("Verify return code: 0 (ok)"), "{good}");
    assert!(good.contains("TLSv1.3"), "{good}");
    assert!(good.contains("ALPN protocol: h2"), "{good}");
    assert!(!good.contains("alert"), "{good}");
    let bare = ask(&[], None).await.unwrap();
    assert!(bare.contains("certificate required"), "{bare}");
    let old = ask(&["-tls1_2"], Some(files)).await.unwrap();
    assert!(old.contains("protocol version"), "{old}");
    server.stop().await;
}
