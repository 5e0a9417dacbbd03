"""A request that is answered by a stream of messages."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

#: The longest wait for a cancelled stream to end, seconds. It takes no network: gRPC's own thread ends it.
_END = 5.0


class Stream:
    """The messages of a call. Closing it cancels the call, and returns when gRPC has done with it.

    A program that ends at once after a mere `cancel` may never end: gRPC's thread, which is about to report the end of the call,
    stops with Python and keeps the lock that the call's own removal then waits for.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._ended = threading.Event()
        call.add_done_callback(lambda _: self._ended.set())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call)

    def close(self) -> None:
        self._call.cancel()
        # A stream that Python closes as it ends itself has no thread any more that could report.
        if not sys.is_finalizing():
            self._ended.wait(_END)
