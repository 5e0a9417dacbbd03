#!/usr/bin/env python3
"""Generates src/fovea/v1 from proto/fovea/v1, or says with --check whether it is current.

    python python/generate.py [--check]

It takes the version of grpcio-tools that pyproject.toml names: another one writes other code.
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent / "proto"
SOURCES = HERE / "src"
PINNED = "1.76.0"


def generate(out: Path) -> None:
    """Writes modules and their types for every .proto below `out`."""
    from grpc_tools import protoc

    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("fovea/v1/*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{PROTO}", *outputs, *files]) != 0:
        sys.exit("generate.py: protoc failed; its message is above")


def generated(folder: Path) -> dict[str, bytes]:
    """The generated files below `folder`, by name."""
    return {path.name: path.read_bytes() for path in (folder / "fovea/v1").glob("*_pb2*.py*")}


def main() -> None:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    if version("grpcio-tools") != PINNED:
        sys.exit(f"generate.py: grpcio-tools {PINNED} is needed, and this is {version('grpcio-tools')}")
    with tempfile.TemporaryDirectory() as temporary:
        generate(Path(temporary))
        new, old = generated(Path(temporary)), generated(SOURCES)
        if sys.argv[1:] == ["--check"]:
            stale = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
            if stale:
                sys.exit(f"src/fovea/v1 is not current: {', '.join(stale)}. Run python/generate.py.")
            return
        for name in old.keys() - new.keys():
            (SOURCES / "fovea/v1" / name).unlink()
        for name, content in new.items():
            (SOURCES / "fovea/v1" / name).write_bytes(content)


if __name__ == "__main__":
    main()
