"""Groups of runs: submitting, following and ranking them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea import _convert, types
from fovea._requests import Requests, load_pandas
from fovea._spec import read_spec, settings_label
from fovea.errors import (
    AnswerTimeoutError,
    LimitReachedError,
    NotFoundError,
    SpecError,
    UnavailableError,
    WaitTimeoutError,
)
from fovea.v1 import common_pb2, groups_pb2, groups_pb2_grpc

if TYPE_CHECKING:
    import pandas

#: Groups requested at a time.
_PAGE = 100
#: Columns of a frame of epochs that are figures of an evaluation.
_FIGURES = ("loss", "accuracy", "auc", "sensitivity", "specificity", "kappa", "samples", "positives")


class Groups(Requests):
    """The requests about groups. A `Client` has them, too."""

    def submit_group(
        self,
        spec: Mapping[str, Any] | str | Path,
        *,
        variants: Sequence[Mapping[str, Any]] = (),
        folds: int = 0,
        seeds: Iterable[int] = (),
        selection: types.Selection | None = None,
        **overrides: Any,
    ) -> types.Group:
        """Submits a run for each variant, fold and seed, 2 to 100 in all: all of them are accepted or none.

        `spec` and `overrides` are as for `submit`. Each of `variants` is what it sets over them, with keys as there:
        `{"train.learning_rate": 0.003, "train.batch": 8}`; none: there is one, the spec as it is. `folds`: 2 to 100, or 0.
        `seeds`: none: that of the spec.

            rates, batches = (0.0005, 0.001, 0.002), (8, 16)
            client.submit_group(
                "run.toml",
                variants=[{"train.learning_rate": r, "train.batch": b} for r, b in itertools.product(rates, batches)],
                folds=3,
                selection=fovea.Selection(halving=(3, 6)),
            )

        Raises SpecError for wrong keys and types, InvalidRequestError for what cannot be, such as a variant that is there twice,
        PreconditionError if a run could not train, NotFoundError if the coordinator has no such dataset.
        """
        request = groups_pb2.SubmitGroupRequest(spec=read_spec(spec, overrides), folds=folds, seeds=seeds)
        for number, settings in enumerate(variants, 1):
            for key in ("name", "seed"):
                if key in settings:
                    raise SpecError(f"variant {number}: {key}: a group gives its runs their names, and `seeds` their seeds")
            try:
                variant = read_spec(spec, overrides, settings)
            except SpecError as error:
                raise SpecError(f"variant {number}: {error}") from error
            request.variants.add(label=settings_label(settings), spec=variant)
        if selection is not None:
            request.selection.CopyFrom(_selection(selection))
        return self._group(lambda stub, **how: stub.Submit(request, **how))

    def group(self, group_id: str) -> types.Group:
        """A group as it is now."""
        request = groups_pb2.GetGroupRequest(group_id=group_id)
        return self._group(lambda stub, **how: stub.Get(request, **how))

    def groups(self) -> list[types.Group]:
        """All groups, newest first."""
        found: list[types.Group] = []
        token = ""
        while True:
            request = groups_pb2.ListGroupsRequest(page_size=_PAGE, page_token=token)
            page: groups_pb2.ListGroupsResponse = self._ask(
                lambda stub, r=request, **how: stub.List(r, **how), groups_pb2_grpc.GroupsStub
            )
            found.extend(map(_convert.group, page.groups))
            token = page.next_page_token
            if not token:
                return found

    def cancel_group(self, group_id: str) -> types.Group:
        """Ends all runs of a group that have not ended, each at its next step boundary, with a checkpoint. PreconditionError if all
        have ended."""
        request = groups_pb2.CancelGroupRequest(group_id=group_id)
        return self._group(lambda stub, **how: stub.Cancel(request, **how))

    def watch_group(
        self, group_id: str, *, interval: float = 1.0, timeout: float | None = None, give_up: float = 300.0
    ) -> Iterator[types.GroupEvent]:
        """Follows a group until it is at rest (`Group.is_at_rest`): first the group and its runs as they are, then what changes.

        It asks the coordinator every `interval` seconds, and goes on when that is away for a while. No epoch is lost or reported
        twice. The last event is a GroupUpdated of the group at rest.

        Raises WaitTimeoutError after `timeout` seconds in all, and UnavailableError when nobody has answered for `give_up` seconds.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        heard, attempt = time.monotonic(), 0
        known: dict[str, types.Run] = {}
        shown: types.Group | None = None
        while True:
            try:
                group = self.group(group_id)
                runs = self._runs_with_news(group, known)
            except (UnavailableError, AnswerTimeoutError, LimitReachedError) as error:
                if shown is None:
                    raise
                if time.monotonic() - heard >= give_up:
                    error.args = (f"{error}; gave up after {give_up:.0f} s. The group may well continue: watch it again",)
                    raise
                attempt += 1
                yield types.Reconnecting(str(error), attempt, interval)
            else:
                heard, attempt = time.monotonic(), 0
                if shown is None:
                    yield types.GroupUpdated(group)
                for run in runs:
                    yield from _news(known.get(run.id), run)
                    known[run.id] = run
                if group.is_at_rest:
                    if shown is not None and shown != group:
                        yield types.GroupUpdated(group)
                    return
                if shown is not None and shown != group:
                    yield types.GroupUpdated(group)
                shown = group
            if time.monotonic() + interval > end:
                time.sleep(max(0.0, end - time.monotonic()))
                raise WaitTimeoutError(f"group {group_id} was not at rest within {timeout:g} s; it goes on")
            time.sleep(interval)

    def wait_group(self, group_id: str, *, timeout: float | None = None) -> types.Group:
        """Waits until a group is at rest, and returns it. Raises WaitTimeoutError after `timeout` seconds."""
        for _ in self.watch_group(group_id, timeout=timeout):
            pass
        return self.group(group_id)

    def group_metrics(self, group_id: str) -> pandas.DataFrame:
        """The evaluated epochs of the runs of a group, a row each. Needs pandas.

        Columns: `run`, `variant` (from 1, as the command line counts: `Group.variants[variant - 1]`), `fold` (from 1; <NA> without
        folds), `seed`, `epoch` (from 0), and those of `metrics`.
        """
        group = self.group(group_id)
        columns = ["run", "variant", "fold", "seed"]
        rows = [
            ({"run": of.run_id, "variant": of.variant + 1, "fold": of.fold and of.fold[0], "seed": of.seed}, run.epochs)
            for of, run in self._runs_of(group)
        ]
        frame = epochs_frame(rows, columns)
        typed: pandas.DataFrame = frame.astype({"variant": "int64", "fold": "Int64", "seed": "uint64"})
        return typed

    def ranking(self, group_id: str) -> pandas.DataFrame:
        """The variants of a group, the best first, as `fovea group show` ranks them: those of which all runs came furthest, of these
        those that miss no run, and then by the mean over their runs. Needs pandas.

        Index: `place`, from 1. Columns: `variant` (from 1, as the command line counts: `Group.variants[variant - 1]`), `label` (what
        it sets), `epochs` (that each of the counted runs has done), `mean` and `deviation` (of the validation metric after these:
        that of the selection, else AUC; deviation with runs - 1 in the denominator; NaN where there is none), `runs` (in which the
        metric is known; of runs that failed, were cancelled or removed only where there are no others), `of` (its runs as they were
        submitted), `reason` (why it goes no further).

        The best of many variants looks better than it is on the photographs that it was chosen by.
        """
        pd = load_pandas()
        group = self.group(group_id)
        by = group.selection.metric if group.selection else "auc"
        there = {member.run_id: run for member, run in self._runs_of(group)}
        standings = [
            _standing([there.get(of.run_id) for of in group.runs if of.variant == at], by)
            for at in range(max(1, len(group.variants)))
        ]
        labels = group.variants or ("",)
        rows = [
            {"variant": at + 1, "label": labels[at]} | standings[at][1]
            for at in sorted(range(len(standings)), key=lambda at: standings[at][0])
        ]
        index = pd.RangeIndex(1, len(rows) + 1, name="place")
        columns = ["variant", "label", "epochs", "mean", "deviation", "runs", "of", "reason"]
        frame: pandas.DataFrame = pd.DataFrame(rows, columns=columns, index=index)
        return frame

    def _group(self, call: Any) -> types.Group:
        answer: groups_pb2.Group = self._ask(call, groups_pb2_grpc.GroupsStub)
        return _convert.group(answer)

    def _runs_with_news(self, group: types.Group, known: Mapping[str, types.Run]) -> list[types.Run]:
        """The runs that may have changed: of a group at rest all of them, because one that had ended may have been resumed and have
        ended again since it was asked for."""
        runs = []
        for member in group.runs:
            if member.phase is not None and (group.is_at_rest or _may_change(member, known.get(member.run_id))):
                try:
                    runs.append(self.run(member.run_id))
                except NotFoundError:
                    # It was removed just now; the next answer about the group says so.
                    continue
        return runs

    def _runs_of(self, group: types.Group) -> Iterator[tuple[types.GroupMember, types.Run]]:
        """The runs that are there."""
        for member in group.runs:
            if member.phase is not None:
                yield member, self.run(member.run_id)


