#!/usr/bin/env python3
"""Drives the package against a cluster; tests/tests/cluster/python.rs starts both. It ends with an error where something is not as it
should be.

    drive.py steer ADDRESS FOLDER VERSION PROTOCOL   submit, pause, resume, cancel; results; mistakes. One worker; dataset "synthetic"
    drive.py follow ADDRESS RUN                      every event of a run as a line: its kind and its number
    drive.py secure ADDRESS CERTIFICATES VIEWER      TLS; CERTIFICATES is the folder that `fovea certs` made, VIEWER a token's file
"""

import hashlib
import importlib.util
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import fovea
from fovea import _channel

SPEC = {
    "name": "py",
    "dataset": "synthetic",
    "seed": 3,
    "model": {"labels": "referable"},
    "train": {"batch": 6, "learning_rate": 0.0005},
    "workers": {"max": 1},
    "checkpoint": {"every_steps": 2, "keep_last": 0},
}


@contextmanager
def raises(kind: type[BaseException], *texts: str) -> Iterator[None]:
    """Fails unless an error of exactly this kind is raised that says all of this."""
    try:
        yield
    except Exception as error:
        assert type(error) is kind, f"{type(error).__name__}: {error}"
        for text in texts:
            assert text in str(error), f"{text!r} is not in: {error}"
    else:
        raise AssertionError(f"there was no {kind.__name__}")


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Polls until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def steer(address: str, folder: Path, version: str, protocol: str) -> None:
    assert (fovea.__version__, _channel.PROTOCOL) == (version, int(protocol))
    with fovea.Client(address, timeout=30) as client:
        run = client.submit(SPEC, train={"epochs": 400}, **{"checkpoint.keep_best": "loss"})
        assert (run.id, run.spec["train"]["epochs"], run.spec["train"]["batch"]) == ("py-1", 400, 6)
        assert (run.spec["model"]["classes"], run.spec["model"]["positive_from"]) == (2, 2)
        for event in client.watch(run.id, timeout=60):
            if isinstance(event, fovea.CheckpointStored):
                break
        waits = client.submit(SPEC, name="waits", priority="low")
        (queued,) = client.queue()
        assert (queued.run_id, queued.priority, queued.max_workers) == (waits.id, "low", 1), queued
        # Why it waits is known with the next look of the scheduler.
        until(lambda: "1 worker" in client.queue()[0].waiting)
        (worker,) = client.workers()
        assert (worker.state, worker.run_id, worker.virtual_ranks) == ("training", run.id, 2), worker
        assert waits.priority == "low"
        assert client.set_priority(waits.id, "normal").priority == "normal"
        assert (client.queue()[0].priority, client.run(waits.id).spec["priority"]) == ("normal", "low")
        with raises(ValueError, "one of low, normal, high"):
            client.set_priority(waits.id, "urgent")
        assert client.cancel(waits.id).phase is fovea.Phase.CANCELLED
        with raises(fovea.RunCancelledError, waits.id):
            client.wait(waits.id, timeout=30)
        client.pause(run.id)
        for event in client.watch(run.id, timeout=60):
            if isinstance(event, fovea.RunUpdated) and event.run.phase is fovea.Phase.PAUSED:
                break
        # A watch goes on while a run is paused.
        with raises(fovea.WaitTimeoutError, run.id):
            for event in client.watch(run.id, timeout=1):
                assert not isinstance(event, fovea.Reconnecting), event
        assert client.run(run.id).phase is fovea.Phase.PAUSED
        with raises(fovea.PreconditionError, run.id):
            client.pause(run.id)
        client.cancel(run.id)

        done = client.submit(run_file(folder), name="short", train={"epochs": 3})
        assert client.wait(done.id, timeout=300).phase is fovea.Phase.COMPLETED
        results(client, done.id, folder)
        mistakes(client, folder)
        assert [run.id for run in client.runs()] == [done.id, waits.id, run.id]
        # It goes on from an older checkpoint than the newest.
        assert len(client.checkpoints(run.id)) > 1
        step = client.checkpoints(run.id)[0].step
        resumed = client.resume(run.id, step)
        assert resumed.phase is fovea.Phase.QUEUED, resumed
        assert resumed.progress is not None and resumed.progress.step == step, resumed
        client.cancel(run.id)
    (folder / "address").write_text(address)
    with fovea.Client(f"file:{folder / 'address'}") as client:
        assert client.run(run.id).id == run.id
    with raises(fovea.UnavailableError, "127.0.0.1:1", "is fovea-coordinator running"):
        fovea.Client("http://127.0.0.1:1", timeout=5).runs()


