#!/usr/bin/env python3
"""Measures images/s of the recipe in a real cluster of processes on this machine.

Draws synthetic photographs once (kept in bench-output/), then trains GoogLeNet at 224 px with the whole
stem frozen, in float32, through the coordinator and workers, and times the committed steps as a client
sees them arrive. Start-up, warm-up steps and evaluation are not counted. Prints one JSON object a line.

    make bench
    make bench PEER="python peer_ddp.py --world 2 --batch 16 --steps 8 --channels-last"

With PEER the two run in turn, and a line with the ratio follows: machines are noisy, a ratio of runs in
the same minute is not. PEER must print a JSON line with "images_per_s".
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "target" / "release"
OUT = ROOT / "bench-output"
BATCH = 16
VIRTUAL_RANKS = 2
# Steps before the clock starts: caches, allocators, connections.
WARM_UP = 3

RUN = f"""
name = "bench"
[model]
frozen = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"]
[train]
epochs = 1
virtual_ranks = {VIRTUAL_RANKS}
batch = {BATCH}
learning_rate = 0.00001
threads = 1
[checkpoint]
every_epochs = 0
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help="command to run in turn with each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of the two-worker run")
    parser.add_argument("--steps", type=int, default=12, help="steps in each measurement")
    parser.add_argument("--checkpoints", action="store_true",
                        help="compare a checkpoint every 10 steps with none instead")
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    run_file = OUT / "run.toml"
    run_file.write_text(RUN)
    if arguments.checkpoints:
        checkpoints(arguments.rounds, run_file)
        return
    dataset = prepare(arguments.steps)

    say(measure(dataset, run_file, workers=1))
    ours, peers = [], []
    for _ in range(arguments.rounds):
        row = measure(dataset, run_file, workers=2)
        say(row)
        ours.append(row["images_per_s"])
        if arguments.peer:
            row = peer(arguments.peer)
            say(row)
            peers.append(row["images_per_s"])
    if peers:
        ratios = [a / b for a, b in zip(ours, peers)]
        say({
            "name": "ratio-to-peer",
            "median": round(statistics.median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
            "rounds": len(ratios),
        })


def checkpoints(rounds, run_file):
    """What a checkpoint every 10 steps costs: runs with and without in turn."""
    dataset = prepare(WARM_UP + 30)
    ratios = []
    for _ in range(rounds):
        rates = []
        for every in (0, 10):
            row = measure(dataset, run_file, workers=2, settings=[f"checkpoint.every_steps={every}"])
            say({**row, "checkpoint_every_steps": every})
            rates.append(row["images_per_s"])
        ratios.append(rates[1] / rates[0])
    say({
        "name": "with-checkpoints-to-without",
        "median": round(statistics.median(ratios), 4),
        "min": round(min(ratios), 4),
        "max": round(max(ratios), 4),
        "rounds": len(ratios),
    })


def prepare(steps):
    """A prepared dataset with enough training images for `steps` full steps; drawn once."""
    # Two eyes a patient; a tenth of the patients is held out.
    patients = -(-(steps * BATCH * VIRTUAL_RANKS // 2 + 8) * 10 // 9)
    dataset = OUT / f"dataset-{patients}"
    if not (dataset / "manifest.json").exists():
        photographs = OUT / "photographs"
        fovea("synthetic", "--out", photographs, "--patients", patients, "--size", 256)
        fovea("prepare", photographs, "--out", dataset, "--name", "bench", "--size", 224,
              "--validation", "0.1")
    return dataset


def fovea(*arguments):
    command = [str(PROGRAMS / "fovea"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stdout}")


def measure(dataset, run_file, workers, settings=()):
    """One run; images/s and mean phases over the full steps after the warm-up."""
    folder = OUT / f"cluster-{os.getpid()}-{time.monotonic_ns()}"
    command = [PROGRAMS / "fovea", "--json", "local", "-n", workers, "--dataset", dataset,
               "--data-dir", folder, "--set", f"workers.max={workers}",
               *(word for setting in settings for word in ("--set", setting)), run_file]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    steps = []
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "step":
            steps.append((time.monotonic(), event))
    errors = process.stderr.read()
    if process.wait():
        sys.exit(f"the measured run failed:\n{errors}")
    subprocess.run(["rm", "-rf", str(folder)], check=True)

    full = [s for s in steps if s[1]["images"] == BATCH * VIRTUAL_RANKS]
    counted = full[WARM_UP:]
    if len(counted) < 3:
        sys.exit(f"only {len(counted)} full steps after {WARM_UP} to warm up; use more --steps")
    seconds = counted[-1][0] - full[WARM_UP - 1][0]
    images = sum(s[1]["images"] for s in counted)
    phases = {name: round(statistics.mean(s[1]["phases"][name] for s in counted), 2)
              for name in counted[0][1]["phases"]}
    return {
        "name": "cpu-recipe",
        "workers": workers,
        "virtual_ranks": VIRTUAL_RANKS,
        "threads_per_worker": 1,
        "batch_per_virtual_rank": BATCH,
        "image_size": 224,
        "precision": "float32",
        "images_per_s": round(images / seconds, 2),
        "step_ms": round(seconds / len(counted) * 1e3, 1),
        "phases_ms": phases,
        "reduce_share": round(phases["reduce_ms"] / (seconds / len(counted) * 1e3), 4),
        "steps": len(counted),
    }


def peer(command):
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the peer failed: {command}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not rows or "images_per_s" not in rows[-1]:
        sys.exit(f"the peer printed no JSON line with images_per_s: {command}")
    return {"name": "peer", **rows[-1]}


def say(row):
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
