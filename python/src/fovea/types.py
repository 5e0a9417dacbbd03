"""What the coordinator knows, as values: runs, their results and checkpoints, workers, the queue.

Losses are in nats, sizes in bytes, times of a step in milliseconds. A step is the number of steps committed since the run's
start, so step 0 is the start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt


class Phase(str, Enum):
    """Phase of a run."""

    QUEUED = "queued"
    FORMING = "forming"
    RUNNING = "running"
    FINISHING = "finishing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    #: A phase of a newer coordinator.
    UNKNOWN = "unknown"

    @property
    def has_ended(self) -> bool:
        """Whether it is completed, failed or cancelled. A paused run has not ended."""
        return self in (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True)
class StepReport:
    """A committed step."""

    #: Committed steps, this one included.
    step: int
    #: Mean training loss of the step, nats.
    loss: float
    #: Images in the step, over all workers.
    images: int
    #: Images per second over all workers, smoothed over recent steps.
    images_per_s: float
    learning_rate: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics on the validation split. What is undefined is None."""

    samples: int
    positives: int
    #: Mean cross-entropy, nats.
    loss: float
    #: Share of samples whose label the model names, 0 to 1.
    accuracy: float
    #: Area under the ROC curve, 0 to 1.
    auc: float | None
    #: Share of positive samples with P(positive) > 0.5, 0 to 1.
    sensitivity: float | None
    #: Share of negative samples with P(positive) <= 0.5, 0 to 1.
    specificity: float | None
    #: Cohen's kappa with quadratic weights, -1 to 1.
    kappa: float | None
    #: Numbers of samples, `confusion[label][prediction]`.
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class EpochResult:
    """Results of one epoch."""

    #: From 0.
    epoch: int
    #: Committed steps at its end.
    step: int
    #: Mean training loss over the epoch's samples, nats; None if there were none.
    train_loss: float | None
    validation: Evaluation


@dataclass(frozen=True)
class Checkpoint:
    """A stored checkpoint."""

    #: Committed steps that it holds.
    step: int
    #: Number of the generation that wrote it.
    generation: int
    #: Bytes.
    size: int
    #: SHA-256 of the file, hexadecimal.
    sha256: str
    stored_at: datetime | None


@dataclass(frozen=True)
class Run:
    """A run and its results so far."""

    id: str
    #: As in run.toml, with every default filled in: `run.spec["train"]["epochs"]`.
    spec: dict[str, Any] = field(repr=False)
    phase: Phase
    #: Why it failed or waits; empty otherwise.
    reason: str
    #: Number of its newest generation: increases with every change of its workers.
    generation: int
    #: Ids of the workers that host it now.
    workers: tuple[str, ...]
    steps_per_epoch: int
    total_steps: int
    train_samples: int
    validation_samples: int
    #: The newest committed step; None before the first.
    progress: StepReport | None
    #: In order.
    epochs: tuple[EpochResult, ...]
    #: In order of their steps.
    checkpoints: tuple[Checkpoint, ...]
    #: SHA-256, hexadecimal.
    dataset_digest: str = field(repr=False)
    submitted_at: datetime | None
    #: When its first generation had formed; None before that.
    began_at: datetime | None
    #: When it ended; None while it has not.
    ended_at: datetime | None
    #: Who submitted it; empty without TLS.
    submitted_by: str
    #: The group that it was submitted with; empty if alone.
    group_id: str
    #: The priority in force: low, normal or high. That of the spec, unless it was changed since.
    priority: str

    @property
    def has_ended(self) -> bool:
        """Whether it is completed, failed or cancelled."""
        return self.phase.has_ended

    @property
    def newest_checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the highest step."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def best_checkpoint(self) -> Checkpoint | None:
        """The best stored checkpoint by the metric in `checkpoint.keep_best`, the first of equals. None if none has it."""
        by = self.spec.get("checkpoint", {}).get("keep_best", "auc")
        results = {epoch.step: epoch.validation for epoch in self.epochs}
        best: tuple[float, Checkpoint] | None = None
        for checkpoint in self.checkpoints:
            result = results.get(checkpoint.step)
            merit = None if result is None else merit_of(result, by)
            if merit is not None and (best is None or merit > best[0]):
                best = (merit, checkpoint)
        return None if best is None else best[1]


def merit_of(result: Evaluation, by: str) -> float | None:
    """Higher is better."""
    if by == "auc":
        return result.auc
    if by == "loss":
        return -result.loss
    if by == "kappa":
        return result.kappa
    return None


@dataclass(frozen=True)
class Worker:
    """A connected worker."""

    id: str
    #: idle, preparing, training, waiting, barred, left_out or leaving.
    state: str
    #: Why it does nothing; empty if it works or is idle.
    reason: str
    host: str
    #: Where its peers reach it, host:port.
    address: str
    #: Such as "cpu".
    device: str
    version: str
    #: The run that it serves or prepares for; empty if there is none.
    run_id: str
    #: How many virtual ranks it hosts.
    virtual_ranks: int
    #: How long ago it was last heard, seconds.
    last_seen_s: float
    #: For how long it has been connected, seconds.
    connected_s: float
    #: Wall-clock time of a step, milliseconds; None before the first.
    step_ms: float | None
    #: The part of a step, 0 to 1, in which it only waits for the others; None before the first.
    wait_ratio: float | None
    #: Resident memory of its process, bytes; None if it is not known.
    resident_bytes: int | None
    #: Memory of its GPU in use, bytes; None for a CPU.
    gpu_used_bytes: int | None


@dataclass(frozen=True)
class QueuedRun:
    """A run that waits for workers."""

    run_id: str
    #: The priority in force: low, normal or high.
    priority: str
    #: The priority, raised by waiting.
    place: str
    #: Empty without TLS.
    submitted_by: str
    min_workers: int
    max_workers: int
    #: How long it has waited, seconds.
    waited_s: float
    #: Why it waits.
    waiting: str


