#!/usr/bin/env python3
"""Puts libtorch into `.libtorch/` of this repository, for `cargo build` to link and the worker to load.

The libraries come from three wheels of the Python package index: torch itself and the two small CUDA
libraries that its CPU half asks for at load time. No Python package is installed, and no GPU is needed.

    .libtorch/site/torch/{lib,include}   what the torch wheel holds, in the wheel's own layout
    .libtorch/site/nvidia/cu13/lib       the CUDA run time and CUPTI; torch finds them through $ORIGIN
    .libtorch/link/{lib,include}         links for the linker: the CPU libraries only, so that nothing
                                         built here *requires* a CUDA library
    .libtorch/stamp.json                 written last: what lies there and that it is whole

Run it again at any time: a whole set-up is recognised at once, finished downloads are kept, and a
half-extracted tree is never mistaken for a whole one.

Environment:
    FOVEA_LIBTORCH_WHEELS   a folder that already holds the three wheels; nothing is downloaded then
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".libtorch"
SITE = HOME / "site"
STAMP = HOME / "stamp.json"

# Raise when the layout that this script makes changes: older set-ups are then made anew.
LAYOUT = 1

# (requirement, file name, sha256, folders and files kept out of it)
WHEELS = [
    (
        "torch==2.11.0",
        "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
        ("torch/lib/", "torch/include/", "torch-2.11.0.dist-info/licenses/"),
    ),
    (
        "nvidia-cuda-runtime==13.0.96",
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        ("nvidia/cu13/lib/", "nvidia_cuda_runtime-13.0.96.dist-info/licenses/"),
    ),
    (
        "nvidia-cuda-cupti==13.0.85",
        "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        ("nvidia/cu13/lib/", "nvidia_cuda_cupti-13.0.85.dist-info/licenses/"),
    ),
]

# In the wheels, but of no use to a program without Python.
UNUSED = ("libtorch_python.so", "libcudart_static.a", "libcudadevrt.a")

# What the linker may see. Without libtorch_cuda.so here, tch links no CUDA library; without
# libgomp.so, linking would need the one that only gcc brings.
LINKED = {
    "libtorch.so": "libtorch.so",
    "libtorch_cpu.so": "libtorch_cpu.so",
    "libc10.so": "libc10.so",
    "libgomp.so.1": "libgomp.so.1",
    "libgomp.so": "libgomp.so.1",
}

EXTRACTED_BYTES = 1_250_000_000
WHEEL_BYTES = 545_000_000


def main():
    check_platform()
    HOME.mkdir(exist_ok=True)
    with open(HOME / "lock", "w") as lock:
        take(lock)
        reason = not_whole()
        if reason is None:
            make_links()
            print(f"libtorch is in place: {SITE.relative_to(ROOT)}")
            return
        print(f"libtorch: {reason}")
        wheels = [find_or_fetch(*wheel[:3]) for wheel in WHEELS]
        extract(wheels)
        make_links()
        write_stamp()
        shutil.rmtree(HOME / "wheels", ignore_errors=True)
        print(f"libtorch is in place: {SITE.relative_to(ROOT)}")


def check_platform():
    if sys.version_info < (3, 8):
        fail("this script needs Python 3.8 or newer", f"it runs under {platform.python_version()}")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        fail(
            f"the pinned libtorch is for Linux on x86-64, and this is {platform.system()} on {platform.machine()}",
            "build on such a machine or in a container of that platform, "
            "or set LIBTORCH to a libtorch 2.11.0 of your own and skip this script",
        )
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < (2, 28):
        fail(
            f"the pinned libtorch needs glibc 2.28 or newer, and this system has {name or 'another C library'} {version}",
            "use a distribution of 2018 or later that is built on glibc (not Alpine)",
        )


def take(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("libtorch: another set-up of this checkout is running; waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def not_whole():
    """Why the set-up has to be made, or None where it is complete and of these very wheels."""
    try:
        stamp = json.loads(STAMP.read_text())
    except FileNotFoundError:
        return "not set up yet"
    except ValueError:
        return f"{STAMP.name} cannot be read; setting up anew"
    if stamp.get("layout") != LAYOUT or stamp.get("wheels") != {w[1]: w[2] for w in WHEELS}:
        return "set up from other versions; setting up anew"
    for path, size in stamp["libraries"].items():
        file = SITE / path
        if not file.is_file() or file.stat().st_size != size:
            return f"{path} is missing or has another size than when it was set up; setting up anew"
    if not (SITE / "torch/include/torch").is_dir():
        return "torch/include is missing; setting up anew"
    return None


def find_or_fetch(requirement, name, sha256):
    """The path of the wheel `name`, its digest checked; fetched with pip if it is not here yet."""
    offline = os.environ.get("FOVEA_LIBTORCH_WHEELS")
    if offline:
        wheel = Path(offline) / name
        if not wheel.is_file():
            fail(
                f"{name} is not in {offline} (FOVEA_LIBTORCH_WHEELS)",
                "put it there, or unset the variable to have it downloaded",
            )
        found = digest(wheel)
        if found != sha256:
            fail(f"{wheel} has the sha256 {found}, and {sha256} is expected", "replace it by the published wheel")
        return wheel

    folder = HOME / "wheels"
    wheel = folder / name
    if wheel.is_file():
        if digest(wheel) == sha256:
            print(f"libtorch: {name} is downloaded already")
            return wheel
        print(f"libtorch: {name} is damaged; fetching it again")
        wheel.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    need_space(EXTRACTED_BYTES + WHEEL_BYTES)
    run_pip(requirement, folder)
    if not wheel.is_file():
        fail(
            f"pip fetched {requirement}, but not as {name}: {sorted(p.name for p in folder.iterdir())}",
            "is the package index that pip is set to a full mirror?",
        )
    found = digest(wheel)
    if found != sha256:
        wheel.unlink()
        fail(
            f"the downloaded {name} has the sha256 {found}, and {sha256} is expected; it was deleted",
            "run this again; if it happens twice, something between here and the package index changes files",
        )
    return wheel


def run_pip(requirement, folder):
    pip = [sys.executable, "-m", "pip"]
    version = subprocess.run(pip + ["--version"], capture_output=True, text=True)
    if version.returncode != 0:
        fail(
            f"{sys.executable} has no pip, which fetches libtorch",
            "install it (Debian and Ubuntu: apt install python3-pip; elsewhere: python3 -m ensurepip), "
            "or name a folder with the wheels in FOVEA_LIBTORCH_WHEELS",
        )
    # One Python and a list of platforms are named, so that every user's pip picks the same files.
    command = pip + ["download", requirement, "--dest", str(folder), "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--retries", "5", "--timeout", "60"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--abi", "none"]
    for minor in range(28, 16, -1):
        command += ["--platform", f"manylinux_2_{minor}_x86_64"]
    command += ["--platform", "manylinux2014_x86_64"]
    major, minor = (int(n) for n in re.findall(r"\d+", version.stdout)[:2])
    if (major, minor) >= (25, 1):
        command += ["--resume-retries", "20"]
    # pip writes half a gigabyte to the folder for temporary files first, which may be small.
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = dict(os.environ, TMPDIR=str(scratch))
    print(f"libtorch: fetching {requirement} with pip", flush=True)
    for attempt in range(1, 4):
        if subprocess.run(command, env=environment).returncode == 0:
            return
        if attempt < 3:
            print(f"libtorch: attempt {attempt} of 3 failed; trying again in {attempt * 5} s", flush=True)
            time.sleep(attempt * 5)
    fail(
        f"pip could not fetch {requirement} (its own message is above)",
        "check the network and pip's settings, then run this again: wheels already fetched are kept",
    )


def extract(wheels):
    """Unpacks what is needed of the wheels beside the final place, then renames it into place."""
    # Stamp and old tree go first: from here until the new stamp nothing counts as set up.
    STAMP.unlink(missing_ok=True)
    half = HOME / "site.half"
    for old in (half, SITE):
        if old.exists():
            shutil.rmtree(old)
    need_space(EXTRACTED_BYTES)
    half.mkdir()
    for wheel, (requirement, _, _, kept) in zip(wheels, WHEELS):
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.infolist() if wanted(m, kept)]
            total = sum(m.file_size for m in members)
            done, shown = 0, 0
            for member in members:
                archive.extract(member, half)
                done += member.file_size
                if done * 10 // max(total, 1) > shown:
                    shown = done * 10 // total
                    print(f"\rlibtorch: unpacking {requirement}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", end="", flush=True)
            print()
    os.rename(half, SITE)


def wanted(member, kept):
    return (
        not member.is_dir()
        and member.filename.startswith(kept)
        and member.filename.rsplit("/", 1)[-1] not in UNUSED
    )


def make_links():
    """`.libtorch/link`, relative links, so that the checkout may be moved."""
    link = HOME / "link"
    (link / "lib").mkdir(parents=True, exist_ok=True)
    wanted_links = {link / "include": "../site/torch/include"}
    for name, target in LINKED.items():
        wanted_links[link / "lib" / name] = f"../../site/torch/lib/{target}"
    for path, target in wanted_links.items():
        if path.is_symlink() and os.readlink(path) == target:
            continue
        if path.is_symlink() or path.exists():
            path.unlink()
        path.symlink_to(target)
    for path in (link / "lib").iterdir():
        if path.name not in LINKED:
            path.unlink()
    # torch-sys reads this and refuses to build against another version than it was written for.
    version = link / "build-version"
    if not version.is_file() or version.read_text() != "2.11.0\n":
        version.write_text("2.11.0\n")


def write_stamp():
    libraries = {}
    for path in sorted(SITE.rglob("*.so*")):
        libraries[str(path.relative_to(SITE))] = path.stat().st_size
    for name in ("torch/lib/libtorch_cpu.so", "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcupti.so.13"):
        if name not in libraries:
            fail(f"{name} was not in the wheels", "the pinned wheels and this script do not fit; report this")
    stamp = {"layout": LAYOUT, "wheels": {w[1]: w[2] for w in WHEELS}, "libraries": libraries}
    half = STAMP.with_suffix(".half")
    half.write_text(json.dumps(stamp, indent=1) + "\n")
    os.sync()
    os.rename(half, STAMP)


def need_space(needed):
    free = shutil.disk_usage(HOME).free
    if free < needed:
        fail(
            f"{HOME} has {free / 1e9:.1f} GB free, and setting up libtorch needs {needed / 1e9:.1f} GB",
            "free some, or make .libtorch a link to a folder on another disk",
        )


def digest(path):
    state = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            state.update(block)
    return state.hexdigest()


def fail(problem, advice):
    sys.exit(f"\nlibtorch: {problem}.\n  What to do: {advice}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nlibtorch: stopped. Run it again to go on; finished downloads are kept.")
    except (OSError, zipfile.BadZipFile) as error:
        fail(f"{error}", "free disk space or repair the permissions of .libtorch, then run this again")
