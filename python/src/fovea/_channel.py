"""The one way to open a channel to the coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from fovea import _credentials, _pin
from fovea._credentials import Credentials
from fovea.errors import AddressError

#: Version of the protocol; the coordinator refuses another.
PROTOCOL = 2
VERSION = "0.1.0"
#: The most bytes of one message.
_MESSAGE_BYTES = 300 << 20


def open_channel(address: str, credentials: Credentials, timeout: float) -> grpc.Channel:
    """A channel to `address`: https://host:port with TLS, http://host:port without, host:port, or file:PATH of a file that
    holds one of these and is read now.

    Raises AddressError, CredentialsError, or UnavailableError if nobody answers; without TLS the latter comes with the first
    request.
    """
    if address.startswith("file:"):
        address = _read_address(address)
    if "://" not in address:
        address = f"{'https' if credentials.are_given else 'http'}://{address}"
    scheme, host, port = _split(address)
    if scheme not in ("http", "https") or not host or not port:
        raise AddressError(
            f"{address!r} is not a coordinator's address; write it as https://host:port (http:// without TLS), or file:PATH of "
            "a file that holds it"
        )
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options: list[tuple[str, Any]] = [
        ("grpc.primary_user_agent", f"fovea/{VERSION} protocol/{PROTOCOL}"),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        # Pings notice a dead peer, also while a stream says nothing.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A coordinator that restarts is back in a second or two.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # As the command `fovea`: a proxy for the web is none for a cluster.
        ("grpc.enable_http_proxy", 0),
        # Each channel has its own connection: a long transfer does not hold up others.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if scheme == "http":
        if credentials.token is not None:
            raise AddressError(f"{address} is an address without TLS, and a token must not be sent in plain text: write https://")
        if credentials.are_given:
            raise AddressError(
                f"{address} is an address without TLS, and certificate, key and ca are given: write https://, or leave these "
                "out if the coordinator has no TLS (also FOVEA_TLS_CERTIFICATE, FOVEA_TLS_KEY, FOVEA_TLS_CA)"
            )
        return grpc.insecure_channel(target, options)
    if not credentials.are_given:
        raise AddressError(
            f"{address} is an address with TLS, which needs certificate, key and ca (`fovea certs issue` makes the files), or a "
            "token_file; write http:// if the coordinator has no TLS"
        )
    own: dict[str, bytes] = {}
    if credentials.certificate is not None and credentials.key is not None:
        own["private_key"] = _credentials.read_private("key", credentials.key)
        own["certificate_chain"] = _credentials.read("certificate", credentials.certificate)
    known = _pin.verify(host, port, credentials, timeout)
    options.append(("grpc.ssl_target_name_override", known.name))
    tls = grpc.ssl_channel_credentials(root_certificates=known.certificate, **own)
    return grpc.secure_channel(target, tls, options)


def _split(address: str) -> tuple[str, str, int]:
    """Scheme, host and port; empty and 0 where there is none."""
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname or "", parts.port or 0
    except ValueError:
        return "", "", 0


def _read_address(address: str) -> str:
    path = Path(address.removeprefix("file:").removeprefix("//"))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressError(
            f"cannot read the coordinator's address from {path}: {error}; the coordinator writes it with --address-file"
        ) from error
    if not text or text.startswith("file:"):
        raise AddressError(f"{path} holds no coordinator's address: {text!r}")
    return text
