//! What each error means for the run.

use std::time::Duration;

use fovea_dataset::PackError;
use fovea_weights::WeightsError;

use super::*;

#[test]
fn what_only_a_repair_at_the_coordinator_helps_blocks_the_run() {
    let control = Control::default();
    let reason = "checkpoint 3 of run r: it is corrupt".to_owned();
    let blocked = JobError::Fetch(FetchError::Blocked(reason.clone())).ended(&control);
    assert!(matches!(
        blocked,
        Ended::Released(Outcome::Blocked { reason: r }) if r.contains(&reason)
    ));
    let data = DataError::Blocked { reason };
    let blocked = JobError::Training(TrainingError::Data(data)).ended(&control);
    assert!(matches!(blocked, Ended::Released(Outcome::Blocked { .. })));
    let cancelled = JobError::Fetch(FetchError::Cancelled).ended(&control);
    assert_eq!(cancelled, Ended::Released(Outcome::Aborted));
}

#[test]
fn trouble_of_this_worker_alone_differs_from_that_of_the_run() {
    let io = |code| std::io::Error::from_raw_os_error(code);
    let device = |reason: &str| {
        JobError::Device(DeviceError {
            doing: "computing a gradient",
            reason: reason.into(),
        })
    };
    let own = FetchError::Own(Trouble::Disk, "no space".into());
    let record = DataError::Record {
        image: "a".into(),
        source: PackError::Io {
            path: "p".into(),
            source: io(libc::EIO),
        },
    };
    let not_replaced = |trouble| DataError::NotReplaced {
        image: "a".into(),
        reason: "x".into(),
        trouble,
    };
    let missing = FirstStateError::Weights(WeightsError::Io {
        file: "w".into(),
        source: io(libc::ENOENT),
    });
    let data = |error| JobError::Training(TrainingError::Data(error));
    let gpu = |error| JobError::Collective(CollectiveError::Gpu(error));
    for (error, trouble) in [
        (device("CUDA out of memory"), Trouble::Memory),
        (device("an illegal memory access"), Trouble::Device),
        (JobError::Fetch(own), Trouble::Disk),
        (data(record), Trouble::Data),
        (data(not_replaced(Some(Trouble::Disk))), Trouble::Disk),
        (JobError::FirstState(missing), Trouble::Data),
        (JobError::Io(io(libc::EMFILE)), Trouble::System),
        (gpu(GpuError::NoContext), Trouble::Device),
        (
            JobError::Collective(CollectiveError::Expired { until: "x".into() }),
            Trouble::System,
        ),
    ] {
        let reason = error.to_string();
        let ended = error.ended(&Control::default());
        assert_eq!(ended, Ended::unfit(trouble, reason));
    }
    // The same for every worker, or a matter of peers.
    let damaged = FirstStateError::Weights(WeightsError::Damaged {
        file: "w".into(),
        layer: "a".into(),
        reason: "cut off".into(),
    });
    let nccl = GpuError::NcclTimeout {
        call: crate::gpu::NcclCall::Reduce,
        deadline: Duration::from_secs(1),
    };
    let fatal =
        |ended: Ended| matches!(ended, Ended::Released(Outcome::Failed { fatal: true, .. }));
    let passing =
        |ended: Ended| matches!(ended, Ended::Released(Outcome::Failed { fatal: false, .. }));
    let interrupted = |ended: Ended| matches!(ended, Ended::Interrupted { .. });
    type Is = fn(Ended) -> bool;
    let others: [(JobError, Is); 5] = [
        (JobError::FirstState(damaged), fatal),
        (
            JobError::Training(TrainingError::NotFinite {
                what: "the loss",
                step: 3,
            }),
            fatal,
        ),
        (data(not_replaced(None)), passing),
        (JobError::Io(io(libc::ECONNRESET)), passing),
        (gpu(nccl), interrupted),
    ];
    for (error, is) in others {
        let text = error.to_string();
        assert!(is(error.ended(&Control::default())), "{text}");
    }
}
