"""The client: one method for each request that people make of the coordinator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import grpc
import numpy as np

from fovea import _convert, _download, types
from fovea._groups import Groups, epochs_frame
from fovea._requests import DEFAULT_COORDINATOR as DEFAULT_COORDINATOR
from fovea._requests import load_pandas
from fovea._spec import read_spec, word
from fovea._stream import Stream
from fovea._watch import watch as follow
from fovea.errors import FoveaError, NotFoundError, RunCancelledError, RunFailedError
from fovea.v1 import (
    checkpoints_pb2,
    checkpoints_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    common_pb2,
    runs_pb2,
    runs_pb2_grpc,
)

if TYPE_CHECKING:
    import pandas

#: Runs requested at a time.
_PAGE = 200

_Name = str | os.PathLike[str]


class Client(Groups):
    """A client of a coordinator.

        with fovea.Client("http://127.0.0.1:7070") as client:
            run = client.submit("run.toml", train={"epochs": 3})
            print(client.wait(run.id).phase)

    `address`: `https://host:port` with TLS, `http://host:port` without, `host:port`, or `file:PATH` of a file that holds one of
    these, as the coordinator's `--address-file` writes it. Default: FOVEA_COORDINATOR, else http://127.0.0.1:7070.

    With TLS either `certificate`, `key` and `ca` (files), or `token_file`, which names the CA itself. Default:
    FOVEA_TLS_CERTIFICATE, FOVEA_TLS_KEY, FOVEA_TLS_CA, or FOVEA_TOKEN_FILE.

    `timeout`: the longest time for one answer, seconds; streams are not bound by it.

    The connection is made with the first request. A client can be used by several threads. Every method raises a
    `CoordinatorError` with the coordinator's text where it refuses, and `UnavailableError` where nobody answers.
    """

    def __enter__(self) -> Client:
        return self

    # Runs. `run` and what a connection needs are in `_requests`, groups of runs in `_groups`.

    def submit(self, spec: Mapping[str, Any] | str | Path, **overrides: Any) -> types.Run:
        """Submits a run: a dict with the keys of run.toml, or the path of such a file. When this returns, the run is in the
        coordinator's journal.

        `overrides` go before the spec: `train={"epochs": 3}`, `name="long"`, or `**{"train.epochs": 3}`. Weights are named as
        the coordinator stores them; a file must have been added (`fovea weights add`).

        Raises SpecError for wrong keys and types, InvalidRequestError for values that cannot be, NotFoundError if the
        coordinator has no such dataset. After an UnavailableError or AnswerTimeoutError the run may have been accepted: look
        at `runs()`.
        """
        request = runs_pb2.SubmitRequest(spec=read_spec(spec, overrides))
        answer: runs_pb2.SubmitResponse = self._ask(lambda stub, **how: stub.Submit(request, **how))
        return _convert.run(answer.run)

    def runs(self) -> list[types.Run]:
        """All runs, newest first."""
        found: list[types.Run] = []
        token = ""
        while True:
            request = runs_pb2.ListRunsRequest(page_size=_PAGE, page_token=token)
            page: runs_pb2.ListRunsResponse = self._ask(lambda stub, r=request, **how: stub.List(r, **how))
            found.extend(map(_convert.run, page.runs))
            token = page.next_page_token
            if not token:
                return found

    def cancel(self, run_id: str) -> types.Run:
        """Ends a run at its next step boundary, with a checkpoint. PreconditionError if it has ended."""
        request = runs_pb2.CancelRequest(run_id=run_id)
        return self._changed(lambda stub, **how: stub.Cancel(request, **how))

    def pause(self, run_id: str) -> types.Run:
        """Pauses a run at its next step boundary, with a checkpoint. PreconditionError if it has ended or is paused."""
        request = runs_pb2.PauseRequest(run_id=run_id)
        return self._changed(lambda stub, **how: stub.Pause(request, **how))

    def set_priority(self, run_id: str, priority: Literal["low", "normal", "high"]) -> types.Run:
        """Sets the priority of a run, at once. ValueError if there is no such priority, PreconditionError if the run has ended."""
        request = runs_pb2.SetPriorityRequest(run_id=run_id, priority=_convert.priority(priority))
        return self._changed(lambda stub, **how: stub.SetPriority(request, **how))

    def resume(self, run_id: str, step: int | None = None) -> types.Run:
        """Queues a paused, failed or cancelled run again, to continue from the checkpoint of `step`, or the newest."""
        request = runs_pb2.ResumeRequest(run_id=run_id, checkpoint_step=step)
        return self._changed(lambda stub, **how: stub.Resume(request, **how))

    def watch(self, run_id: str, *, timeout: float | None = None, give_up: float = 300.0) -> Iterator[types.Event]:
        """Follows a run until it has completed, failed or been cancelled: first the run as it is, then its events.

        It reconnects by itself, also to a coordinator that was restarted. No epoch and no checkpoint is lost or reported
        twice then; steps and notes of that time are not reported. It goes on while the run is paused.

        Raises WaitTimeoutError after `timeout` seconds in all, and UnavailableError when nothing was received for `give_up`
        seconds.
        """
        return follow(lambda left: _Watch(self._open(), self._metadata(), run_id, left), run_id, self.address, timeout, give_up)

    def wait(self, run_id: str, *, timeout: float | None = None) -> types.Run:
        """Waits until a run has completed, and returns it.

        Raises RunFailedError or RunCancelledError if that is how it ended, WaitTimeoutError after `timeout` seconds. It goes
        on waiting while the run is paused.
        """
        run: types.Run | None = None
        for event in self.watch(run_id, timeout=timeout):
            if isinstance(event, types.RunUpdated):
                run = event.run
        assert run is not None, "a watch begins with the run"
        if run.phase is types.Phase.FAILED:
            raise RunFailedError(f"run {run_id} failed: {run.reason}")
        if run.phase is types.Phase.CANCELLED:
            raise RunCancelledError(f"run {run_id} was cancelled")
        return run

    def _changed(self, call: Callable[..., runs_pb2.Run]) -> types.Run:
        return _convert.run(self._ask(call))

    # Results

    def metrics(self, run_id: str) -> pandas.DataFrame:
        """The evaluated epochs of a run, a row each. Needs pandas.

        Index: `epoch`, from 0. Columns: `step` (committed steps at its end), `train_loss` and `loss` (nats; training and
        validation), `accuracy`, `auc`, `sensitivity`, `specificity` (0 to 1), `kappa` (-1 to 1), `samples`, `positives`. What
        is undefined is NaN.
        """
        frame = epochs_frame([({}, self.run(run_id).epochs)], [])
        metrics: pandas.DataFrame = frame.set_index("epoch")
        return metrics

    def losses(self, run_id: str) -> pandas.DataFrame:
        """The mean training loss of every committed step, as the journal has it. Needs pandas.

        Index: `step`, from 1. Column: `loss`, nats.
        """
        pd = load_pandas()
        request = runs_pb2.LossesRequest(run_id=run_id)
        steps: list[int] = []
        losses: list[float] = []
        for part in self._stream(lambda stub, **how: stub.Losses(request, **how), runs_pb2_grpc.RunsStub):
            steps.extend(range(part.first_step, part.first_step + len(part.losses)))
            losses.extend(part.losses)
        index = pd.Index(steps, name="step", dtype="int64")
        frame: pandas.DataFrame = pd.DataFrame({"loss": np.array(losses, dtype=np.float64)}, index=index)
        return frame

    def scores(self, run_id: str, step: int | None = None) -> types.Scores:
        """The probabilities that a run's model gave at the end of an epoch, or in an evaluation.

        `step`: committed steps at the end of that epoch; default: the newest evaluated one. NotFoundError if it was not
        evaluated.
        """
        if step is None:
            epochs = self.run(run_id).epochs
            if not epochs:
                raise NotFoundError("NOT_FOUND", f"no epoch of run {run_id} was evaluated yet")
            step = epochs[-1].step
        request = runs_pb2.ScoresRequest(run_id=run_id, step=step)
        info = runs_pb2.ScoresInfo()
        probabilities: list[float] = []
        for part in self._stream(lambda stub, **how: stub.Scores(request, **how), runs_pb2_grpc.RunsStub):
            if part.HasField("info"):
                info = part.info
            probabilities.extend(part.probabilities)
        if len(probabilities) != info.samples * info.classes:
            raise FoveaError(
                f"{len(probabilities)} probabilities of run {run_id} arrived, and {info.samples} samples of {info.classes} "
                "classes were announced"
            )
        return types.Scores(
            dataset_digest=info.dataset_digest,
            part=word(common_pb2.Part.DESCRIPTOR, info.part),
            epoch=info.epoch,
            step=step,
            probabilities=np.array(probabilities, dtype=np.float32).reshape(info.samples, info.classes),
        )

    def checkpoints(self, run_id: str) -> list[types.Checkpoint]:
        """The stored checkpoints of a run, in order of their steps."""
        request = checkpoints_pb2.ListCheckpointsRequest(run_id=run_id)
        answer: checkpoints_pb2.ListCheckpointsResponse = self._ask(
            lambda stub, **how: stub.List(request, **how), checkpoints_pb2_grpc.CheckpointsStub
        )
        return list(map(_convert.checkpoint, answer.checkpoints))

    def download_checkpoint(
        self, run_id: str, step: int | Literal["newest", "best"], path: _Name, *, overwrite: bool = False
    ) -> types.Checkpoint:
        """Fetches a checkpoint to the file `path`: that of a step, the newest, or the best by the run's
        `checkpoint.keep_best`.

        Size and SHA-256 are compared with what the coordinator announces; on any error nothing is left behind, and `path` stays
        as it was.

        Raises FileExistsError if `path` is there, unless `overwrite`; NotFoundError if there is no such checkpoint;
        DownloadError if the bytes differ; CorruptError if the coordinator found its own file to be corrupt.
        """
        target = Path(path)
        _download.check_target(target, overwrite)
        if not isinstance(step, int):
            if step not in ("newest", "best"):
                raise ValueError(f"step is {step!r}; give a number, 'newest' or 'best'")
            run = self.run(run_id)
            found = run.newest_checkpoint if step == "newest" else run.best_checkpoint
            if found is None:
                raise NotFoundError("NOT_FOUND", f"run {run_id} has no {step} checkpoint")
            step = found.step
        request = checkpoints_pb2.GetCheckpointRequest(run_id=run_id, step=step)
        parts = self._stream(lambda stub, **how: stub.Get(request, **how), checkpoints_pb2_grpc.CheckpointsStub)
        with closing(parts):
            first = next(parts, None)
            if first is None or not first.HasField("info"):
                raise FoveaError("the stream of a checkpoint does not begin with its description")
            info = _convert.checkpoint(first.info)
            what = f"the checkpoint of run {run_id} at step {info.step}"
            data = (part.data for part in parts)
            _download.write_verified(target, data, info.size, info.sha256, overwrite, what)
        return info

    # The cluster

    def queue(self) -> list[types.QueuedRun]:
        """The queued runs, in the order in which they get workers."""
        answer: cluster_pb2.ListQueueResponse = self._ask(
            lambda stub, **how: stub.ListQueue(cluster_pb2.ListQueueRequest(), **how), cluster_pb2_grpc.ClusterStub
        )
        return list(map(_convert.queued, answer.runs))

    def workers(self) -> list[types.Worker]:
        """The connected workers, in the order in which they joined."""
        answer: cluster_pb2.ListWorkersResponse = self._ask(
            lambda stub, **how: stub.ListWorkers(cluster_pb2.ListWorkersRequest(), **how), cluster_pb2_grpc.ClusterStub
        )
        return list(map(_convert.worker, answer.workers))


class _Watch(Stream):
    """An open watch on a connection of its own."""

    def __init__(self, channel: grpc.Channel, metadata: list[tuple[str, str]], run_id: str, timeout: float | None) -> None:
        request = runs_pb2.WatchRequest(run_id=run_id)
        super().__init__(runs_pb2_grpc.RunsStub(channel).Watch(request, timeout=timeout, metadata=metadata))
        self._channel = channel

    def close(self) -> None:
        super().close()
        self._channel.close()
