//! What values of the keys are possible.

use super::*;

#[test]
fn impossible_values_are_refused_by_name() {
    type Change = fn(&mut Config);
    let cases: [(Change, &str); 22] = [
        (|c| c.store = "/srv".into(), "store is \"/srv\""),
        (|c| c.store_region = "eu".into(), "store_region is set"),
        (|c| c.store_allow_http = true, "store_allow_http is set"),
        (|c| c.tls_key = "k".into(), "tls_certificate and tls_ca"),
        (|c| c.tls_ca_key = "k".into(), "tls_ca_key is set, and"),
        (|c| c.ops_listen = "9090".into(), "ops_listen is \"9090\""),
        (
            |c| c.otlp_endpoint = "c:4317".into(),
            "otlp_endpoint is \"c:4317\"",
        ),
        (|c| c.otlp_ca = "ca.pem".into(), "otlp_ca is set"),
        (|c| c.listen = "nowhere".into(), "listen"),
        (|c| c.http_listen = "7080".into(), "http_listen is \"7080\""),
        (|c| c.http_listen = "0.0.0.0:7080".into(), "http_listen is"),
        (|c| c.listen = "0.0.0.0:7070".into(), "allow_insecure"),
        (|c| c.heartbeat_ms = 0, "heartbeat_ms"),
        (|c| c.timeout_ms = 599, "timeout_ms"),
        (|c| c.max_uploads = 0, "max_uploads is 0"),
        (|c| c.max_connections = 0, "max_connections is 0"),
        (
            |c| c.max_watches_per_client = 0,
            "max_watches_per_client is 0",
        ),
        (|c| c.handshake_timeout_s = 0, "handshake_timeout_s"),
        (|c| c.idle_timeout_s = 0, "idle_timeout_s"),
        (|c| c.unreadable_patience_s = 0, "unreadable_patience_s"),
        (|c| c.no_worker_patience_s = 0, "no_worker_patience_s is 0"),
        (|c| c.data_dir = "".into(), "data_dir"),
    ];
    for (change, named) in cases {
        let mut config = Config::default();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_persons_own_quota_goes_before_that_of_all() {
    let config = Config {
        quota_workers: 4,
        quotas: "ann=8, bob = 0,".into(),
        ..Config::default()
    };
    for (person, quota) in [("ann", 8), ("bob", 0), ("eve", 4)] {
        assert_eq!(config.quota_of(person), Some(quota), "{person}");
    }
    assert_eq!(Config::default().quota_of("ann"), None);
    for wrong in ["ann", "ann=many", "ann:3", "=x"] {
        let config = Config {
            quotas: wrong.into(),
            ..Config::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("NAME=WORKERS"), "{wrong}: {error}");
    }
}

#[test]
fn no_secret_is_shown() {
    let config = Config {
        store: "s3://AKIA:hunter2@bucket/x".into(),
        store_endpoint: "https://u:hunter2@host".into(),
        ..Config::default()
    };
    let shown = toml::to_string(&config).unwrap();
    assert!(shown.contains("s3://***@bucket/x"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("AWS_ACCESS_KEY_ID"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn loopback_needs_no_permission_and_the_world_does() {
    let mut config = Config::default();
    assert!(config.validate().is_ok());
    config.listen = "[::1]:0".into();
    assert!(config.validate().is_ok());
    config.listen = "0.0.0.0:0".into();
    assert!(config.validate().is_err());
    config.allow_insecure = true;
    assert!(config.validate().is_ok());
    config.allow_insecure = false;
    for file in [
        &mut config.tls_certificate,
        &mut config.tls_key,
        &mut config.tls_ca,
    ] {
        *file = "file".into();
    }
    assert!(config.validate().is_ok());
}

#[test]
fn the_example_file_holds_the_defaults() {
    let text = include_str!("../../../deploy/coordinator.toml");
    let example: Config = toml::from_str(text).unwrap();
    assert_eq!(example, Config::default());
    // Every key is in the file, not only in the defaults that fill it up.
    let written: toml::Table = text.parse().unwrap();
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    for key in defaults.keys() {
        assert!(written.contains_key(key), "{key} is not in the example");
    }
}