def run_file(folder: Path) -> Path:
    path = folder / "run.toml"
    path.write_text(
        'name = "file"\ndataset = "synthetic"\n[model]\nlabels = "grades"\n[train]\nbatch = 6\nlearning_rate = 0.0005\n'
        "[workers]\nmax = 1\n[checkpoint]\nevery_steps = 2\nkeep_last = 0\n"
    )
    return path


def results(client: fovea.Client, run_id: str, folder: Path) -> None:
    run = client.run(run_id)
    assert run.spec["model"]["classes"] == 5
    frame = client.metrics(run_id)
    assert list(frame.index) == [0, 1, 2] and list(frame["step"]) == [epoch.step for epoch in run.epochs]
    assert list(frame["loss"]) == [epoch.validation.loss for epoch in run.epochs]
    assert list(frame["samples"]) == [run.validation_samples] * 3
    losses = client.losses(run_id)
    assert list(losses.index) == list(range(1, run.total_steps + 1))
    assert run.progress is not None and losses["loss"].iloc[-1] == run.progress.loss

    scores = client.scores(run_id)
    assert (scores.part, scores.epoch, scores.step) == ("validation", 2, run.total_steps), scores
    assert scores.probabilities.shape == (run.validation_samples, 5)
    assert np.allclose(scores.probabilities.sum(axis=1), 1, atol=1e-5)
    confusion = np.array(run.epochs[-1].validation.confusion)
    named = scores.probabilities.argmax(axis=1)
    assert list(confusion.sum(axis=0)) == list(np.bincount(named, minlength=5)), confusion
    first = client.scores(run_id, run.epochs[0].step)
    assert first.epoch == 0 and not np.array_equal(first.probabilities, scores.probabilities)
    with raises(fovea.NotFoundError):
        client.scores(run_id, 1)

    # By its highest AUC, the first of equals; undefined ones do not count.
    stored = client.checkpoints(run_id)
    assert tuple(stored) == run.checkpoints and [c.step for c in stored] == sorted(c.step for c in stored)
    assert run.best_checkpoint is not None
    # A worker whose upload is slow leaves checkpoints out: not every epoch has one.
    steps = [c.step for c in stored]
    best = max(
        (e for e in run.epochs if e.validation.auc is not None and e.step in steps), key=lambda e: e.validation.auc or 0
    )
    for name, step in (("best", best.step), ("newest", run.total_steps), (steps[0], steps[0])):
        path = folder / f"{name}.safetensors"
        got = client.download_checkpoint(run_id, name, path)
        assert got.step == step and hashlib.sha256(path.read_bytes()).hexdigest() == got.sha256
        loaded = fovea.load_checkpoint(path)
        assert (loaded.run_id, loaded.step) == (run_id, step)
        assert loaded.spec["train"] == run.spec["train"]
    path = folder / "newest.safetensors"
    assert loaded.parameters["inception_3a/1x1.weight"].shape == (64, 192, 1, 1)
    assert loaded.velocities["inception_3a/1x1.weight"].shape == (64, 192, 1, 1)
    assert not any("velocity" in name for name in loaded.parameters)

    with raises(FileExistsError, str(path)):
        client.download_checkpoint(run_id, "newest", path)
    client.download_checkpoint(run_id, steps[0], path, overwrite=True)
    assert fovea.load_checkpoint(path).step == steps[0]
    with raises(fovea.NotFoundError):
        client.download_checkpoint(run_id, 1, folder / "none.safetensors")
    damaged = folder / "damaged.safetensors"
    damaged.write_bytes(path.read_bytes()[:1000])
    with raises(fovea.CheckpointError, str(damaged)):
        fovea.load_checkpoint(damaged)
    assert not [name for name in os.listdir(folder) if name.endswith(".part") or name.startswith("none")]
    # torch_state.py is for where PyTorch is.
    if importlib.util.find_spec("torch") is None:
        with raises(fovea.MissingExtraError, "pip install torch"):
            fovea.torch_state_dict(path)


def mistakes(client: fovea.Client, folder: Path) -> None:
    with raises(fovea.SpecError, "train.epoch: there is no such key; did you mean epochs?", "policy: 'polly'", "batch: True"):
        client.submit(SPEC, train={"epoch": 1, "policy": "polly", "batch": True})
    with raises(fovea.SpecError, "model.labels: 'grades' means classes = 5, and classes is 2"):
        client.submit(SPEC, model={"labels": "grades", "classes": 2})
    with raises(fovea.SpecError, "fovea weights add w.caffemodel"):
        client.submit(SPEC, model={"weights": "w.caffemodel"})
    with raises(fovea.SpecError, "nowhere.toml"):
        client.submit(folder / "nowhere.toml")
    with raises(fovea.InvalidRequestError, "train.batch"):
        client.submit(SPEC, train={"batch": 0})
    with raises(fovea.NotFoundError, "no dataset nowhere"):
        client.submit(SPEC, dataset="nowhere")
    for ask in (client.run, client.pause, client.wait, client.metrics, client.losses, client.checkpoints):
        with raises(fovea.NotFoundError, "py-99"):
            ask("py-99")
    # What was refused has changed nothing.
    assert SPEC["train"] == {"batch": 6, "learning_rate": 0.0005}
    for address in ("127.0.0.1", "ftp://127.0.0.1:1", "file:/nowhere"):
        with raises(fovea.AddressError):
            fovea.Client(address).runs()


