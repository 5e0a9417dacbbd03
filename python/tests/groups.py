#!/usr/bin/env python3
"""Drives groups of runs against a cluster of one worker with the dataset "synthetic"; tests/tests/cluster/python.rs starts both.

    groups.py ADDRESS    Last it prints the ranking of a sweep: the group's id, then for each variant its number, epochs and mean
"""

import copy
import itertools
import math
import sys

import numpy as np
from drive import SPEC, raises

import fovea


# A run stops at the step boundary after a rung at the earliest, on a busy machine some epochs later, and never at the end.
EPOCHS = 12


def main(address: str) -> None:
    with fovea.Client(address, timeout=30) as client:
        mistakes(client)
        cancelled(client)
        sweep(client)


def sweep(client: fovea.Client) -> None:
    before = copy.deepcopy(SPEC)
    rates, batches = (0.0005, 0.002), (6,)
    group = client.submit_group(
        SPEC,
        variants=[{"train.learning_rate": rate, "train": {"batch": batch}} for rate, batch in itertools.product(rates, batches)],
        folds=2,
        selection=fovea.Selection(halving=(1,), keep_one_of=2),
        name="pysweep",
        train={"epochs": EPOCHS},
    )
    assert SPEC == before
    assert group.variants == ("train.batch=6 train.learning_rate=0.0005", "train.batch=6 train.learning_rate=0.002"), group
    assert group.selection == fovea.Selection("auc", (1,), 2, None), group.selection
    assert [(m.variant, m.fold, m.seed) for m in group.runs] == [(0, (1, 2), 3), (0, (2, 2), 3), (1, (1, 2), 3), (1, (2, 2), 3)]
    assert not group.is_at_rest and not group.has_ended
    assert client.run(group.runs[3].run_id).spec["train"] | {"epochs": EPOCHS, "batch": 6, "learning_rate": 0.002} == client.run(
        group.runs[3].run_id
    ).spec["train"]
    with raises(fovea.WaitTimeoutError, group.id, "0.2 s"):
        list(client.watch_group(group.id, interval=0.1, timeout=0.2))

    epochs: list[tuple[str, int]] = []
    last: fovea.GroupEvent | None = None
    for event in client.watch_group(group.id, interval=0.2, timeout=300):
        assert str(event)
        last = event
        if isinstance(event, fovea.MemberEvaluated):
            epochs.append((event.run_id, event.result.epoch))
    assert isinstance(last, fovea.GroupUpdated) and last.group == client.group(group.id), last
    group = last.group
    assert group.is_at_rest and not group.has_ended, group
    # Every epoch of every run was reported once.
    runs = [client.run(member.run_id) for member in group.runs]
    assert sorted(epochs) == sorted((run.id, epoch.epoch) for run in runs for epoch in run.epochs), epochs
    phases = sorted(run.phase.value for run in runs)
    assert phases == ["completed", "completed", "paused", "paused"], phases
    assert client.wait_group(group.id, timeout=30) == group

    frame = client.group_metrics(group.id)
    assert len(frame) == sum(len(run.epochs) for run in runs) and list(frame["run"].unique()) == [run.id for run in runs], frame
    assert list(frame["fold"].unique()) == [1, 2] and set(frame["seed"]) == {3}
    ranking = client.ranking(group.id)
    assert list(ranking.index) == [1, 2] and ranking["epochs"].iloc[0] == EPOCHS > ranking["epochs"].iloc[1] >= 1, ranking
    for row in ranking.itertuples():
        of = frame[(frame["variant"] == row.variant) & (frame["epoch"] == row.epochs - 1)]
        assert math.isclose(row.mean, float(np.mean(of["auc"])), abs_tol=1e-12), (row, of)
        assert math.isclose(row.deviation, float(np.std(of["auc"], ddof=1)), abs_tol=1e-12), (row, of)
        assert row.label == group.variants[row.variant - 1] and (row.runs, row.of) == (2, 2)
    assert ranking["reason"].iloc[0] == "" and ranking["reason"].iloc[1].startswith("dropped after epoch 1"), ranking
    assert client.groups()[0].id == group.id
    print(group.id, *(f"{row.variant} {row.epochs} {row.mean:.3f}" for row in ranking.itertuples()), sep="\n")


def cancelled(client: fovea.Client) -> None:
    group = client.submit_group(SPEC, seeds=[1, 2], name="pyseeds", train={"epochs": 400})
    assert group.variants == () and group.selection is None
    assert [member.seed for member in group.runs] == [1, 2] and group.runs[0].fold is None
    client.cancel_group(group.id)
    ended = client.wait_group(group.id, timeout=60)
    assert ended.has_ended and {member.phase for member in ended.runs} == {fovea.Phase.CANCELLED}, ended
    with raises(fovea.PreconditionError, "nothing to cancel"):
        client.cancel_group(group.id)
    empty = client.ranking(group.id)
    assert len(empty) == 1 and empty["label"].iloc[0] == "", empty


def mistakes(client: fovea.Client) -> None:
    before = [run.id for run in client.runs()]
    with raises(fovea.SpecError, "variant 2: ", "train.rate: there is no such key"):
        client.submit_group(SPEC, variants=[{"train.batch": 8}, {"train.rate": 1.0}])
    with raises(fovea.SpecError, "variant 1: seed: ", "`seeds`"):
        client.submit_group(SPEC, variants=[{"seed": 8}], folds=2)
    with raises(fovea.SpecError, "selection.metric: 'acc' is not one of auc, kappa, loss"):
        client.submit_group(SPEC, folds=2, selection=fovea.Selection(metric="acc", patience=2))
    with raises(fovea.InvalidRequestError, "there twice"):
        client.submit_group(SPEC, variants=[{"train.batch": 8}, {"train": {"batch": 8}}])
    with raises(fovea.InvalidRequestError, "1 folds are not possible"):
        client.submit_group(SPEC, folds=1)
    with raises(fovea.InvalidRequestError, "a group has 2 runs or more"):
        client.submit_group(SPEC)
    for ask in (client.group, client.cancel_group, client.wait_group, client.ranking, client.group_metrics):
        with raises(fovea.NotFoundError, "no group py-g99"):
            ask("py-g99")
    # What was refused has left nothing.
    assert [run.id for run in client.runs()] == before


if __name__ == "__main__":
    main(sys.argv[1])
