#!/usr/bin/env python3
"""Checks what needs no coordinator: specs, files under way, broken streams, a newer coordinator's messages. It ends with an error
where something is not as it should be.

    offline.py FOLDER       an empty folder
"""

import hashlib
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from drive import raises

import fovea
from fovea import _convert, _download, _groups, _pin, _spec, _stream, _watch
from fovea.v1 import common_pb2, runs_pb2


def specs() -> None:
    given = {"name": "a", "dataset": "d", "train.epochs": 3, "model": {"strategy": "linear_probe", "classes": 4}}
    spec = _spec.read_spec(given, {"train": {"batch": 8}, "model.labels": "any_dr", "priority": "high"})
    assert _spec.spec_to_dict(spec) == {
        "name": "a",
        "dataset": "d",
        "train": {"epochs": 3, "batch": 8},
        "model": {"strategy": "linear_probe", "classes": 2, "positive_from": 1, "frozen": []},
        "priority": "high",
    }
    assert spec.model.HasField("frozen")
    assert given["model"] == {"strategy": "linear_probe", "classes": 4}
    # Without weights nothing was learnt that could be frozen.
    for model, frozen in (({}, []), ({"weights": "w"}, None), ({"frozen": ["conv1/7x7_s2"]}, ["conv1/7x7_s2"])):
        spec = _spec.read_spec({"name": "a", "dataset": "d", "model": model}, {})
        assert _spec.spec_to_dict(spec)["model"].get("frozen") == frozen, model
    # What is not given stays unset: the coordinator has the defaults.
    assert not _spec.read_spec({"name": "a", "dataset": "d"}, {}).HasField("train")
    for values, said in (
        ({"train": 3}, "train: is a table"),
        ({"model": {"frozen": "conv1"}}, "model.frozen: 'conv1' is not a list"),
        ({"train": {"batch": 1.5}}, "train.batch: 1.5 is not a whole number"),
        ({"train": {"batch": 2**40}}, "train.batch: 1099511627776 is not a whole number"),
        ({"train": {"rotate": 1}}, "train.rotate: 1 is not True or False"),
        ({"evaluate": {"step": 1}}, "evaluate: there is no such key"),
    ):
        with raises(fovea.SpecError, said):
            _spec.read_spec({"name": "a", "dataset": "d"} | values, {})
    with raises(fovea.SpecError, "name: is missing", "dataset: is missing"):
        _spec.read_spec({}, {})
    learnt = _spec.read_spec({"name": "a", "dataset": "d"}, {"train": {"epochs": np.int64(3), "learning_rate": np.float32(0.5)}})
    assert (learnt.train.epochs, learnt.train.learning_rate) == (3, 0.5)
    # The example has every key.
    example = _spec.read_spec(Path(__file__).resolve().parents[2] / "deploy/run.toml", {})
    assert len(example.train.ListFields()) == len(common_pb2.TrainSpec.DESCRIPTOR.fields)
    # Every word of an enum goes there and back.
    for field in common_pb2.TrainSpec.DESCRIPTOR.fields:
        for number in field.enum_type.values_by_number if field.enum_type else ():
            if number:
                value = _spec.word(field.enum_type, number)
                back = _spec.read_spec({"name": "a", "dataset": "d", "train": {field.name: value}}, {})
                assert getattr(back.train, field.name) == number, value


def run_of_a_group(phase: int, *aucs: float, run_id: str = "r-1") -> fovea.Run:
    results = [
        common_pb2.EpochResult(epoch=n, step=n + 1, validation=common_pb2.Evaluation(auc=auc, confusion=[0] * 4, classes=2))
        for n, auc in enumerate(aucs)
    ]
    return _convert.run(runs_pb2.Run(id=run_id, phase=phase, epochs=results))  # type: ignore[arg-type]


