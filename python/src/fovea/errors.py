"""What can go wrong. Every error of this package is a `FoveaError`; its text says what happened and what to do."""

from __future__ import annotations

import grpc


class FoveaError(Exception):
    """Base of all errors of this package."""


class AddressError(FoveaError, ValueError):
    """An address that is none, or a file of an address that cannot be read."""


class CredentialsError(FoveaError):
    """A certificate or token that is missing, cannot be read or used, or a coordinator that is not the cluster's."""


class SpecError(FoveaError, ValueError):
    """A run file or a spec with a wrong key or a value of the wrong type."""


class CheckpointError(FoveaError, ValueError):
    """A file that is no checkpoint."""


class DownloadError(FoveaError):
    """Bytes that differ in number or SHA-256 from what was announced. Nothing was written."""


class MissingExtraError(FoveaError, ImportError):
    """An optional package that is not installed."""


class RunFailedError(FoveaError):
    """A run that was waited for has failed."""


class RunCancelledError(FoveaError):
    """A run that was waited for was cancelled."""


class WaitTimeoutError(FoveaError, TimeoutError):
    """The time for waiting or watching is over. The run goes on."""


class CoordinatorError(FoveaError):
    """The coordinator refused a request, or could not be asked.

    `message` is the coordinator's own text; `code` is the gRPC status, such as `"NOT_FOUND"`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class UnavailableError(CoordinatorError):
    """No coordinator answers, or it cannot answer now. The same request may succeed later."""


class AnswerTimeoutError(CoordinatorError, TimeoutError):
    """There was no answer in time. A change may have been made all the same."""


class InvalidRequestError(CoordinatorError, ValueError):
    """Something in the request cannot be; the text names each key."""


class NotFoundError(CoordinatorError, LookupError):
    """There is no run, checkpoint or dataset of that name."""


class PreconditionError(CoordinatorError):
    """The state of something does not allow it, such as resuming a run that runs."""


class PermissionDeniedError(CoordinatorError):
    """The caller's role, certificate or token does not allow it."""


class LimitReachedError(CoordinatorError):
    """The coordinator is at a limit, or its disk is too full."""


class CorruptError(CoordinatorError):
    """The coordinator found its own file to be corrupt."""


_BY_CODE: dict[str, type[CoordinatorError]] = {
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": AnswerTimeoutError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "FAILED_PRECONDITION": PreconditionError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "UNAUTHENTICATED": PermissionDeniedError,
    "RESOURCE_EXHAUSTED": LimitReachedError,
    "DATA_LOSS": CorruptError,
}


def from_rpc(error: grpc.RpcError, address: str) -> CoordinatorError:
    """The error for what gRPC raises about the coordinator at `address`."""
    if not isinstance(error, grpc.Call):
        return CoordinatorError("UNKNOWN", str(error))
    code: str = error.code().name
    text = (error.details() or code).strip()
    # gRPC's own words about a connection do not say whose.
    if text.startswith("failed to connect"):
        reason = text.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")
        text = f"no coordinator answers at {address}: {reason}; is fovea-coordinator running there?"
    elif code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        text = f"the coordinator at {address}: {text}"
    return _BY_CODE.get(code, CoordinatorError)(code, text)
