#!/usr/bin/env python3
"""Trains and scores every method on one patient split, and prints them in one table.

    make methods DATA=FOLDER WEIGHTS=FILE                 FOLDER has trainLabels.csv and images/, FILE is BVLC GoogLeNet
    make methods DATA=... WEIGHTS=... ARGS="--labels referable --sizes 224 --seeds 0,1,2"

Everything is in bench-output/methods; what is there already is not made again, so a call that was stopped goes on. The
recipes are those of deploy/recipes. Networks are scored with the last checkpoint, never with the best one on the split that the
figures are of. Where several layers are named for the probe (--taps), the one is taken that has the best AUC in a 3-fold
cross-validation over the *training* patients.
"""

import argparse
import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "target" / "release"
RECIPES = ROOT / "deploy" / "recipes"
OUT = ROOT / "bench-output" / "methods"
BASELINE_SIZE = 512
FOLDS = 3
# Name, recipe, and whether it is trained at every size.
NETWORKS = [
    ("probe", "linear-probe", False),
    ("early probe", "linear-probe-early", False),
    ("article", "article", True),
    ("all layers", "fine-tune-all", True),
    ("from scratch", "from-scratch", False),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with trainLabels.csv and images/")
    parser.add_argument("--weights", type=Path, required=True, help="BVLC GoogLeNet, .caffemodel or .safetensors")
    parser.add_argument("--labels", default="any_dr,referable", help="label schemes")
    parser.add_argument("--sizes", default="224,448", help="sizes in pixels; probes and from scratch use the first")
    parser.add_argument("--seeds", default="0", help="seeds of each network; scores are averaged over them")
    parser.add_argument("--taps", default="inception_4b/output,inception_4c/output,inception_4d/output,inception_4e/output,inception_5a/output",
                        help="layers to choose from for the early probe")
    parser.add_argument("--only", default="", help="names of networks; default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="worker processes")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    only = [name for name in arguments.only.split(",") if name]
    OUT.mkdir(parents=True, exist_ok=True)
    for size in {*sizes, BASELINE_SIZE}:
        prepare(arguments.data, OUT / f"fundus-{size}", size)
    chosen = {}
    with cluster(arguments.workers):
        fovea("weights", "add", arguments.weights, "--name", "bvlc_googlenet")
        for size in sizes:
            fovea("dataset", "add", OUT / f"fundus-{size}")
        for labels in arguments.labels.split(","):
            for name, recipe, every_size in NETWORKS:
                if only and name not in only:
                    continue
                settings = []
                if recipe == "linear-probe-early":
                    chosen[labels] = best_tap(arguments, labels, sizes[0])
                    settings = [f"model.tap={chosen[labels]}"]
                for size in sizes if every_size else sizes[:1]:
                    for seed in seeds:
                        train(name, recipe, size, labels, seed, settings)
    for labels in arguments.labels.split(","):
        table(labels, seeds, chosen.get(labels))


def prepare(data, folder, size):
    """All sizes have the same split: it is chosen by name, grade and seed alone."""
    if not (folder / "manifest.json").exists():
        fovea("prepare", data, "--out", folder, "--size", size, "--max-bad", "1%")


def train(name, recipe, size, labels, seed, settings):
    """Trains a network and writes its scores of the validation split, unless they are there."""
    scores = scores_of(name, size, labels, seed)
    if scores.exists():
        return
    run = submit(recipe, [f"dataset=fundus-{size}", f"model.labels={labels}", f"seed={seed}", *settings])
    begun = time.monotonic()
    fovea("watch", run)
    minutes = (time.monotonic() - begun) / 60
    scores.parent.mkdir(exist_ok=True)
    fovea("evaluate", run, "--checkpoint", "newest", "--csv", scores)
    print(f"{labels}: {name}, {size} px, seed {seed}: {minutes:.1f} minutes", flush=True)


def scores_of(name, size, labels, seed):
    return OUT / labels / f"{name.replace(' ', '-')}-{size}-{seed}.csv"


def best_tap(arguments, labels, size):
    """The layer whose probe has the best AUC on held-out *training* patients."""
    kept = OUT / labels / "tap.json"
    if kept.exists():
        return json.loads(kept.read_text())["chosen"]
    folder = OUT / f"training-{size}"
    only_training(arguments.data, OUT / f"fundus-{size}", folder, size)
    fovea("dataset", "add", folder)
    found = {}
    for tap in arguments.taps.split(","):
        text = fovea("--json", "submit", RECIPES / "linear-probe-early.toml", "--folds", FOLDS,
                     "--set", f"dataset=training-{size}", "--set", f"model.labels={labels}", "--set", f"model.tap={tap}",
                     "--set", "name=tap")
        group = first(text, "group")["id"]
        fovea("group", "watch", group)
        evaluated = first(fovea("--json", "group", "evaluate", group), "group_evaluation")
        found[tap] = evaluated["pooled"][0]["auc"]["value"]
        print(f"{labels}: probe on {tap}: AUC {found[tap]:.4f} in {FOLDS} folds of the training patients", flush=True)
    best = max(found, key=found.get)
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"chosen": best, "auc": found}, indent=1))
    return best