def groups() -> None:
    done, best = (0.5, 0.6, 0.7), (0.5, 0.6, 0.99)
    completed, cancelled, paused = runs_pb2.PHASE_COMPLETED, runs_pb2.PHASE_CANCELLED, runs_pb2.PHASE_PAUSED
    variants: list[list[fovea.Run | None]] = [
        # Dropped; one of its runs was trained on, the other cancelled, or removed.
        [run_of_a_group(completed, *best), run_of_a_group(cancelled, 0.4)],
        [run_of_a_group(completed, *done), run_of_a_group(completed, *done)],
        [run_of_a_group(paused, 0.4), run_of_a_group(paused, 0.4)],
        [run_of_a_group(completed, *best), None],
    ]
    standings = [_groups._standing(runs, "auc") for runs in variants]
    assert sorted(range(4), key=lambda at: standings[at][0]) == [1, 2, 0, 3], standings
    told = [(of["epochs"], of["runs"], of["of"], of["mean"]) for _, of in standings]
    assert told == [(3, 1, 2, 0.99), (3, 2, 2, 0.7), (1, 2, 2, 0.4), (3, 1, 2, 0.99)], told
    # A run that began and was evaluated between two looks, and one that has ended.
    names = lambda known, run: [type(event).__name__ for event in _groups._news(known, run)]  # noqa: E731
    queued, running = run_of_a_group(runs_pb2.PHASE_QUEUED), run_of_a_group(runs_pb2.PHASE_RUNNING, 0.5)
    assert names(queued, running) == ["MemberUpdated", "MemberEvaluated"]
    assert names(running, run_of_a_group(completed, *done)) == ["MemberEvaluated"] * 2 + ["MemberUpdated"]


class Polled(_groups.Groups):
    """Groups of a coordinator that answers each poll with other runs. The last poll finds that no more is decided."""

    def __init__(self, *polls: dict[str, fovea.Run | None]) -> None:
        super().__init__("http://127.0.0.1:9")
        self.left = list(polls)
        self.now: dict[str, fovea.Run | None] = {}
        self.asked: list[str] = []

    def group(self, group_id: str) -> fovea.Group:
        self.now = self.left.pop(0)
        members = tuple(
            fovea.GroupMember(run_id, 0, None, 0, run.phase if run else fovea.Phase.COMPLETED) for run_id, run in self.now.items()
        )
        return fovea.Group(group_id, "g", None, "", (), None, bool(self.left), members)

    def run(self, run_id: str) -> fovea.Run:
        self.asked.append(run_id)
        run = self.now[run_id]
        if run is None:
            raise fovea.NotFoundError("NOT_FOUND", f"no run {run_id}")
        return run


def watched_groups() -> None:
    def runs(epochs: int) -> dict[str, fovea.Run | None]:
        """One is always paused and one has always failed when it is asked for: they went on meanwhile, and came to rest again."""
        paused, failed = runs_pb2.PHASE_PAUSED, runs_pb2.PHASE_FAILED
        aucs = [0.5] * epochs
        return {"p": run_of_a_group(paused, *aucs, run_id="p"), "f": run_of_a_group(failed, *aucs, run_id="f")}

    client = Polled(runs(1), runs(2), runs(3) | {"removed just now": None})
    events = list(client.watch_group("g-1", interval=0))
    for run_id in "p", "f":
        told = [event.result.epoch for event in events if isinstance(event, fovea.MemberEvaluated) and event.run_id == run_id]
        assert told == [0, 1, 2], (run_id, events)
    assert sum(isinstance(event, fovea.MemberUpdated) for event in events) == 2, events
    last = events[-1]
    assert isinstance(last, fovea.GroupUpdated) and last.group.is_at_rest, last
    # What has ended is asked for at the beginning and at the end.
    assert client.asked == ["p", "f", "p", "p", "f", "removed just now"], client.asked


def downloads(folder: Path) -> None:
    content, target = b"a checkpoint", folder / "file"
    digest = hashlib.sha256(content).hexdigest()

    def write(size: int = len(content), sha256: str = digest, overwrite: bool = False) -> None:
        _download.write_verified(target, iter([content[:5], content[5:]]), size, sha256, overwrite, "it")

    with raises(fovea.DownloadError, "12 bytes arrived, and 13 were announced"):
        write(size=13)
    with raises(fovea.DownloadError, "SHA-256"):
        write(sha256=digest[::-1])
    assert os.listdir(folder) == []
    for umask, mode in ((0o077, 0o600), (0o022, 0o644)):
        target.unlink(missing_ok=True)
        before = os.umask(umask)
        write()
        os.umask(before)
        assert target.read_bytes() == content and target.stat().st_mode & 0o777 == mode, umask
    with raises(FileExistsError):
        write()
    target.write_bytes(b"old")
    with raises(fovea.DownloadError):
        write(size=13, overwrite=True)
    assert target.read_bytes() == b"old"
    write(overwrite=True)
    assert target.read_bytes() == content and os.listdir(folder) == ["file"]


class Stream:
    """Messages, and then an end."""

    def __init__(self, *messages: runs_pb2.RunEvent) -> None:
        self.messages, self.closed = messages, False

    def __iter__(self) -> Iterator[runs_pb2.RunEvent]:
        yield from self.messages

    def close(self) -> None:
        self.closed = True


