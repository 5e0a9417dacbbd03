//! The priority of all runs of a group.

use fovea_core::group::Group;
use fovea_core::ids::RunId;
use fovea_core::priority::Priority;
use fovea_core::run::Run;

use super::Context;
use super::each::{Asked, ask_each, has_workers, some};
use crate::access::Subject;
use crate::error::ApiError;
use crate::run::PersonRequest;

/// Sets the priority of the runs of a group that have not ended; `by` asks for it.
pub(super) async fn set(
    context: Context,
    group: Group,
    priority: Priority,
    by: Option<String>,
    subject: Subject,
) -> Result<(), ApiError> {
    let order = |run: &Run| {
        turn(
            run.priority(),
            priority,
            has_workers(&run.phase),
            run.number,
        )
    };
    let request = PersonRequest::SetPriority { priority, by };
    let Asked { runs, failed } = ask_each(&context, &group, order, &request).await;
    let names: Vec<&str> = runs.iter().map(RunId::as_str).collect();
    if !names.is_empty() {
        subject.set(format_args!(
            "{} to {priority} with {}",
            group.id,
            names.join(", ")
        ));
    }
    match failed {
        Some(error) => Err(ApiError::Incomplete(format!(
            "of group {}, {} now {priority} priority; at least one run could not be asked ({error}): ask again",
            group.id,
            match *names {
                [_] => format!("{} has", some(&names)),
                _ => format!("{} have", some(&names)),
            }
        ))),
        None if names.is_empty() => Err(ApiError::Precondition(format!(
            "all runs of group {} have ended; there is no priority to change",
            group.id
        ))),
        None => Ok(()),
    }
}

/// The turn of a run whose priority becomes `to`. They change one after the other, and at no time may one of them that waits be
/// above one that has workers, which it would displace: of the same group, for nothing.
fn turn(now: Priority, to: Priority, has_workers: bool, number: u64) -> (u8, u64) {
    match (has_workers, to < now) {
        (false, true) => (0, u64::MAX - number),
        (true, false) => (1, number),
        (false, false) => (2, number),
        (true, true) => (3, number),
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{High, Low, Normal};
    use super::*;

    /// Has workers, priority, number.
    type Of = (bool, Priority, u64);

    #[test]
    fn no_run_of_a_group_displaces_another_while_their_priorities_change() {
        let table: [(&str, [Of; 4], Priority, [u64; 4]); 3] = [
            (
                "lowered: first those that wait, the last of them first",
                [
                    (true, Normal, 1),
                    (true, Normal, 2),
                    (false, Normal, 3),
                    (false, Normal, 4),
                ],
                Low,
                [4, 3, 1, 2],
            ),
            (
                "raised: first those that have workers",
                [
                    (false, Normal, 1),
                    (true, Normal, 2),
                    (false, Normal, 3),
                    (true, Normal, 4),
                ],
                High,
                [2, 4, 1, 3],
            ),
            (
                "both",
                [
                    (true, High, 1),
                    (false, Low, 2),
                    (true, Low, 3),
                    (false, High, 4),
                ],
                Normal,
                [4, 3, 2, 1],
            ),
        ];
        for (what, mut runs, to, expected) in table {
            let displaces = |runs: &[Of]| {
                let mut waiting = runs.iter().filter(|(has, ..)| !has);
                waiting.any(|w| runs.iter().any(|r| r.0 && r.1 < w.1))
            };
            let could = displaces(&runs);
            let mut order = runs;
            order.sort_by_key(|&(has, now, number)| turn(now, to, has, number));
            assert_eq!(order.map(|(.., number)| number), expected, "{what}");
            for (.., number) in order {
                let run = runs.iter_mut().find(|run| run.2 == number).unwrap();
                run.1 = to;
                assert!(could || !displaces(&runs), "{what}: {runs:?}");
            }
            assert!(!displaces(&runs), "{what}");
        }
    }
}