def follow(address: str, run_id: str) -> None:
    for event in fovea.Client(address).watch(run_id):
        number = {
            fovea.RunUpdated: lambda e: e.run.phase.value,
            fovea.StepCommitted: lambda e: e.report.step,
            fovea.EpochEvaluated: lambda e: e.result.epoch,
            fovea.CheckpointStored: lambda e: e.checkpoint.step,
            fovea.Note: lambda e: 0,
            fovea.Reconnecting: lambda e: e.attempt,
        }[type(event)](event)
        print(json.dumps([type(event).__name__, number]), flush=True)


def secure(address: str, folder: Path, viewer: Path) -> None:
    certificate, key, ca = folder / "admin.pem", folder / "admin.key", folder / "ca.pem"
    with fovea.Client(address, certificate=certificate, key=key, ca=ca) as admin:
        assert admin.runs() == []
        with raises(fovea.NotFoundError, "no dataset synthetic"):
            admin.submit(SPEC)
    with fovea.Client(address, token_file=viewer) as person:
        assert person.runs() == [] and person.workers() == []
        with raises(fovea.PermissionDeniedError, "viewer"):
            person.submit(SPEC)
        with raises(fovea.NotFoundError, "py-1"):
            next(person.watch("py-1"))
    os.environ.update(FOVEA_COORDINATOR=address, FOVEA_TOKEN_FILE=str(viewer))
    assert fovea.Client().runs() == []
    del os.environ["FOVEA_TOKEN_FILE"]
    os.environ.update(FOVEA_TLS_CERTIFICATE=str(certificate), FOVEA_TLS_KEY=str(key), FOVEA_TLS_CA=str(ca))
    assert fovea.Client().runs() == []
    # What is given goes before the environment.
    with raises(fovea.PermissionDeniedError, "viewer"):
        fovea.Client(token_file=viewer).submit(SPEC)
    for name in ("FOVEA_COORDINATOR", "FOVEA_TLS_CERTIFICATE", "FOVEA_TLS_KEY", "FOVEA_TLS_CA"):
        del os.environ[name]

    plain = address.replace("https://", "http://")
    with raises(fovea.AddressError, "plain text"):
        fovea.Client(plain, token_file=viewer).runs()
    with raises(fovea.AddressError, "token_file"):
        fovea.Client(address).runs()
    with raises(fovea.CredentialsError, "key missing"):
        fovea.Client(address, certificate=certificate, ca=ca)
    # A token of another cluster, and one that others can read.
    kind, digest, rest = viewer.read_text().strip().split(".", 2)
    other = folder / "other.token"
    other.write_text(".".join((kind, digest[::-1], rest)))
    with raises(fovea.CredentialsError, "chmod 600"):
        other.chmod(0o644)
        fovea.Client(address, token_file=other)
    other.chmod(0o600)
    with raises(fovea.CredentialsError, "not of the cluster that this token is for"):
        fovea.Client(address, token_file=other).runs()
    # A worker of the same cluster is no coordinator, whatever address it has.
    with impostor(folder / "worker-node.pem", folder / "worker-node.key") as elsewhere:
        for given in ({"token_file": viewer}, {"certificate": certificate, "key": key, "ca": ca}):
            with raises(fovea.CredentialsError, "/worker/node", "a coordinator was expected"):
                fovea.Client(elsewhere, **given).runs()


@contextmanager
def impostor(certificate: Path, key: Path) -> Iterator[str]:
    """A server with this certificate, and the CA's beside it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = certificate.with_suffix(".chain")
    chain.write_text(certificate.read_text() + certificate.with_name("ca.pem").read_text())
    context.load_cert_chain(chain, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                    context.wrap_socket(accepted, server_side=True).close()
                except ssl.SSLError:
                    pass
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["steer", address, folder, version, protocol]:
            steer(address, Path(folder), version, protocol)
        case ["follow", address, run_id]:
            follow(address, run_id)
        case ["secure", address, folder, viewer]:
            secure(address, Path(folder), Path(viewer))
        case _:
            sys.exit(__doc__)
