//! Addresses, health and the operations listener.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_on_every_address() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: dir.path().join("data"),
        ..Config::default()
    };
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|a| a.parse().unwrap());
    let (listeners, missing) = Listeners::bind(&addresses).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let bound = listeners.addresses().unwrap();
    let shutdown = fovea_service::Shutdown::default();
    let serving = tokio::spawn(serve(config, listeners, shutdown.clone()));
    for address in bound {
        let channel = fovea_proto::connect(&address.to_string(), PATIENCE)
            .await
            .unwrap();
        let request = pb::ListRunsRequest::default();
        RunsClient::new(channel).list(request).await.unwrap();
    }
    shutdown.request();
    serving.await.unwrap().unwrap();
}

/// By name, on all addresses that this machine has for it; the file holds one of them, the log all.
#[test]
fn a_name_means_all_its_addresses() {
    use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

    let dir = tempfile::tempdir().unwrap();
    let mut child = program()
        .args(["--listen", "localhost:0", "--address-file"])
        .arg(dir.path().join("address"))
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process {
        log: BufReader::new(child.stderr.take().unwrap()),
        child,
        address: String::new(),
    };
    let line = process.until("coordinator.listening: ");
    let written = std::fs::read_to_string(dir.path().join("address")).unwrap();
    let first: SocketAddr = written.trim().parse().unwrap();
    let mut reached = Vec::new();
    for mut address in "localhost:0".to_socket_addrs().unwrap() {
        address.set_port(first.port());
        if TcpStream::connect(address).is_ok() {
            assert!(line.contains(&address.to_string()), "{address}: {line}");
            reached.push(address);
        } else {
            assert!(address.is_ipv6(), "{address} is not listened on: {line}");
        }
    }
    assert_eq!(reached.first(), Some(&first), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_on() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let services = ["Runs", "Datasets", "Workers", "Checkpoints"].map(|s| format!("fovea.v1.{s}"));
    for service in &services {
        let request = HealthCheckRequest {
            service: service.clone(),
        };
        let reply = HealthClient::new(server.channel.clone())
            .check(request)
            .await;
        assert_eq!(reply.unwrap().into_inner().status, 1, "{service}");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = ServerReflectionClient::new(server.channel.clone())
        .server_reflection_info(tokio_stream::iter(vec![request]))
        .await
        .unwrap()
        .into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    assert!(services.iter().all(|s| names.contains(s)), "{names:?}");
    drop(replies);
    server.stop().await;
}

#[test]
fn health_asks_the_running_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ops = port.local_addr().unwrap().to_string();
    drop(port);
    let health = |more: &[&str]| {
        output(
            program()
                .arg("health")
                .args(more)
                .env("FOVEA_OPS_LISTEN", &ops),
        )
    };
    let (code, _, error) = health(&[]);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains(&format!("nothing answers at {ops}: ")),
        "{error}"
    );

    let mut process = Process::start(&dir.path().join("data"), &["--ops-listen", &ops]);
    for more in [&[][..], &["--live"]] {
        assert_eq!(health(more), (Some(0), "ok\n".into(), String::new()));
    }
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    assert_eq!(health(&[]).0, Some(1));
    // Without the key nobody can be asked.
    let (code, _, error) = output(program().arg("health"));
    assert_eq!(code, Some(2));
    assert!(error.contains("ops_listen is empty"), "{error}");
    let (code, _, error) = output(program().args(["--ops-listen", "everywhere"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("ops_listen is \"everywhere\""), "{error}");
}

#[test]
fn the_address_file_of_a_listener_on_all_addresses_names_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("address");
    let mut child = program()
        .args(["--listen", "0.0.0.0:0", "--data-dir"])
        .arg(dir.path().join("data"))
        .arg("--address-file")
        .arg(&file)
        .env("FOVEA_ALLOW_INSECURE", "true")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("coordinator.listening") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended early");
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("{}:", name.trim())), "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
}
