//! Valid and invalid command lines.

use super::*;
use clap::CommandFactory;

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
