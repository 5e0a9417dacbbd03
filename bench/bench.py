#!/usr/bin/env python3
"""Measures images/s of the recipe in a real cluster of processes on this machine.

Draws synthetic photographs once (kept in bench-output/), then trains GoogLeNet at 224 px with the whole
stem frozen, through the coordinator and workers, and times the committed steps as a client sees them
arrive. Start-up, warm-up steps and evaluation are not counted. Prints one JSON object a line: float32 and
bf16, without the cache of the frozen layers' activations and with it once it is warm.

    make bench
    make bench PEER="python peer_ddp.py --world 2 --batch 16 --steps 8 --channels-last"
    make bench-gpu PYTHON=python-with-torch
    make bench-epoch EPOCH=35126 DEVICE=cuda:0 BATCH=256

With PEER the two run in turn, and a line with the ratio follows: machines are noisy, a ratio of runs in
the same minute is not. PEER must print a JSON line with "images_per_s", and understand --bf16. On a GPU the
peers are PyTorch, eager and compiled (bench/peer_torch.py), if this Python has it, and the ratio is that to the
faster one. Fovea is measured with libtorch's operations and with its own kernels there, and a trace says which
kernels take the time.
"""

import argparse
import json
import os
import importlib.util
import random
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gpu_trace

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "target" / "release"
OUT = ROOT / "bench-output"
# Steps before the clock starts: caches, allocators, connections.
WARM_UP = 3
# Epochs before the clock starts with a warm cache. By then an image has been seen at a given rotation with a
# probability of 1 - (3/4)^12 = 97 %.
WARM_EPOCHS = 12
# Steps of an epoch: on a CPU with a warm cache, and on a GPU.
FEW_STEPS = 4
GPU_STEPS = 8
# Steps before those of a trace on a GPU, and in it: within one epoch.
TRACE_AFTER, TRACE_STEPS = 25, 6
# Whole epochs, and memory for the frozen layers' outputs then, MiB: more than a GPU gives, which is a third of what is free.
EPOCHS, CACHE_MIB = 5, 65536
# With checkpoints: whole steps of an epoch, and those that pay for a checkpoint, or not.
CHECKPOINT_STEPS = 33
TEN = 10

RUN = """
name = "bench"
[model]
frozen = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"]
[train]
learning_rate = 0.00001
threads = 1
[checkpoint]
every_epochs = 0
"""


@dataclass
class Setting:
    """What all measurements of a call have in common."""
    device: str
    # Images of each virtual rank in a step.
    batch: int
    # Virtual ranks, and workers where several are measured.
    ranks: int
    run_file: Path
    # Full steps that are measured at least.
    steps: int

    @property
    def on_gpu(self):
        return self.device != "cpu"


class Failed(Exception):
    """A run failed: the end of what it said."""


@dataclass
class Peer:
    """A command to compare with."""
    words: list
    # bench/peer_torch.py, which knows more number formats than a user's.
    ours: bool = False