def only_training(data, whole, folder, size):
    """A dataset of the training split's photographs alone."""
    if (folder / "manifest.json").exists():
        return
    with open(whole / "index.csv", newline="") as file:
        training = {row["image"] for row in csv.DictReader(file) if row["split"] == "train"}
    labels = folder.with_suffix(".csv")
    with open(data / "trainLabels.csv", newline="") as file, open(labels, "w", newline="") as out:
        rows = csv.DictReader(file)
        writer = csv.DictWriter(out, rows.fieldnames)
        writer.writeheader()
        writer.writerows(row for row in rows if row["image"] in training)
    fovea("prepare", "--labels", labels, "--images", data / "images", "--out", folder, "--size", size, "--allow-unlabelled")


def table(labels, seeds, tap):
    """Prints all methods, baselines included, with intervals and paired differences."""
    named = []
    # The first is the one that all others are compared with.
    for name in sorted((name for name, _, _ in NETWORKS), key=lambda name: name != "article"):
        for scores in sorted((OUT / labels).glob(f"{name.replace(' ', '-')}-[0-9]*-{seeds[0]}.csv")):
            size = scores.stem.split("-")[-2]
            what = f"{name} {size}" if tap is None or name != "early probe" else f"{name} {tap} {size}"
            named += ["--scores", f"{what}={averaged(scores, seeds)}"]
    print(f"\n== {labels}, {len(seeds)} seed(s)\n", flush=True)
    print(fovea("baseline", OUT / f"fundus-{BASELINE_SIZE}", "--labels", labels, *named))


def averaged(scores, seeds):
    """The file with the mean of the seeds' scores: of one seed, its own."""
    if len(seeds) == 1:
        return scores
    files = [scores.with_name(f"{scores.stem.rsplit('-', 1)[0]}-{seed}.csv") for seed in seeds]
    tables = [list(csv.DictReader(open(file, newline=""))) for file in files]
    columns = [column for column in tables[0][0] if column == "p_positive" or column[0] == "p" and column[1:].isdigit()]
    mean = scores.with_name(f"{scores.stem.rsplit('-', 1)[0]}-mean.csv")
    with open(mean, "w", newline="") as out:
        writer = csv.DictWriter(out, tables[0][0].keys())
        writer.writeheader()
        for rows in zip(*tables):
            assert len({row["image"] for row in rows}) == 1, "scores of different photographs"
            means = {column: sum(float(row[column]) for row in rows) / len(rows) for column in columns}
            writer.writerow({**rows[0], **means})
    return mean


def submit(recipe, settings):
    words = [word for setting in settings for word in ("--set", setting)]
    return first(fovea("--json", "submit", RECIPES / f"{recipe}.toml", *words), "run")["id"]


def first(text, kind):
    """The first JSON object of a kind."""
    return next(one for one in map(json.loads, text.splitlines()) if one["type"] == kind)


@contextlib.contextmanager
def cluster(workers):
    """A coordinator and workers on this machine, for as long as the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    os.environ["FOVEA_COORDINATOR"] = address
    processes = []

    def start(program, *words):
        log = open(OUT / f"{program}-{len(processes)}.log", "w")
        command = [str(PROGRAMS / program), *map(str, words)]
        processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    try:
        start("fovea-coordinator", "--listen", f"127.0.0.1:{port}", "--data-dir", OUT / "coordinator")
        for worker in range(workers):
            start("fovea-worker", "--coordinator", address, "--listen", "127.0.0.1:0",
                  "--data-dir", OUT / f"worker-{worker}")
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def fovea(*arguments):
    command = [str(PROGRAMS / "fovea"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
