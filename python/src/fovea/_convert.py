"""From the wire to values. The messages of `fovea.v1` go no further than this module, `_spec` and the client."""

from __future__ import annotations

from datetime import datetime, timezone

from fovea import types
from fovea._spec import spec_to_dict, word
from fovea.v1 import cluster_pb2, common_pb2, groups_pb2, runs_pb2


def moment(milliseconds: int) -> datetime | None:
    """A time from milliseconds since the Unix epoch; 0 is none."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc) if milliseconds else None


def phase(wire: int) -> types.Phase:
    """A phase; one of a newer coordinator is UNKNOWN."""
    try:
        return types.Phase(word(runs_pb2.Phase.DESCRIPTOR, wire))
    except ValueError:
        return types.Phase.UNKNOWN


def step_report(wire: common_pb2.StepReport) -> types.StepReport:
    """A committed step."""
    return types.StepReport(wire.step, wire.loss, wire.images, wire.images_per_s, wire.learning_rate)


def evaluation(wire: common_pb2.Evaluation) -> types.Evaluation:
    """Metrics on the validation split."""
    counts, classes = list(wire.confusion), wire.classes or 1
    return types.Evaluation(
        samples=wire.samples,
        positives=wire.positives,
        loss=wire.loss,
        accuracy=wire.accuracy,
        auc=wire.auc if wire.HasField("auc") else None,
        sensitivity=wire.sensitivity if wire.HasField("sensitivity") else None,
        specificity=wire.specificity if wire.HasField("specificity") else None,
        kappa=wire.quadratic_kappa if wire.HasField("quadratic_kappa") else None,
        confusion=tuple(tuple(counts[row : row + classes]) for row in range(0, len(counts), classes)),
    )


def epoch_result(wire: common_pb2.EpochResult) -> types.EpochResult:
    """Results of one epoch."""
    loss = wire.train_loss if wire.HasField("train_loss") else None
    return types.EpochResult(wire.epoch, wire.step, loss, evaluation(wire.validation))


def checkpoint(wire: common_pb2.Checkpoint) -> types.Checkpoint:
    """A stored checkpoint."""
    return types.Checkpoint(wire.step, wire.generation, wire.size_bytes, wire.sha256, moment(wire.stored_at_ms))


def run(wire: runs_pb2.Run) -> types.Run:
    """A run."""
    return types.Run(
        id=wire.id,
        spec=spec_to_dict(wire.spec),
        phase=phase(wire.phase),
        reason=wire.reason,
        generation=wire.generation,
        workers=tuple(wire.workers),
        steps_per_epoch=wire.steps_per_epoch,
        total_steps=wire.total_steps,
        train_samples=wire.train_samples,
        validation_samples=wire.validation_samples,
        progress=step_report(wire.progress) if wire.HasField("progress") else None,
        epochs=tuple(map(epoch_result, wire.epochs)),
        checkpoints=tuple(map(checkpoint, wire.checkpoints)),
        dataset_digest=wire.dataset_digest,
        submitted_at=moment(wire.submitted_at_ms),
        began_at=moment(wire.began_at_ms),
        ended_at=moment(wire.ended_at_ms),
        submitted_by=wire.submitted_by,
        group_id=wire.group_id,
        # An older coordinator knows no other than that of the spec.
        priority=word(common_pb2.Priority.DESCRIPTOR, wire.priority or wire.spec.priority) or "normal",
    )


def worker(wire: cluster_pb2.Worker) -> types.Worker:
    """A connected worker."""
    load = wire.load
    return types.Worker(
        id=wire.id,
        state=word(cluster_pb2.WorkerState.DESCRIPTOR, wire.state),
        reason=wire.reason,
        host=wire.host,
        address=wire.address,
        device=wire.device,
        version=wire.version,
        run_id=wire.run_id,
        virtual_ranks=wire.virtual_ranks,
        last_seen_s=wire.last_seen_ms / 1000,
        connected_s=wire.connected_ms / 1000,
        step_ms=load.step_ms if load.HasField("step_ms") else None,
        wait_ratio=load.wait_ratio if load.HasField("wait_ratio") else None,
        resident_bytes=load.resident_bytes if load.HasField("resident_bytes") else None,
        gpu_used_bytes=load.gpu_used_bytes if load.HasField("gpu_used_bytes") else None,
    )


def priority(name: str) -> common_pb2.Priority:
    """A priority by its name."""
    known = {"low": common_pb2.PRIORITY_LOW, "normal": common_pb2.PRIORITY_NORMAL, "high": common_pb2.PRIORITY_HIGH}
    if name not in known:
        raise ValueError(f"priority {name!r}: must be one of {', '.join(known)}")
    return known[name]


def queued(wire: cluster_pb2.QueuedRun) -> types.QueuedRun:
    """A run that waits."""
    of = common_pb2.Priority.DESCRIPTOR
    return types.QueuedRun(
        run_id=wire.run_id,
        priority=word(of, wire.priority),
        place=word(of, wire.place),
        submitted_by=wire.submitted_by,
        min_workers=wire.min_workers,
        max_workers=wire.max_workers,
        waited_s=wire.waited_ms / 1000,
        waiting=wire.waiting,
    )


def group(wire: groups_pb2.Group) -> types.Group:
    """A group."""
    return types.Group(
        id=wire.id,
        name=wire.name,
        submitted_at=moment(wire.submitted_at_ms),
        submitted_by=wire.submitted_by,
        variants=tuple(wire.variants),
        selection=selection(wire.selection) if wire.HasField("selection") else None,
        deciding=wire.deciding,
        runs=tuple(map(_member, wire.runs)),
    )


def selection(wire: groups_pb2.Selection) -> types.Selection:
    """How the runs of a group are selected."""
    halving = tuple(wire.after_epochs)
    return types.Selection(
        metric=word(common_pb2.BestBy.DESCRIPTOR, wire.by),
        halving=halving,
        keep_one_of=wire.keep_one_of if halving else types.Selection.keep_one_of,
        patience=wire.patience or None,
    )


def _member(wire: groups_pb2.GroupMember) -> types.GroupMember:
    return types.GroupMember(
        run_id=wire.run_id,
        variant=wire.variant,
        fold=(wire.fold.index, wire.fold.of) if wire.HasField("fold") else None,
        seed=wire.seed,
        phase=phase(wire.phase) if wire.phase else None,
    )
