//! Texts and exit codes of errors.

use super::*;
use tonic::Status;

#[test]
fn a_status_becomes_one_sentence_and_an_exit_code() {
    let cases = [
        (
            Status::not_found("no run \"x\""),
            4,
            "refused: no run \"x\"",
        ),
        (Status::invalid_argument("train.batch: 0"), 4, "train.batch"),
        (Status::failed_precondition("is running"), 4, "is running"),
        (Status::already_exists("taken"), 4, "taken"),
        (Status::unimplemented(""), 4, "the same version"),
        (
            Status::unimplemented("protocol 3, ours is 2: update fovea"),
            4,
            "refused: protocol 3, ours is 2: update fovea",
        ),
        (
            Status::unavailable("the checkpoint store is not mounted."),
            3,
            "at http://h:1 cannot do this now: the checkpoint store is not mounted",
        ),
        (
            Status::resource_exhausted("200 watches (max_watches_per_client)"),
            3,
            "at a limit: 200 watches (max_watches_per_client). Try again later",
        ),
        (
            Status::resource_exhausted(
                "cannot write /d/x: no room: 9 MiB are needed, 2 MiB are free.",
            ),
            3,
            "the coordinator's disk is too full for this: cannot write /d/x: no room: 9 MiB are needed, 2 MiB are free",
        ),
        (Status::internal("disk"), 1, "failed (INTERNAL): disk"),
    ];
    for (status, exit, part) in cases {
        let error = Error::from_status(&status, "http://h:1");
        let text = error.to_string();
        assert_eq!(error.exit_code(), exit, "{text}");
        assert!(text.contains(part), "{text}");
        assert!(!text.contains("Status {"), "a debug dump: {text}");
    }
}

#[test]
fn a_broken_connection_names_the_address() {
    let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
    let error = Error::from_status(&Status::from_error(Box::new(broken)), "http://h:1");
    assert_eq!(error.exit_code(), 3);
    assert_eq!(
        error.to_string(),
        "lost the connection to the coordinator at http://h:1: reset by peer"
    );
}

#[test]
fn a_hint_is_added_only_where_the_coordinator_gives_none() {
    let refused = |text: &str| {
        Error::from_status(&Status::failed_precondition(text), "http://h:1")
            .with_hint(|| "Cancel it first with `fovea cancel dr-1`".into())
            .to_string()
    };
    assert_eq!(
        refused("run dr-1 is running"),
        "the coordinator refused: run dr-1 is running. Cancel it first with `fovea cancel dr-1`"
    );
    assert_eq!(
        refused("run dr-1 is running; `fovea cancel dr-1` stops it"),
        "the coordinator refused: run dr-1 is running; `fovea cancel dr-1` stops it"
    );
    assert_eq!(
        refused("its last checkpoint is being stored; try again in a moment"),
        "the coordinator refused: its last checkpoint is being stored; try again in a moment"
    );
}

#[test]
fn unreadable_alone_has_an_exit_code_of_its_own() {
    let counts = |corrupt, missing, unreadable| {
        Error::Verification(VerifiedCounts {
            what: "run dr-1".into(),
            of: 3,
            corrupt,
            missing,
            unreadable,
            unlisted: 0,
        })
    };
    assert_eq!(counts(1, 0, 1).exit_code(), 7);
    assert_eq!(counts(0, 1, 0).exit_code(), 7);
    assert_eq!(counts(0, 0, 2).exit_code(), 8);
    assert_eq!(
        counts(1, 0, 1).to_string(),
        "run dr-1: of 3 files, 1 corrupt, 1 unreadable now (try again)"
    );
}

#[test]
fn what_to_do_is_in_the_coordinators_text_and_nowhere_else() {
    let message = "/data/x cannot be read: Permission denied (os error 13). Nothing was deleted; correct the cause and \
                   it is used again";
    let error = Error::from_status(&Status::unavailable(message), "http://h:1");
    let expected = format!("the coordinator at http://h:1 cannot do this now: {message}");
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn a_submission_without_an_answer_may_have_been_accepted() {
    let lost = || Error::Lost {
        address: "http://a".into(),
        reason: "reset".into(),
    };
    for (what, look) in [("run", "fovea runs"), ("group", "fovea group list")] {
        let error = lost().of_submission(what, look);
        assert_eq!(error.exit_code(), 3);
        assert_eq!(
            error.to_string(),
            format!(
                "lost the connection to the coordinator at http://a: reset. The {what} may have been accepted all the same: see \
                 with `{look}` before you submit it again"
            )
        );
    }
    let refused = Error::Refused("no".into()).of_submission("run", "fovea runs");
    assert_eq!(refused.to_string(), "the coordinator refused: no");
}