@dataclass
class Kind:
    """What one measurement is of."""
    precision: str
    warm: bool = False
    # On a GPU: Fovea's own kernels instead of libtorch's operations.
    kernels: bool = False

    @property
    def text(self):
        return f"{self.precision}, {'warm cache' if self.warm else 'no cache'}{', own kernels' if self.kernels else ''}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help="command to run in turn with each measurement")
    parser.add_argument("--rounds", type=int, help="measurements of each run (CPU: 3, GPU: 1)")
    parser.add_argument("--steps", type=int, help="full steps in each measurement (CPU: 12, GPU: 200)")
    parser.add_argument("--device", default="cpu", help="cpu, with two workers, or cuda:N, with one")
    parser.add_argument("--batch", type=int, default=16, help="images of each virtual rank in a step")
    parser.add_argument("--minutes", type=float, help="begin no measurement later than that")
    parser.add_argument("--mbit", type=int, default=0,
                        help="let two workers send each other so many Mbit/s at most, as a network would")
    parser.add_argument("--checkpoints", action="store_true",
                        help="measure what a checkpoint every 10 steps costs instead")
    parser.add_argument("--epoch", type=int, metavar="IMAGES",
                        help="measure whole epochs over so many images instead, evaluation and a checkpoint included (EyePACS: 35126)")
    parser.add_argument("--blocks", type=int, default=24, help="checkpoints that are measured")
    arguments = parser.parse_args()
    if arguments.mbit:
        limit_network(arguments.mbit)
    OUT.mkdir(exist_ok=True)
    run_file = OUT / "run.toml"
    run_file.write_text(RUN)
    on_gpu = arguments.device != "cpu"
    ranks = 1 if on_gpu else 2
    setting = Setting(arguments.device, arguments.batch, ranks, run_file, arguments.steps or (200 if on_gpu else 12))
    rounds = arguments.rounds or (1 if on_gpu else 3)
    until = time.monotonic() + 60 * (arguments.minutes or 1e9)
    if arguments.epoch:
        whole_epochs(arguments.epoch, setting)
    elif arguments.checkpoints:
        checkpoints(arguments.blocks, setting)
    elif on_gpu:
        on_a_gpu(setting, peers(arguments.peer, setting), rounds, until)
    else:
        on_two_cpus(setting, peers(arguments.peer, setting), rounds, until)


def on_two_cpus(setting, peers, rounds, until):
    for warm in (False, True):
        for precision in ("float32", "bf16"):
            kind = Kind(precision, warm)
            if not warm:
                say(measure(setting, kind, workers=1))
            compare(setting, [kind], peers, rounds, until)


def on_a_gpu(setting, peers, rounds, until):
    kernels = [False, True] if own_kernels_work(setting) else [False]
    # The most wanted first, in case the time is too short for all.
    for precision in ("bf16", "tf32", "float32"):
        compare(setting, [Kind(precision, warm, own) for warm in (False, True) for own in kernels], peers, rounds, until)
        for own in kernels:
            if time.monotonic() > until:
                say({"name": "left-out", "what": f"trace of {precision}", "why": "--minutes are over"})
                continue
            traced(setting, Kind(precision, kernels=own))


def own_kernels_work(setting):
    """Whether Fovea's own kernels compute on this GPU what libtorch does."""
    command = [PROGRAMS / "fovea-worker", "--device", setting.device, "--data-dir", OUT / "kernels", "devices", "--check"]
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        say({"name": "own-kernels", "work": False, "why": done.stdout[-2000:]})
    return done.returncode == 0


def peers(command, setting):
    """What to compare with."""
    if command:
        return [Peer(shlex.split(command))]
    if not setting.on_gpu:
        return []
    if importlib.util.find_spec("torch") is None:
        say({"name": "no-peer", "why": f"{sys.executable} has no PyTorch"})
        return []
    words = [sys.executable, str(ROOT / "bench" / "peer_torch.py"), "--device", setting.device, "--trace",
             "--batch", str(setting.batch), "--steps", str(setting.steps)]
    return [Peer(words, ours=True), Peer([*words, "--compile"], ours=True)]


def limit_network(mbit):
    """Starts this program again in a network namespace of its own, whose loopback device is as slow as a network.

    All that is sent passes it, from both workers: so it lets through twice what each may send.
    """
    if os.environ.get("FOVEA_BENCH_MBIT"):
        return
    limit = ("ip link set lo up && "
             f"tc qdisc add dev lo root tbf rate {2 * mbit}mbit burst 256kb limit 256mb && exec \"$@\"")
    words = ["unshare", "--map-root-user", "--net", "sh", "-c", limit, "sh", sys.executable, *sys.argv]
    try:
        os.execvpe(words[0], words, dict(os.environ, FOVEA_BENCH_MBIT=str(mbit)))
    except OSError as problem:
        sys.exit(f"--mbit needs unshare of util-linux, and ip and tc of iproute2: {problem}")


