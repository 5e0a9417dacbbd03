#!/usr/bin/env python3
"""Tests and measures Fovea on this machine's GPU, without a network, and prints one summary.

    python3 on_gpu.py                   with a Python that has PyTorch 2.11 for CUDA: its libraries are what Fovea computes with

What runs, in this order: the report on devices, a step by Fovea's own kernels compared with libtorch, the tests on one GPU (bits, losses,
NCCL, a killed worker), the benchmark beside PyTorch, eager and compiled. All that is printed lies in the folder of --out afterwards.
Exit code 0 if nothing failed.

`make gpu-bundle` packs it with the programs into one file for a machine without a compiler.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "target" / "release"
# The longest time for the tests, the least that is left to the benchmark, and the longest for whole epochs, seconds.
TESTS, BENCHMARK, EPOCH = 150, 60, 600


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6, help="how long all of it may take, about")
    parser.add_argument("--batch", type=int, default=256, help="images in a step of the benchmark")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--epoch", type=int, metavar="IMAGES",
                        help="afterwards, measure whole epochs over so many images, too (EyePACS: 35126); the drawings take some minutes more")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder for all output")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * arguments.minutes
    environment = with_libraries()
    worker = [PROGRAMS / "fovea-worker", "--device", arguments.device, "--data-dir", arguments.out / "worker"]

    def step(name, command, limit):
        return run(name, command, environment, arguments.out / f"{name}.txt", limit)

    results = {"devices": step("devices", [*worker, "devices"], 60)}
    usable = any(line.startswith("libtorch_cuda") and "loaded, sees" in line for line in results["devices"][1].splitlines())
    if not usable:
        results["devices"] = (False, "")
        print("there is no GPU here that Fovea can use; the report above says what is missing")
    else:
        results["own kernels"] = step("kernels", [*worker, "devices", "--check", "--time", "20"], 120)
        tests = [tests_program(), "--include-ignored", "--nocapture", "on_one_gpu"]
        results["tests"] = step("tests", tests, TESTS)
        left = max(BENCHMARK, until - time.monotonic())
        bench = [sys.executable, ROOT / "bench" / "bench.py", "--device", arguments.device, "--batch", arguments.batch,
                 "--minutes", round(left / 60 * 0.8, 2)]
        results["benchmark"] = step("benchmark", bench, 2 * left)
        if arguments.epoch:
            epoch = [*bench[:-2], "--epoch", arguments.epoch]
            results["epoch"] = step("epoch", epoch, EPOCH)
    print_summary(results)
    sys.exit(0 if all(passed for passed, _ in results.values()) else 1)


def with_libraries():
    """The environment, with this Python's PyTorch where Fovea looks for libtorch and CUDA's libraries."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        sys.exit(f"{sys.executable} has no PyTorch, whose libraries Fovea computes with: run this with a Python that has PyTorch 2.11 for CUDA")
    libraries = Path(found.submodule_search_locations[0]) / "lib"
    if not (libraries / "libtorch_cuda.so").exists():
        sys.exit(f"{libraries} has no libtorch_cuda.so: this PyTorch was built without CUDA")
    before = os.environ.get("LD_LIBRARY_PATH")
    return {**os.environ, "LD_LIBRARY_PATH": f"{libraries}:{before}" if before else str(libraries), "RUST_BACKTRACE": "0"}


def tests_program():
    """The tests on a GPU: in a bundle by this name; in a checkout `make test-gpu` builds them."""
    path = PROGRAMS / "deps" / "gpu"
    if not path.exists():
        sys.exit(f"{path} is not there: run this in what `make gpu-bundle` packs")
    return path


def run(name, command, environment, log, limit):
    """Runs it with its output going to the terminal and to `log`. Returns whether it succeeded, and the output."""
    print(f"== {name}", flush=True)
    begun = time.monotonic()
    words = [str(word) for word in command]
    text = []
    with open(log, "w") as file:
        process = subprocess.Popen(["timeout", "--kill-after=10", str(int(limit)), *words], env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
            text.append(line)
    code = process.wait()
    took = f"{time.monotonic() - begun:.0f} s"
    said = {0: "passed", 124: f"was stopped: it took longer than {limit:.0f} s"}.get(code, f"failed with exit code {code}")
    print(f"== {name} {said} ({took})", flush=True)
    return code == 0, "".join(text)


def print_summary(results):
    import gpu_trace

    print("\n== summary")
    for name, (passed, _) in results.items():
        print(f"{name:12} {'passed' if passed else 'FAILED'}")
    lines = results.get("benchmark", (True, ""))[1].splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    named = {}
    for row in rows:
        named.setdefault(row["name"], []).append(row)
    measured = named.get("recipe", []) + named.get("peer", [])
    if measured:
        print(f"\n{'precision':10} {'what':40} {'images/s':>10} {'ms a step':>10}")
    for row in sorted(measured, key=lambda row: (row["precision"], row["images_per_s"])):
        who = f"PyTorch {row['peer']}" if row["name"] == "peer" else (
            f"Fovea, {'own kernels' if row['own_kernels'] else 'libtorch'}, {'cache warm' if row['cache'] == 'warm' else 'no cache'}")
        print(f"{row['precision']:10} {who:40} {row['images_per_s']:10,.0f} {row['step_ms']:10.2f}")
    for row in (json.loads(line) for line in results.get("epoch", (True, ""))[1].splitlines() if line.startswith("{")):
        if row["name"] == "epoch":
            by = "own kernels" if row["own_kernels"] else "libtorch"
            print(f"epoch over {row['images']:,} images, {row['precision']}, {by}: {row['median_s']} s, the first {row['first_s']} s")
    for row in named.get("ratio-to-the-faster-peer", []):
        print(f"{row['what']}: {row['median']:.2f} times the faster PyTorch")
    traces = [(row["of"], row) for row in named.get("trace", []) if "most_expensive" in row]
    traces += [(f"PyTorch {row['peer']}, {row['precision']}", row["kernels"]) for row in named.get("peer", []) if row.get("kernels")]
    for what, row in traces:
        print(f"\n{what}: {gpu_trace.table(row)}")
    for row in named.get("failed", []) + named.get("left-out", []) + named.get("no-peer", []):
        print(f"{row['name']}: {row.get('of', row.get('what', ''))} {row['why'].strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