def _selection(given: types.Selection) -> groups_pb2.Selection:
    names = {"auc": common_pb2.BEST_BY_AUC, "kappa": common_pb2.BEST_BY_KAPPA, "loss": common_pb2.BEST_BY_LOSS}
    if given.metric not in names:
        raise SpecError(f"selection.metric: {given.metric!r} is not one of {', '.join(names)}")
    return groups_pb2.Selection(
        by=names[given.metric],
        after_epochs=given.halving,
        keep_one_of=given.keep_one_of if given.halving else 0,
        patience=given.patience or 0,
    )


def _may_change(member: types.GroupMember, known: types.Run | None) -> bool:
    """Whether a run is to be asked for while the group is not at rest: not if it has ended as it had. One that is paused may have gone
    on and paused again."""
    return known is None or known.phase is not member.phase or not known.phase.has_ended


def _news(known: types.Run | None, run: types.Run) -> Iterator[types.GroupEvent]:
    """What has changed, in the order in which it happened: a run is evaluated after it began to run, and ends or pauses after that."""
    reported = {} if known is None else {epoch.epoch: epoch for epoch in known.epochs}
    # A resume from an older checkpoint repeats epochs; those are reported again if their results differ.
    news: list[types.GroupEvent] = [
        types.MemberEvaluated(run.id, epoch) for epoch in run.epochs if reported.get(epoch.epoch) != epoch
    ]
    if known is None or (known.phase, known.reason) != (run.phase, run.reason):
        began = run.phase is types.Phase.RUNNING and (known is None or known.phase is not run.phase)
        news.insert(0 if began else len(news), types.MemberUpdated(run))
    yield from news