@dataclass(frozen=True)
class Selection:
    """Which runs of a group are trained to the end, as `[selection]` in a sweep's file says it. What does not go on is paused, keeps
    its checkpoints, and can be resumed."""

    #: The validation metric that decides: auc or kappa (the highest), loss (the lowest).
    metric: str = "auc"
    #: After each of these numbers of epochs every run pauses, and when all have, the best variants go on. Empty: none is dropped.
    halving: tuple[int, ...] = ()
    #: One variant of so many goes on, at least one.
    keep_one_of: int = 3
    #: A run stops when its metric has not been better for so many epochs. None: it does not.
    patience: int | None = None


@dataclass(frozen=True)
class GroupMember:
    """A run of a group."""

    run_id: str
    #: Its variant: a place in `Group.variants`, from 0.
    variant: int
    #: The fold that it holds out, from 1, and the number of folds. None if it holds out the validation split.
    fold: tuple[int, int] | None
    seed: int
    #: None: it was removed.
    phase: Phase | None


@dataclass(frozen=True)
class Group:
    """Runs that were submitted together."""

    id: str
    #: Name of the spec from which its runs were made.
    name: str
    submitted_at: datetime | None
    #: Who submitted it; empty without TLS.
    submitted_by: str
    #: What each variant sets; empty: there is one, the spec as it is.
    variants: tuple[str, ...]
    #: None: all are trained to the end.
    selection: Selection | None
    #: What its selection decides is not done yet: a run that is paused will go on or be dropped.
    deciding: bool
    #: As they were submitted.
    runs: tuple[GroupMember, ...]

    @property
    def has_ended(self) -> bool:
        """Whether every run is completed, failed, cancelled or removed."""
        return all(member.phase is None or member.phase.has_ended for member in self.runs)

    @property
    def is_at_rest(self) -> bool:
        """Whether no run goes on unless a person resumes one: each has ended or is paused, and nothing is being decided."""
        rests = (member.phase is None or member.phase.has_ended or member.phase is Phase.PAUSED for member in self.runs)
        return not self.deciding and all(rests)


@dataclass(frozen=True)
class Scores:
    """The probabilities that a run's model gave at the end of an epoch, or in an evaluation."""

    #: Digest of the dataset.
    dataset_digest: str
    #: train, validation, test or all; samples are in the order of the dataset's index.
    part: str
    #: From 0.
    epoch: int
    step: int
    #: float32 [samples, classes].
    probabilities: npt.NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class RunUpdated:
    """The run as it is: first of all, after each change of its phase, and after a reconnect."""

    run: Run

    def __str__(self) -> str:
        return f"{self.run.id} {self.run.phase.value}{': ' if self.run.reason else ''}{self.run.reason}"


@dataclass(frozen=True)
class StepCommitted:
    """A step was committed. Steps that pass while the connection is broken are not reported."""

    report: StepReport

    def __str__(self) -> str:
        return f"step {self.report.step}: loss {self.report.loss:.4f}, {self.report.images_per_s:.1f} images/s"


@dataclass(frozen=True)
class EpochEvaluated:
    """An epoch was evaluated. Every epoch is reported once, whatever breaks. `result.epoch` is from 0; as text epochs are from 1, as
    the command line and the coordinator's reasons have them."""

    result: EpochResult

    def __str__(self) -> str:
        of = self.result.validation
        figures = {"loss": of.loss, "AUC": of.auc, "kappa": of.kappa}
        known = ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if value is not None)
        return f"epoch {self.result.epoch + 1}, {of.samples} validation samples: {known}"


@dataclass(frozen=True)
class CheckpointStored:
    """A checkpoint was stored. Each that is still there is reported once, whatever breaks."""

    checkpoint: Checkpoint

    def __str__(self) -> str:
        return f"checkpoint {self.checkpoint.step} stored, {self.checkpoint.size / 1e6:.1f} MB"


@dataclass(frozen=True)
class Note:
    """A decision of the coordinator: the event's name, a colon, text for people. docs/events.md lists the names."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Reconnecting:
    """There is no connection now; the next attempt comes after `wait_s` seconds."""

    reason: str
    #: From 1.
    attempt: int
    wait_s: float

    def __str__(self) -> str:
        return f"{self.reason}; attempt {self.attempt} in {self.wait_s:.1f} s"


@dataclass(frozen=True)
class GroupUpdated:
    """The group as it is: first of all, and after each change of a phase."""

    group: Group

    def __str__(self) -> str:
        phases = [member.phase.value if member.phase else "removed" for member in self.group.runs]
        counted = ", ".join(f"{phases.count(phase)} {phase}" for phase in dict.fromkeys(phases))
        return f"{self.group.id}: {counted}"


@dataclass(frozen=True)
class MemberUpdated:
    """A run of a group: first of all, and after each change of its phase or of the reason for it."""

    run: Run

    def __str__(self) -> str:
        return f"{self.run.id} {self.run.phase.value}{': ' if self.run.reason else ''}{self.run.reason}"


@dataclass(frozen=True)
class MemberEvaluated:
    """An epoch of a run of a group was evaluated. Every epoch is reported once, whatever breaks."""

    run_id: str
    result: EpochResult

    def __str__(self) -> str:
        return f"{self.run_id}: {EpochEvaluated(self.result)}"


#: What `Client.watch_group` gives. As text each is a line for people.
GroupEvent = GroupUpdated | MemberUpdated | MemberEvaluated | Reconnecting

#: What `Client.watch` gives. As text each is a line for people.
Event = RunUpdated | StepCommitted | EpochEvaluated | CheckpointStored | Note | Reconnecting
