"""Who the coordinator is. gRPC for Python verifies a chain and a host name; Fovea knows members by the URI in their
certificate, fovea://CLUSTER/ROLE/NAME, and by the cluster's CA.

So before a channel is opened, a handshake by Python's own `ssl` verifies CA and URI, and the channel then accepts this very
certificate only. A token names the CA by the SHA-256 of its public key; the coordinator sends the CA's certificate along.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fovea import _credentials
from fovea._credentials import Credentials
from fovea.errors import CredentialsError, UnavailableError

#: Of `ssl.SSLSocket.get_unverified_chain`'s certificates before Python 3.13.
_DER = 2
_ROLE = "/coordinator/"


@dataclass(frozen=True)
class Coordinator:
    """A coordinator that was verified."""

    #: Its certificate, PEM: what a channel accepts.
    certificate: bytes
    #: A DNS name in it, which gRPC compares.
    name: str
    #: Such as fovea://eyes/coordinator/node-0.
    identity: str


def verify(host: str, port: int, credentials: Credentials, timeout: float) -> Coordinator:
    """Connects to host:port and verifies who answers.

    Raises CredentialsError if it is not the cluster's coordinator, UnavailableError if nobody answers.
    """
    if credentials.token is not None:
        authority = ssl.DER_cert_to_PEM_cert(_pinned_ca(host, port, credentials.ca_sha256, timeout))
    else:
        assert credentials.ca is not None, "credentials with a certificate have a CA"
        authority = _credentials.read("CA", credentials.ca).decode("ascii", "replace")
    context = _context()
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise CredentialsError(f"CA {credentials.ca}: it holds no certificate in PEM form: {error}") from error
    _load_own(context, credentials)
    with _handshake(context, host, port, timeout) as tls:
        der, parsed = tls.getpeercert(True), tls.getpeercert()
    assert der is not None and parsed is not None, "a verified peer has a certificate"
    names: Any = parsed.get("subjectAltName", ())
    identity = next((value for kind, value in names if kind == "URI" and value.startswith("fovea://")), "")
    if _ROLE not in identity.removeprefix("fovea:/"):
        found = identity or "no member of a cluster"
        raise CredentialsError(f"{host}:{port} is {found}, and a coordinator was expected: correct the address")
    hosts = [value for kind, value in names if kind == "DNS"]
    if not hosts:
        raise CredentialsError(
            f"the certificate of {identity} at {host}:{port} has no DNS name, which gRPC for Python needs, whatever it is: make "
            "one with `fovea certs issue coordinator NAME --host NAME`"
        )
    return Coordinator(ssl.DER_cert_to_PEM_cert(der).encode(), hosts[0], identity)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The URI is verified instead.
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    return context


def _load_own(context: ssl.SSLContext, credentials: Credentials) -> None:
    if credentials.certificate is None or credentials.key is None:
        return
    try:
        context.load_cert_chain(credentials.certificate, credentials.key)
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(
            f"certificate {credentials.certificate} with key {credentials.key} cannot be used: {error}"
        ) from error


def _handshake(context: ssl.SSLContext, host: str, port: int, timeout: float) -> ssl.SSLSocket:
    where = f"{host}:{port}"
    try:
        plain = socket.create_connection((host, port), timeout)
    except OSError as error:
        text = f"no coordinator answers at {where}: {error}; is fovea-coordinator running there?"
        raise UnavailableError("UNAVAILABLE", text) from error
    try:
        return context.wrap_socket(plain)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        text = f"the coordinator at {where} is not of the cluster of this CA: {error.verify_message}"
        raise CredentialsError(text) from error
    except ssl.SSLError as error:
        plain.close()
        text = f"no TLS with {where}: {error.reason or error}. Write http:// if the coordinator has no TLS"
        raise CredentialsError(text) from error
    except OSError as error:
        plain.close()
        raise UnavailableError("UNAVAILABLE", f"the connection to {where} broke: {error}") from error


def _pinned_ca(host: str, port: int, sha256: str, timeout: float) -> bytes:
    """The certificate (DER) whose public key has this SHA-256, of those that the coordinator sends. Nothing else is verified
    here."""
    context = _context()
    context.verify_mode = ssl.CERT_NONE
    with _handshake(context, host, port, timeout) as tls:
        chain = list(_chain(tls))
    for der in chain:
        if hashlib.sha256(public_key(der)).hexdigest() == sha256:
            return der
    raise CredentialsError(
        f"the coordinator at {host}:{port} is not of the cluster that this token is for: no certificate that it sends has the "
        "key of the CA that the token names"
    )


def _chain(tls: ssl.SSLSocket) -> Iterator[bytes]:
    """The certificates (DER) that the other end sent."""
    public = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        yield from public()
        return
    # Python 3.10 to 3.12 have it below the socket only.
    for certificate in tls._sslobj.get_unverified_chain():  # type: ignore[attr-defined]
        yield certificate.public_bytes(_DER)


def public_key(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, as it is encoded (RFC 5280, section 4.1). Raises CredentialsError."""
    try:
        _, inner, _ = _element(der, 0)
        _, position, _ = _element(der, inner)
        tag, _, after = _element(der, position)
        # The version, [0], may be absent. Then: serial number, algorithm, issuer, validity, subject.
        position = after if tag == 0xA0 else position
        for _ in range(5):
            _, _, position = _element(der, position)
        _, _, after = _element(der, position)
        return der[position:after]
    except IndexError as error:
        raise CredentialsError("the coordinator sent a certificate that is damaged") from error


def _element(der: bytes, position: int) -> tuple[int, int, int]:
    """Tag, begin of the content and end of the element at `position`."""
    tag, length, begin = der[position], der[position + 1], position + 2
    if length >= 0x80:
        octets = length & 0x7F
        length = int.from_bytes(der[begin : begin + octets], "big")
        begin += octets
    if begin + length > len(der):
        raise IndexError("an element is longer than what holds it")
    return tag, begin, begin + length