def _standing(runs: list[types.Run | None], by: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How far a variant is, and its metric there, after a key that sorts the best first. None is a run that was removed. A run that
    failed does not hide how far the others came, but it keeps its variant behind those whose runs all came further."""
    done = [0 if run is None else _epochs_done(run) for run in runs]
    evaluated = [run for run in runs if run is not None and _epochs_done(run)]
    counted = [run for run in evaluated if not _is_out(run)] or evaluated
    epochs = min(map(_epochs_done, counted), default=0)
    merits = [types.merit_of(run.epochs[epochs - 1].validation, by) for run in counted]
    values = [-merit if by == "loss" else merit for merit in merits if merit is not None]
    mean = statistics.fmean(values) if values else math.nan
    merit = -math.inf if math.isnan(mean) else -mean if by == "loss" else mean
    key = (-min(done, default=0), epochs == 0, any(map(_is_out, runs)), -merit)
    return key, {
        "epochs": epochs,
        "mean": mean,
        "deviation": statistics.stdev(values) if len(values) > 1 else math.nan,
        "runs": len(values),
        "of": len(runs),
        "reason": next((run.reason for run in runs if run is not None and run.reason and not _goes_on(run)), ""),
    }


def _is_out(run: types.Run | None) -> bool:
    return run is None or run.phase in (types.Phase.FAILED, types.Phase.CANCELLED)


def _goes_on(run: types.Run) -> bool:
    return not run.has_ended and run.phase is not types.Phase.PAUSED


def _epochs_done(run: types.Run) -> int:
    """Without those behind the step from which it was resumed."""
    return sum(run.progress is None or epoch.step <= run.progress.step for epoch in run.epochs)


def epochs_frame(
    runs: list[tuple[dict[str, Any], tuple[types.EpochResult, ...]]], before: list[str]
) -> pandas.DataFrame:
    """Evaluated epochs as a frame, each with what is known of its run in the columns `before`."""
    pd = load_pandas()
    rows = [
        of
        | {"epoch": epoch.epoch, "step": epoch.step, "train_loss": epoch.train_loss}
        | {column: getattr(epoch.validation, column) for column in _FIGURES}
        for of, epochs in runs
        for epoch in epochs
    ]
    figures = ["epoch", "step", "train_loss", *_FIGURES]
    whole = ("epoch", "step", "samples", "positives")
    kinds = {column: "int64" if column in whole else "float64" for column in figures}
    frame: pandas.DataFrame = pd.DataFrame(rows, columns=[*before, *figures]).astype(kinds)
    return frame