def compare(setting, kinds, peers, rounds, until):
    """Measures these kinds, of one number format, for some rounds in turn with the peers. The ratio is that to the fastest of them."""
    ratios = {kind.text: [] for kind in kinds}
    for _ in range(rounds):
        if time.monotonic() > until:
            say({"name": "left-out", "what": [kind.text for kind in kinds], "why": "--minutes are over"})
            return
        ours = []
        for kind in kinds:
            try:
                ours.append((kind, measure(setting, kind, workers=setting.ranks)))
                say(ours[-1][1])
            except Failed as problem:
                # The others are of use all the same.
                failed(kind, problem)
        theirs = []
        for peer in peers:
            try:
                theirs.append(ask(peer, kinds[0].precision))
                say(theirs[-1])
            except Failed as problem:
                failed(kinds[0], problem)
        if theirs:
            best = max(row["images_per_s"] for row in theirs)
            for kind, row in ours:
                ratios[kind.text].append(row["images_per_s"] / best)
    for what, of in ratios.items():
        if of:
            say({
                "name": "ratio-to-peer" if len(peers) == 1 else "ratio-to-the-faster-peer",
                "what": what,
                "median": round(statistics.median(of), 3),
                "min": round(min(of), 3),
                "max": round(max(of), 3),
                "rounds": len(of),
            })


