"""A file that is being fetched: temporary beside its target, verified, and only then renamed."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from fovea.errors import DownloadError


def write_verified(target: Path, chunks: Iterator[bytes], size: int, sha256: str, overwrite: bool, what: str) -> None:
    """Writes `chunks` to `target`, which appears complete or not at all.

    Raises DownloadError if there are not `size` bytes with this SHA-256, FileExistsError if the file is there and not to be
    replaced, OSError if it cannot be written.
    """
    check_target(target, overwrite)
    temporary = target.parent / f".fovea-{secrets.token_hex(8)}.part"
    # It keeps its mode when it gets its name: that of any file that a program makes, as the umask has it.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        digest, received = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                received += len(chunk)
                digest.update(chunk)
                file.write(chunk)
            if received != size:
                raise DownloadError(f"{what}: {received} bytes arrived, and {size} were announced; try again")
            if digest.hexdigest() != sha256.lower():
                raise DownloadError(f"{what}: its SHA-256 is {digest.hexdigest()}, and {sha256} was announced; try again")
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            # Unlike a rename, it fails if the file was made meanwhile.
            os.link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(target: Path, overwrite: bool) -> None:
    """Raises FileExistsError if `target` is there and not to be replaced. To be asked before anything is fetched."""
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(f"{target} is there already; overwrite=True replaces it")
