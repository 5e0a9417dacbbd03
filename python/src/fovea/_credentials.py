"""What the caller shows the coordinator: a certificate, a token, or nothing. As the command `fovea` takes it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from fovea.errors import CredentialsError

_TOKEN = re.compile(r"(fv[tj]1)\.([0-9a-f]{64})\.[0-9a-f]{12}\.[0-9a-f]{32}")


@dataclass(frozen=True)
class Credentials:
    """A certificate with its key, a token, or neither; and the CA of the cluster, if it is given."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def are_given(self) -> bool:
        """Whether there is anything that asks for TLS."""
        return any((self.certificate, self.key, self.ca, self.token))

    @property
    def ca_sha256(self) -> str:
        """SHA-256 of the public key of the cluster's CA, which a token names."""
        return "" if self.token is None else self.token.split(".")[1]


Name = str | os.PathLike[str] | None


def find(certificate: Name, key: Name, ca: Name, token_file: Name) -> Credentials:
    """What is given, else what the environment names. A certificate or a token that is given replaces both of the
    environment.

    Raises CredentialsError if both or only a part is named, or if a file cannot be used.
    """
    named = [certificate, key, token_file]
    if not any(named):
        variables = ("FOVEA_TLS_CERTIFICATE", "FOVEA_TLS_KEY", "FOVEA_TOKEN_FILE")
        certificate, key, token_file = (os.environ.get(name) or None for name in variables)
    ca = ca or os.environ.get("FOVEA_TLS_CA") or None
    if token_file:
        if certificate or key:
            raise CredentialsError(
                "both a certificate (certificate=, key=, or FOVEA_TLS_CERTIFICATE, FOVEA_TLS_KEY) and a token "
                "(token_file= or FOVEA_TOKEN_FILE) are given; which one shall speak for you?"
            )
        # The token names the CA itself.
        return Credentials(token=_token(Path(token_file)))
    if not (certificate or key or ca):
        return Credentials()
    missing = [name for name, value in (("certificate", certificate), ("key", key), ("ca", ca)) if not value]
    if missing or not (certificate and key and ca):
        raise CredentialsError(
            f"{' and '.join(missing)} missing: TLS takes certificate=, key= and ca= (FOVEA_TLS_CERTIFICATE, FOVEA_TLS_KEY, "
            "FOVEA_TLS_CA), or token_file= (FOVEA_TOKEN_FILE) alone"
        )
    return Credentials(Path(certificate), Path(key), Path(ca))


def _token(path: Path) -> str:
    text = read_private("token file", path).decode("ascii", "replace").strip()
    match = _TOKEN.fullmatch(text)
    # The text is not repeated: it may be a secret, misspelt.
    if match is None:
        raise CredentialsError(
            f"{path}: this is not a token of Fovea; a token has one line, fvt1.… (an admin makes it with `fovea token create`)"
        )
    if match[1] == "fvj1":
        raise CredentialsError(
            f"{path}: this token is for workers that join; people need one of their own (`fovea token create --role viewer "
            "--name NAME`)"
        )
    return text


def read(what: str, path: Path) -> bytes:
    """The bytes of a file. Raises CredentialsError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{what} {path}: cannot be read: {error.strerror}") from error


def read_private(what: str, path: Path) -> bytes:
    """The bytes of a file that only its owner may read (mode 0600; 0640 if root owns it). Raises CredentialsError."""
    try:
        status = path.stat()
    except OSError as error:
        raise CredentialsError(f"{what} {path}: cannot be read: {error.strerror}") from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o037 if status.st_uid == 0 else 0o077):
        raise CredentialsError(f"{what} {path}: others can read it (mode {mode:04o}): chmod 600 {path}")
    return read(what, path)
