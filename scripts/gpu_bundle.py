#!/usr/bin/env python3
"""Packs programs, tests and benchmark for a machine with a GPU that has no compiler and no network.

    scripts/gpu_bundle.py OUT.tar.xz      after `cargo build --release`; CARGO names another cargo

There:  tar xf OUT.tar.xz && python3 fovea-gpu/bench/on_gpu.py
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ["fovea", "fovea-coordinator", "fovea-worker"]
SCRIPTS = ["bench.py", "gpu_trace.py", "on_gpu.py", "peer_torch.py"]
FOLDER = "fovea-gpu"
MOST_BYTES = 30_000_000


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    files = {f"target/release/{name}": ROOT / "target" / "release" / name for name in PROGRAMS}
    files["target/release/deps/gpu"] = tests_program()
    part = out.with_name(out.name + ".part")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(part, "w:xz", preset=9) as tar:
        for number, (name, path) in enumerate(files.items()):
            stripped = Path(folder) / str(number)
            command = ["strip", "-o", str(stripped), str(path)]
            if subprocess.run(command).returncode:
                sys.exit(f"{' '.join(command)} failed: is {path} built, and is binutils installed?")
            tar.add(stripped, f"{FOLDER}/{name}")
        for name in SCRIPTS:
            tar.add(ROOT / "bench" / name, f"{FOLDER}/bench/{name}")
    size = part.stat().st_size
    if size > MOST_BYTES:
        part.unlink()
        sys.exit(f"the bundle has {size:,} bytes, more than {MOST_BYTES:,}: what has made the programs larger?")
    part.rename(out)
    print(f"{out}: {size / 1e6:.1f} MB\non a machine with an NVIDIA GPU and PyTorch 2.11 for CUDA:\n"
          f"  tar xf {out.name} && python3 {FOLDER}/bench/on_gpu.py")


def tests_program():
    """Builds the tests on a GPU."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "test", "--release", "--workspace", "--locked", "--no-run", "--test", "gpu", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    for line in done.stdout.splitlines():
        row = json.loads(line)
        if row.get("reason") == "compiler-artifact" and row["target"]["name"] == "gpu" and row.get("executable"):
            return Path(row["executable"])
    sys.exit(f"{' '.join(command)} named no program")


if __name__ == "__main__":
    main()
