"""A connection to a coordinator: how requests are made, and how their errors are told."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from types import ModuleType, TracebackType
from typing import Any, TypeVar

import grpc

from fovea import _convert, _credentials, types
from fovea._channel import open_channel
from fovea._stream import Stream
from fovea.errors import CoordinatorError, MissingExtraError, UnavailableError, from_rpc
from fovea.v1 import runs_pb2, runs_pb2_grpc

#: Where a coordinator listens unless it is told otherwise.
DEFAULT_COORDINATOR = "http://127.0.0.1:7070"

_Answer = TypeVar("_Answer")
_Name = str | os.PathLike[str]


class Requests:
    """Makes requests over one connection, which is made with the first of them."""

    def __init__(
        self,
        address: str | None = None,
        *,
        certificate: _Name | None = None,
        key: _Name | None = None,
        ca: _Name | None = None,
        token_file: _Name | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.address = address or os.environ.get("FOVEA_COORDINATOR") or DEFAULT_COORDINATOR
        self._credentials = _credentials.find(certificate, key, ca, token_file)
        self._timeout = timeout
        self._channel: grpc.Channel | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. The next request makes a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def run(self, run_id: str) -> types.Run:
        """A run as it is now."""
        request = runs_pb2.GetRunRequest(run_id=run_id)
        return _convert.run(self._ask(lambda stub, **how: stub.Get(request, **how)))

    def _open(self) -> grpc.Channel:
        return open_channel(self.address, self._credentials, self._timeout)

    def _connected(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = self._open()
        return self._channel

    def _metadata(self) -> list[tuple[str, str]]:
        token = self._credentials.token
        return [] if token is None else [("authorization", f"Bearer {token}")]

    def _ask(self, call: Callable[..., _Answer], stub: Callable[[grpc.Channel], Any] = runs_pb2_grpc.RunsStub) -> _Answer:
        """Makes a request for one answer: `call` gets the stub, and how to call it."""
        try:
            return call(stub(self._connected()), timeout=self._timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._failed(error) from error

    def _failed(self, error: grpc.RpcError) -> CoordinatorError:
        failed = from_rpc(error, self.address)
        if isinstance(failed, UnavailableError):
            # The coordinator may come back elsewhere, or with another certificate: the next request looks again.
            self._channel = None
        return failed

    def _stream(self, call: Callable[..., Any], stub: Callable[[grpc.Channel], Any]) -> Generator[Any, None, None]:
        """Makes a request for a stream, which is cancelled when the generator is closed."""
        try:
            with closing(Stream(call(stub(self._connected()), metadata=self._metadata()))) as messages:
                yield from messages
        except grpc.RpcError as error:
            raise self._failed(error) from error


def load_pandas() -> ModuleType:
    """pandas, which is optional."""
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("pandas is not installed: pip install pandas") from error
    return pandas
