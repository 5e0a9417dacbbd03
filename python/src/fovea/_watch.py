"""Following a run across broken connections and restarts of the coordinator.

Each connection begins with a snapshot of the run, all epochs and checkpoints included; what happened while the connection was
broken is taken from there, and what was reported before is left out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

import grpc

from fovea import _convert, types
from fovea.errors import (
    AddressError,
    AnswerTimeoutError,
    CoordinatorError,
    LimitReachedError,
    UnavailableError,
    WaitTimeoutError,
    from_rpc,
)
from fovea.v1 import runs_pb2

#: Codes after which another attempt may succeed.
_TEMPORARY = ("UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED")
#: First and longest wait between attempts, seconds: while the coordinator is away, and at its limit of watches.
_AWAY, _LIMIT = (0.2, 0.5), (2.0, 15.0)


class Stream(Protocol):
    """An open watch."""

    def __iter__(self) -> Iterator[runs_pb2.RunEvent]: ...
    def close(self) -> None: ...


def watch(
    connect: Callable[[float | None], Stream], run_id: str, address: str, timeout: float | None, give_up: float
) -> Iterator[types.Event]:
    """The events of a run. `connect` opens a stream of at most so many seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    reported = _Reported()
    last_message, attempt, began = time.monotonic(), 0, False
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise _late(run_id, timeout)
        problem: CoordinatorError
        try:
            with closing(connect(left)) as stream:
                for message in stream:
                    began, attempt, last_message = True, 0, time.monotonic()
                    yield from reported.take(message)
                    if message.HasField("run") and _convert.phase(message.run.phase).has_ended:
                        return
            problem = UnavailableError("UNAVAILABLE", "the stream ended before the run")
        except grpc.RpcError as error:
            problem = from_rpc(error, address)
        except AddressError as error:
            # The coordinator writes its file of the address anew when it starts.
            if not began:
                raise
            problem = UnavailableError("UNAVAILABLE", str(error))
        except UnavailableError as error:
            problem = error
        if deadline is not None and isinstance(problem, AnswerTimeoutError) and time.monotonic() >= deadline - 0.05:
            raise _late(run_id, timeout)
        at_limit = isinstance(problem, LimitReachedError)
        if problem.code not in _TEMPORARY or not (began or at_limit):
            raise problem
        if time.monotonic() - last_message >= give_up:
            problem.args = (f"{problem}; gave up after {give_up:.0f} s. The run may well continue: watch it again",)
            raise problem
        first, longest = _LIMIT if at_limit else _AWAY
        attempt += 1
        # Jitter keeps the watchers of a restarted coordinator from returning all at once.
        wait = min(first * 2 ** min(attempt - 1, 10), longest) * random.uniform(1, 2)
        if deadline is not None:
            wait = max(0.0, min(wait, deadline - time.monotonic()))
        yield types.Reconnecting(str(problem), attempt, wait)
        time.sleep(wait)


def _late(run_id: str, timeout: float | None) -> WaitTimeoutError:
    return WaitTimeoutError(f"run {run_id} did not end within {timeout:g} s; it goes on")


class _Reported:
    """What was reported before."""

    def __init__(self) -> None:
        self.any = False
        # A resume from an older checkpoint repeats epochs; those are reported again if their results differ.
        self.epochs: dict[int, types.EpochResult] = {}
        # Digest by step: a checkpoint that was taken again has another one.
        self.checkpoints: dict[int, str] = {}

    def take(self, message: runs_pb2.RunEvent) -> Iterator[types.Event]:
        kind = message.WhichOneof("event")
        if kind == "run":
            yield from self.run(_convert.run(message.run))
        elif kind == "step":
            yield types.StepCommitted(_convert.step_report(message.step))
        elif kind == "epoch":
            yield from self.epoch(_convert.epoch_result(message.epoch))
        elif kind == "checkpoint":
            yield from self.checkpoint(_convert.checkpoint(message.checkpoint))
        elif kind == "note":
            yield types.Note(message.note)
        # Anything else is an event of a newer coordinator.

    def run(self, run: types.Run) -> Iterator[types.Event]:
        # The run comes first once; later what happened before its new phase does.
        if not self.any:
            yield types.RunUpdated(run)
        for epoch in run.epochs:
            yield from self.epoch(epoch)
            for closing_it in (c for c in run.checkpoints if c.step == epoch.step):
                yield from self.checkpoint(closing_it)
        for checkpoint in run.checkpoints:
            yield from self.checkpoint(checkpoint)
        if self.any:
            yield types.RunUpdated(run)
        self.any = True

    def epoch(self, epoch: types.EpochResult) -> Iterator[types.Event]:
        if self.epochs.get(epoch.epoch) != epoch:
            self.epochs[epoch.epoch] = epoch
            yield types.EpochEvaluated(epoch)

    def checkpoint(self, checkpoint: types.Checkpoint) -> Iterator[types.Event]:
        if self.checkpoints.get(checkpoint.step) != checkpoint.sha256:
            self.checkpoints[checkpoint.step] = checkpoint.sha256
            yield types.CheckpointStored(checkpoint)
