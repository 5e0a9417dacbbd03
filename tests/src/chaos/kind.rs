//! The kinds of faults.

use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL of a worker; another one takes its place later.
    KillWorker,
    /// SIGKILL of all workers; others take their places.
    KillAllWorkers,
    /// SIGSTOP of a worker until it is evicted, then SIGCONT.
    StopWorker,
    /// SIGSTOP and SIGCONT, shorter than the heartbeat timeout.
    BriefStop,
    /// The thread that computes is held; heartbeats go on.
    StallDevice,
    /// The thread that computes is held while it waits for a late peer.
    StallWaiting,
    /// SIGTERM of a worker.
    LeaveWorker,
    /// One more worker, where there is room.
    JoinWorker,
    /// SIGKILL of the coordinator, which is started again.
    KillCoordinator,
    /// SIGKILL of the coordinator and of a worker.
    KillBoth,
    /// A worker's network cable is pulled: packets are lost, connections stay open.
    Partition,
    /// The disk of the checkpoint store is full for some steps.
    FullDisk,
    /// The newest checkpoint is damaged and all workers are killed, so that it is needed.
    CorruptCheckpoint,
    /// The checkpoint store cannot be read for 5 s, and all workers are killed, so that it is needed.
    StoreUnreadable,
    /// The coordinator is started again while an empty folder is in the place of the checkpoint store. It must refuse;
    /// it is started once more when the store is back.
    StoreUnmounted,
    /// A bit flips in a pack that the workers have cached, and all workers are killed, so that it is read again.
    CorruptPack,
    /// A person pauses the run and resumes it.
    PauseResume,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::KillWorker,
        Self::KillAllWorkers,
        Self::StopWorker,
        Self::BriefStop,
        Self::StallDevice,
        Self::StallWaiting,
        Self::LeaveWorker,
        Self::JoinWorker,
        Self::KillCoordinator,
        Self::KillBoth,
        Self::Partition,
        Self::FullDisk,
        Self::CorruptCheckpoint,
        Self::StoreUnreadable,
        Self::StoreUnmounted,
        Self::CorruptPack,
        Self::PauseResume,
    ];

    /// Whether it takes a network that can be cut (root, iproute2).
    pub fn needs_network(self) -> bool {
        self == Self::Partition
    }

    /// Whether it takes mounting a file system (root).
    pub fn needs_mount(self) -> bool {
        matches!(self, Self::FullDisk | Self::StoreUnmounted)
    }

    /// Whether it takes a coordinator that is not root, and thus root to start it.
    pub fn needs_root(self) -> bool {
        self == Self::StoreUnreadable
    }

    /// Those that any user can inject.
    pub fn unprivileged() -> Vec<Self> {
        let needs = |kind: &Self| kind.needs_network() || kind.needs_mount() || kind.needs_root();
        Self::ALL.into_iter().filter(|kind| !needs(kind)).collect()
    }

    /// Whether it makes sense only for a run that has a checkpoint.
    pub(super) fn needs_checkpoint(self) -> bool {
        matches!(
            self,
            Self::CorruptCheckpoint | Self::StoreUnreadable | Self::StoreUnmounted
        )
    }

    /// Whether no worker survives it.
    pub(super) fn kills_all_workers(self) -> bool {
        matches!(
            self,
            Self::KillAllWorkers
                | Self::CorruptCheckpoint
                | Self::StoreUnreadable
                | Self::CorruptPack
        )
    }
}
