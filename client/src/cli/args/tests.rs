//! Valid and invalid command lines.

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn valid_and_invalid_command_lines() {
    let parse = |line: &str| Args::try_parse_from(line.split(' '));
    for good in [
        "fovea prepare folder --out d",
        "fovea prepare --labels l.csv --images i --out d --max-bad 2%",
        "fovea prepare brset --from brset --out d --allow-unlabelled --each-image-a-patient",
        "fovea prepare f --out d --columns image=a,grade=b,patient=none --patient-pattern ^([0-9]+)_",
        "fovea submit run.toml --watch --set a=b --set c=d",
        "fovea --json runs",
        "fovea runs --json --coordinator http://h:1",
        "fovea runs audit dr-1",
        "fovea --json runs audit dr-1",
        "fovea runs show dr-1",
        "fovea runs get dr-1",
        "fovea runs rm dr-1 dr-2 --with-checkpoints --yes",
        "fovea runs rm -y dr-1",
        "fovea checkpoint rm dr-1 12 newest",
        "fovea dataset rm a b --yes",
        "fovea admin verify",
        "fovea admin verify --skip-checkpoints --json",
        "fovea pause dr-1",
        "fovea priority dr-1 high",
        "fovea group priority dr-g1 low",
        "fovea resume dr-1 --checkpoint 40",
        "fovea checkpoint get dr-1 newest -o f",
        "fovea checkpoint get dr-1 40",
        "fovea checkpoint verify dr-1",
        "fovea checkpoint verify dr-1 40",
        "fovea checkpoint verify dr-1 newest",
        "fovea local -n 2 --dataset d run.toml",
        "fovea local --resume dr-1 --checkpoint 3",
    ] {
        assert!(parse(good).is_ok(), "{good}: {}", parse(good).unwrap_err());
    }
    for bad in [
        "fovea",
        "fovea prepare --out d",
        "fovea prepare --labels l.csv --out d",
        "fovea prepare f --out d --max-bad lots",
        "fovea prepare f --out d --from kaggle",
        "fovea prepare f --out d --columns label=a",
        "fovea prepare f --out d --patient-pattern [0-9]+",
        "fovea pause",
        "fovea priority dr-1",
        "fovea priority dr-1 urgent",
        "fovea runs audit",
        "fovea runs dr-1",
        "fovea runs rm",
        "fovea checkpoint rm dr-1",
        "fovea checkpoint rm dr-1 oldest",
        "fovea dataset rm",
        "fovea admin",
        "fovea checkpoint get dr-1 oldest",
        "fovea checkpoint verify",
        "fovea checkpoint verify dr-1 oldest",
        "fovea local -n 0 run.toml",
        "fovea local --resume dr-1 run.toml",
    ] {
        assert_eq!(
            parse(bad).map_err(|e| e.exit_code()).unwrap_err(),
            2,
            "{bad}"
        );
    }
}

#[test]
fn the_help_of_a_command_shows_the_options_that_it_needs() {
    let help = |line: &str| {
        let asked = Args::command_line().try_get_matches_from(line.split(' '));
        asked.unwrap_err().to_string()
    };
    let tls = ["--tls-certificate", "--tls-key", "--tls-ca", "--token-file"];
    for line in ["certs init", "certs show", "prepare", "synthetic", "local"] {
        let text = help(&format!("fovea {line} --help"));
        for option in tls.iter().chain(&["--coordinator"]) {
            assert!(!text.contains(option), "{line}: {text}");
        }
    }
    let login = help("fovea login --help");
    assert!(login.contains("--coordinator <URL>"), "{login}");
    assert!(!login.contains("--tls-key"), "{login}");
    for line in ["runs", "worker deny", "token create"] {
        let text = help(&format!("fovea {line} --help"));
        for option in tls.iter().chain(&["--coordinator <URL>"]) {
            assert!(text.contains(option), "{line}: {text}");
        }
    }
    // Those of all commands come last, whatever a command has itself.
    for line in [
        "group report",
        "group evaluate",
        "evaluate",
        "predict",
        "top",
        "runs rm",
    ] {
        let text = help(&format!("fovea {line} --help"));
        let (own, global) = text.split_once("Global options:").unwrap();
        let global = global.trim_start().split("\n\n").next().unwrap();
        for option in tls.iter().chain(&["--coordinator"]) {
            assert!(
                !own.contains(option) && global.contains(option),
                "{line}: {text}"
            );
        }
        assert!(
            !global.contains("--split") && !global.contains("--out"),
            "{line}: {text}"
        );
    }
    assert!(!help("fovea top --help").contains("--json"));
    assert!(help("fovea runs --help").contains("--json"));
    // They are taken all the same, before and after the command.
    for line in [
        "fovea --tls-ca ca.pem certs show x.pem",
        "fovea certs show --tls-ca ca.pem x.pem",
    ] {
        let matches = Args::command_line()
            .try_get_matches_from(line.split(' '))
            .unwrap();
        let args = Args::from_arg_matches(&matches).unwrap();
        assert_eq!(args.tls.tls_ca, Some("ca.pem".into()), "{line}");
    }
}

#[test]
fn an_empty_address_is_one_that_is_not_given() {
    let args = Args::try_parse_from(["fovea", "--coordinator", "", "runs"]).unwrap();
    assert_eq!(args.address(true).unwrap(), "http://127.0.0.1:7070");
    let text = args.address(false).unwrap_err().to_string();
    assert!(text.contains("--coordinator is empty"), "{text}");
    let args = Args::try_parse_from([
        "fovea",
        "--coordinator",
        "https://h:1",
        "--tls-ca",
        "",
        "runs",
    ]);
    let args = args.unwrap();
    assert_eq!(args.address(true).unwrap(), "https://h:1");
    assert_eq!(args.tls.tls_ca, Some("".into()));
}

#[test]
fn variables_that_have_an_effect_are_known() {
    let known = Args::variables();
    for key in [
        "coordinator",
        "tls_certificate",
        "tls_key",
        "tls_ca",
        "token_file",
    ] {
        assert!(known.iter().any(|k| k == key), "{key}: {known:?}");
    }
    let keys: Vec<&str> = known.iter().map(String::as_str).collect();
    let near = [
        "FOVEA_CORDINATOR",
        "FOVEA_TLS_CERTIFICAT",
        "FOVEA_TLS_CA_KEY",
        "FOVEA_LISTEN",
    ];
    let found = fovea_service::misspelt(&keys, near.into_iter());
    let expected = [
        ("FOVEA_CORDINATOR", "coordinator"),
        ("FOVEA_TLS_CERTIFICAT", "tls_certificate"),
    ];
    assert_eq!(found, expected);
}