def run_event(phase: int, epochs: int) -> runs_pb2.RunEvent:
    results = [common_pb2.EpochResult(epoch=n, step=n + 1) for n in range(epochs)]
    stored = [common_pb2.Checkpoint(step=n + 1, sha256=str(n)) for n in range(epochs)]
    return runs_pb2.RunEvent(run=runs_pb2.Run(id="r-1", phase=phase, epochs=results, checkpoints=stored))  # type: ignore[arg-type]


def watches() -> None:
    newer = runs_pb2.RunEvent()
    streams = [
        Stream(run_event(runs_pb2.PHASE_RUNNING, 1), newer),
        Stream(run_event(runs_pb2.PHASE_RUNNING, 2), runs_pb2.RunEvent(note="a: b")),
        Stream(run_event(runs_pb2.PHASE_COMPLETED, 3)),
    ]
    rest = iter(streams)
    events = list(_watch.watch(lambda _: next(rest), "r-1", "there", None, 60))
    names = [type(event).__name__ for event in events]
    one = ["EpochEvaluated", "CheckpointStored"]
    assert names == ["RunUpdated", *one, "Reconnecting", *one, "RunUpdated", "Note", "Reconnecting", *one, "RunUpdated"], names
    assert all(stream.closed for stream in streams)
    assert str(events[0]) == "r-1 running" and str(events[7]) == "a: b" and str(events[-1]) == "r-1 completed"
    assert str(events[1]) == "epoch 1, 0 validation samples: loss 0.0000" and str(events[2]) == "checkpoint 1 stored, 0.0 MB"
    assert str(events[3]).startswith("the stream ended before the run; attempt 1 in 0."), events[3]
    # An attempt that failed is followed by another, and each waits longer.
    calls = iter([Stream(run_event(runs_pb2.PHASE_RUNNING, 0)), None, None, Stream(run_event(runs_pb2.PHASE_FAILED, 0))])

    def connect(_: float | None) -> Stream:
        stream = next(calls)
        if stream is None:
            raise fovea.UnavailableError("UNAVAILABLE", "nobody answers")
        return stream

    again = [event for event in _watch.watch(connect, "r-1", "there", None, 60) if isinstance(event, fovea.Reconnecting)]
    assert [event.attempt for event in again] == [1, 2, 3] and "nobody answers" in again[1].reason, again
    # Nobody waits for a coordinator that was never there, or for ever.
    calls = iter([None])
    with raises(fovea.UnavailableError, "nobody answers"):
        list(_watch.watch(connect, "r-1", "there", None, 60))
    calls = iter([Stream(run_event(runs_pb2.PHASE_RUNNING, 0))] + [None] * 100)
    with raises(fovea.UnavailableError, "gave up after 1 s"):
        list(_watch.watch(connect, "r-1", "there", None, 1))
    calls = iter([Stream(run_event(runs_pb2.PHASE_RUNNING, 0))] + [None] * 100)
    with raises(fovea.WaitTimeoutError, "within 0.5 s"):
        list(_watch.watch(connect, "r-1", "there", 0.5, 60))


class SlowCall:
    """A call whose end is reported by another thread, some time after it was cancelled."""

    def __init__(self) -> None:
        self.reported = False
        self.cancelled = threading.Event()

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        def report() -> None:
            self.cancelled.wait()
            time.sleep(0.2)
            self.reported = True
            callback(self)

        threading.Thread(target=report, daemon=True).start()

    def cancel(self) -> None:
        self.cancelled.set()


def closed_streams() -> None:
    # A program that ends while gRPC's thread is about to report the end of a call may hang.
    call = SlowCall()
    _stream.Stream(call).close()
    assert call.reported


def others(folder: Path) -> None:
    # A newer coordinator may have phases and priorities of its own.
    assert _convert.phase(99) is fovea.Phase.UNKNOWN and not _convert.phase(99).has_ended
    assert _spec.word(common_pb2.Priority.DESCRIPTOR, 99) == "unknown"
    der = ssl.PEM_cert_to_DER_cert(Path(__file__).with_name("certificate.pem").read_text())
    # By `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | sha256sum`.
    expected = "0e3ef90f60f7c9e80a51e20fb41aadcb986e4b3ced25d4e575e2b9567c867260"
    assert hashlib.sha256(_pin.public_key(der)).hexdigest() == expected
    with raises(fovea.CredentialsError, "damaged"):
        _pin.public_key(der[:100])
    address = folder / "address"
    for text in ("", "file:other", "nonsense"):
        address.write_text(text)
        with raises(fovea.AddressError):
            fovea.Client(f"file:{address}").runs()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    specs()
    groups()
    watched_groups()
    downloads(Path(sys.argv[1]))
    watches()
    closed_streams()
    others(Path(sys.argv[1]))