def traced(setting, kind):
    """Which kernels take the time, by a trace of some steps."""
    folder = OUT / f"cluster-{os.getpid()}-{time.monotonic_ns()}"
    trace = OUT / "trace.json"
    trace.unlink(missing_ok=True)
    dataset = prepare(setting, GPU_STEPS)
    epochs = -(-(TRACE_AFTER + TRACE_STEPS) // GPU_STEPS)
    settings = [f"train.virtual_ranks={setting.ranks}", f"train.batch={setting.batch}",
                f"train.precision={kind.precision}", f"train.epochs={epochs}"]
    variables = {"FOVEA_PROFILE": trace, "FOVEA_PROFILE_AFTER": TRACE_AFTER, "FOVEA_PROFILE_STEPS": TRACE_STEPS}
    process = start(setting, dataset, 1, folder, settings, 0, kind.kernels, variables)
    for _ in events(process):
        pass
    try:
        finish(process, folder)
    except Failed as problem:
        failed(kind, problem)
        return
    found = gpu_trace.summary(trace, TRACE_STEPS) if trace.exists() else None
    say({"name": "trace", "of": kind.text, **(found or {"why": "the worker wrote no trace of a GPU"})})


def whole_epochs(images, setting):
    """The time of an epoch over a dataset of so many images, a fifth of them held out, as a client sees it: from one epoch's result to the
    next one's, so with an evaluation and a checkpoint. The first one fetches and sends the images, too."""
    dataset = drawn(-(-images // 2), "0.2")
    for kernels in [False, True] if setting.on_gpu and own_kernels_work(setting) else [False]:
        kind = Kind("bf16", kernels=kernels)
        folder = OUT / f"cluster-{os.getpid()}-{time.monotonic_ns()}"
        settings = [f"train.virtual_ranks={setting.ranks}", f"train.batch={setting.batch}", "train.precision=bf16",
                    f"train.epochs={EPOCHS}", "checkpoint.every_epochs=1"]
        process = start(setting, dataset, setting.ranks, folder, settings, CACHE_MIB if setting.on_gpu else 8192, kernels)
        begun, ends, checkpoints = None, [], 0
        for event in events(process):
            if event["type"] == "step" and begun is None:
                # About when the first step ended: the cluster's start is not of the epoch.
                begun = time.monotonic()
            elif event["type"] == "epoch":
                ends.append(time.monotonic())
            elif event["type"] == "checkpoint":
                checkpoints += 1
        finish(process, folder)
        later = [after - before for before, after in zip(ends, ends[1:])]
        say({"name": "epoch", "precision": kind.precision, "own_kernels": kernels, "device": setting.device, "images": images, "checkpoints": checkpoints,
             "first_s": round(ends[0] - begun, 2), "later_s": [round(seconds, 2) for seconds in later],
             "median_s": round(statistics.median(later), 2)})


def checkpoints(blocks, setting):
    """What a checkpoint every 10 steps costs.

    One run takes a checkpoint every 20 steps, so the 10 steps after each pay for it and the 10 that follow do not.
    Each pair of tens lies within half a minute, in the same processes: what else the machine does is the same for
    both. Whoever compares whole runs sees their noise, several per cent, and not the checkpoint. Computing itself is
    noisy, too; so what a checkpoint adds is also counted where it arises: in the threads that do not compute, and in
    the time between two steps.
    """
    dataset = prepare(setting, CHECKPOINT_STEPS)
    epochs = -(-(blocks + 1) * 2 * TEN // CHECKPOINT_STEPS)
    folder = OUT / f"cluster-{os.getpid()}-{time.monotonic_ns()}"
    settings = [f"train.virtual_ranks={setting.ranks}", f"train.batch={setting.batch}",
                f"train.epochs={epochs}", "train.digest_every=0", f"checkpoint.every_steps={2 * TEN}"]
    process = start(setting, dataset, setting.ranks, folder, settings, cache_mib=0)
    # By step: when it was committed, how long rank 0 computed, waited and reduced, what the threads of all processes
    # have computed until then, and those of them that do not train.
    clock, phases, processor, beside, whole = {}, {}, {}, {}, set()
    for event in events(process):
        if event["type"] == "step":
            step = event["step"]
            clock[step] = time.monotonic()
            phases[step] = sum(event["phases"].values()) / 1e3
            pids = children(process.pid, "fovea-")
            processor[step] = sum(map(processor_seconds, pids))
            beside[step] = processor[step] - sum(processor_seconds(pid, "device") for pid in pids)
            if event["images"] == setting.batch * setting.ranks:
                whole.add(step)
    finish(process, folder)

    # An epoch ends with a step of fewer images; the step after it waits for the evaluation.
    usual = [step for step in whole if step - 1 in whole]
    took = {
        "clock": {i: clock[i] - clock[i - 1] for i in usual},
        "processor": {i: processor[i] - processor[i - 1] for i in usual},
        "beside": {i: beside[i] - beside[i - 1] for i in usual},
        "between": {i: clock[i] - clock[i - 1] - phases[i] for i in usual},
    }
    ratios = {"throughput": [], "processor time": []}
    shares = {"threads that do not compute, of all processor time": [], "between steps, of a step": []}
    for first in range(2 * TEN, max(clock) - 2 * TEN + 1, 2 * TEN):
        tens = [range(first + 1, first + TEN + 1), range(first + TEN + 1, first + 2 * TEN + 1)]
        mean = {name: [statistics.mean(of[i] for i in ten if i in of) for ten in tens] for name, of in took.items()}
        for name, of in zip(ratios, ("clock", "processor")):
            ratios[name].append(mean[of][1] / mean[of][0])
        for name, of, whole_of in zip(shares, ("beside", "between"), ("processor", "clock")):
            shares[name].append((mean[of][0] - mean[of][1]) / mean[whole_of][0])
    for name, values in ratios.items():
        say({"name": "with-checkpoints-to-without", "of": name, **summary(values)})
    for name, values in shares.items():
        say({"name": "added-by-checkpoints", "in": name, **summary(values)})


def summary(values):
    return {"mean": round(statistics.mean(values), 4), "ci95": [round(bound, 4) for bound in interval(values)],
            "median": round(statistics.median(values), 4), "pairs": len(values)}


def interval(values):
    """95 % of the means of resampled values: the bootstrap."""
    draw = random.Random(0)
    means = sorted(statistics.mean(draw.choices(values, k=len(values))) for _ in range(4000))
    return means[100], means[-101]


def prepare(setting, steps):
    """A prepared dataset with enough training images for `steps` full steps; drawn once."""
    # Two eyes a patient; a tenth of the patients is held out.
    return drawn(-(-(steps * setting.batch * setting.ranks // 2 + 8) * 10 // 9), "0.1")


def drawn(patients, validation):
    """A prepared dataset of drawings of so many patients, with that part of them held out; made once."""
    dataset = OUT / f"dataset-{patients}-{validation}"
    if not (dataset / "manifest.json").exists():
        photographs = OUT / f"photographs-{patients}"
        fovea("synthetic", "--out", photographs, "--patients", patients, "--size", 256)
        fovea("prepare", photographs, "--out", dataset, "--name", "bench", "--size", 224,
              "--validation", validation)
        subprocess.run(["rm", "-rf", str(photographs)], check=True)
    return dataset


def fovea(*arguments):
    command = [str(PROGRAMS / "fovea"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stdout}")


def start(setting, dataset, workers, folder, settings, cache_mib, kernels=False, variables=None):
    """A cluster of processes that trains one run, with its data in `folder`."""
    command = [PROGRAMS / "fovea", "--json", "local", "-n", workers, "--dataset", dataset,
               "--data-dir", folder, "--device", setting.device,
               *(word for one in settings for word in ("--set", one)), setting.run_file]
    own = {"FOVEA_CACHE_MIB": cache_mib, "FOVEA_GPU_KERNELS": "on" if kernels else "off", **(variables or {})}
    return subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, **{name: str(value) for name, value in own.items()}})


def events(process):
    return map(json.loads, process.stdout)


def finish(process, folder):
    errors = process.stderr.read()
    if process.wait():
        raise Failed(errors)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def measure(setting, kind, workers):
    """One run; images/s and mean phases over the full steps after the warm-up."""
    folder = OUT / f"cluster-{os.getpid()}-{time.monotonic_ns()}"
    # Without a cache on a CPU, one epoch of all steps. Else few photographs and many epochs: their four rotations come up.
    if setting.on_gpu or kind.warm:
        per_epoch = GPU_STEPS if setting.on_gpu else FEW_STEPS
        before = WARM_EPOCHS if kind.warm else 1
        epochs = before + -(-setting.steps // (per_epoch - 1))
    else:
        per_epoch, before, epochs = setting.steps, 0, 1
    dataset = prepare(setting, per_epoch)
    settings = [f"train.virtual_ranks={setting.ranks}", f"train.batch={setting.batch}",
                f"workers.max={workers}", f"train.precision={kind.precision}", f"train.epochs={epochs}"]
    process = start(setting, dataset, workers, folder, settings, 8192 if kind.warm else 0, kind.kernels)
    steps, rss, gpu_mib = [], 0, None
    for event in events(process):
        if event["type"] == "step":
            # Asking takes a while: before the clock starts. By then libtorch has all the memory of a step.
            if len(steps) == WARM_UP - 1 and setting.on_gpu:
                gpu_mib = gpu_memory_mib(children(process.pid, "fovea-worker"))
            steps.append((time.monotonic(), event))
            if len(steps) % 8 == 1:
                rss = max([rss, *map(peak_rss_mib, children(process.pid, "fovea-worker"))])
    finish(process, folder)

    full = [s for s in steps if s[1]["images"] == setting.batch * setting.ranks]
    if epochs > 1:
        per_epoch = len(full) // epochs
        # The first step of an epoch waits for the evaluation before it.
        counted = [i for i in range(per_epoch * before, len(full)) if i % per_epoch]
    else:
        counted = list(range(WARM_UP, len(full)))
    if len(counted) < 3:
        sys.exit(f"only {len(counted)} steps to count; use more --steps")
    seconds = sum(full[i][0] - full[i - 1][0] for i in counted)
    images = sum(full[i][1]["images"] for i in counted)
    phases = {name: round(statistics.mean(full[i][1]["phases"][name] for i in counted), 2)
              for name in full[0][1]["phases"]}
    step_ms = seconds / len(counted) * 1e3
    return {
        "name": "recipe",
        "device": setting.device,
        "workers": workers,
        "virtual_ranks": setting.ranks,
        "threads_per_worker": 1,
        "batch_per_virtual_rank": setting.batch,
        "image_size": 224,
        "precision": kind.precision,
        "cache": "warm" if kind.warm else "none",
        "own_kernels": kind.kernels,
        "mbit": int(os.environ.get("FOVEA_BENCH_MBIT", 0)),
        "images_per_s": round(images / seconds, 2),
        "step_ms": round(step_ms, 1),
        "phases_ms": phases,
        "load_share": round(phases["load_ms"] / step_ms, 4),
        "reduce_share": round(phases["reduce_ms"] / step_ms, 4),
        # What is neither of the phases: session, ledger, digests, events.
        "other_share": round(1 - sum(phases.values()) / step_ms, 4),
        "worker_peak_rss_mib": rss,
        "gpu_memory_mib": gpu_mib,
        "steps": len(counted),
    }


def children(parent, name):
    """The children of `parent` whose names start so."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        theirs, rest = stat[stat.index("(") + 1:].rsplit(")", 1)
        if theirs.startswith(name) and int(rest.split()[1]) == parent:
            pids.append(int(entry.name))
    return pids


def processor_seconds(pid, thread=None):
    """What a process has computed so far, or those of its threads that have this name."""
    folder = Path("/proc") / str(pid)
    stats = [folder / "stat"] if thread is None else [task / "stat" for task in (folder / "task").iterdir()]
    ticks = 0
    for path in stats:
        try:
            stat = path.read_text()
        except OSError:
            continue
        name, rest = stat[stat.index("(") + 1:].rsplit(")", 1)
        if thread in (None, name):
            user, system = rest.split()[11:13]
            ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def gpu_memory_mib(pids):
    """Most memory of a GPU that one of these processes holds, or None where nobody can say."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, stdout=subprocess.PIPE, text=True, timeout=20)
        rows = [row.split(",") for row in done.stdout.splitlines() if row.count(",") == 1]
        return max((int(mib) for pid, mib in rows if int(pid) in pids), default=None)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def peak_rss_mib(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    rows = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(rows[0].split()[1]) // 1024 if rows else 0


def ask(peer, precision):
    """Runs the peer in the same number format. By itself PyTorch lets cuDNN multiply float32 in TF32; NVIDIA's libraries have a variable
    against it."""
    flags = {"bf16": ["--bf16"], "tf32": ["--tf32"] if peer.ours else []}.get(precision, [])
    variables = {"NVIDIA_TF32_OVERRIDE": "0"} if precision == "float32" else {}
    command = shlex.join(peer.words)
    done = subprocess.run([*peer.words, *flags], stdout=subprocess.PIPE, text=True, env={**os.environ, **variables})
    if done.returncode:
        raise Failed(f"the peer failed: {command}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not rows or "images_per_s" not in rows[-1]:
        raise Failed(f"the peer printed no JSON line with images_per_s: {command}")
    return {"name": "peer", **rows[-1]}


def failed(kind, problem):
    say({"name": "failed", "of": kind.text, "why": str(problem)[-2000:]})
    global exit_code
    exit_code = 1


def say(row):
    print(json.dumps(row), flush=True)


# 1 when a measurement failed.
exit_code = 0

if __name__ == "__main__":
    try:
        main()
    except Failed as problem:
        sys.exit(f"the measured run failed:\n{problem}")
    sys.exit(exit_code)
