from fovea.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_IDLE: _ClassVar[WorkerState]
    WORKER_STATE_PREPARING: _ClassVar[WorkerState]
    WORKER_STATE_TRAINING: _ClassVar[WorkerState]
    WORKER_STATE_WAITING: _ClassVar[WorkerState]
    WORKER_STATE_BARRED: _ClassVar[WorkerState]
    WORKER_STATE_LEFT_OUT: _ClassVar[WorkerState]
    WORKER_STATE_LEAVING: _ClassVar[WorkerState]
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_IDLE: WorkerState
WORKER_STATE_PREPARING: WorkerState
WORKER_STATE_TRAINING: WorkerState
WORKER_STATE_WAITING: WorkerState
WORKER_STATE_BARRED: WorkerState
WORKER_STATE_LEFT_OUT: WorkerState
WORKER_STATE_LEAVING: WorkerState

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("version", "up_ms", "disk_free_bytes", "disk_min_free_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UP_MS_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_MIN_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    up_ms: int
    disk_free_bytes: int
    disk_min_free_bytes: int
    def __init__(self, version: _Optional[str] = ..., up_ms: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., disk_min_free_bytes: _Optional[int] = ...) -> None: ...

class ListQueueRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListQueueResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[QueuedRun]
    def __init__(self, runs: _Optional[_Iterable[_Union[QueuedRun, _Mapping]]] = ...) -> None: ...

class QueuedRun(_message.Message):
    __slots__ = ("run_id", "priority", "place", "submitted_by", "min_workers", "max_workers", "waited_ms", "waiting")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    MIN_WORKERS_FIELD_NUMBER: _ClassVar[int]
    MAX_WORKERS_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    priority: _common_pb2.Priority
    place: _common_pb2.Priority
    submitted_by: str
    min_workers: int
    max_workers: int
    waited_ms: int
    waiting: str
    def __init__(self, run_id: _Optional[str] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., place: _Optional[_Union[_common_pb2.Priority, str]] = ..., submitted_by: _Optional[str] = ..., min_workers: _Optional[int] = ..., max_workers: _Optional[int] = ..., waited_ms: _Optional[int] = ..., waiting: _Optional[str] = ...) -> None: ...

class DenyWorkerRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DenyWorkerResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: int
    def __init__(self, sessions: _Optional[int] = ...) -> None: ...

class AllowWorkerRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class AllowWorkerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDeniedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDeniedResponse(_message.Message):
    __slots__ = ("denied",)
    DENIED_FIELD_NUMBER: _ClassVar[int]
    denied: _containers.RepeatedCompositeFieldContainer[DeniedWorker]
    def __init__(self, denied: _Optional[_Iterable[_Union[DeniedWorker, _Mapping]]] = ...) -> None: ...

class DeniedWorker(_message.Message):
    __slots__ = ("name", "reason", "since_ms", "by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    since_ms: int
    by: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ..., since_ms: _Optional[int] = ..., by: _Optional[str] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("id", "state", "reason", "host", "address", "device", "version", "host_bytes", "gpu_bytes", "gpu_free_bytes", "run_id", "first_virtual_rank", "virtual_ranks", "last_seen_ms", "connected_ms", "left_out", "token_id", "load")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_VIRTUAL_RANK_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_RANKS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_MS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_MS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: WorkerState
    reason: str
    host: str
    address: str
    device: str
    version: str
    host_bytes: int
    gpu_bytes: int
    gpu_free_bytes: int
    run_id: str
    first_virtual_rank: int
    virtual_ranks: int
    last_seen_ms: int
    connected_ms: int
    left_out: _containers.RepeatedCompositeFieldContainer[_common_pb2.LeftOut]
    token_id: str
    load: _common_pb2.Load
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str]] = ..., reason: _Optional[str] = ..., host: _Optional[str] = ..., address: _Optional[str] = ..., device: _Optional[str] = ..., version: _Optional[str] = ..., host_bytes: _Optional[int] = ..., gpu_bytes: _Optional[int] = ..., gpu_free_bytes: _Optional[int] = ..., run_id: _Optional[str] = ..., first_virtual_rank: _Optional[int] = ..., virtual_ranks: _Optional[int] = ..., last_seen_ms: _Optional[int] = ..., connected_ms: _Optional[int] = ..., left_out: _Optional[_Iterable[_Union[_common_pb2.LeftOut, _Mapping]]] = ..., token_id: _Optional[str] = ..., load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ...) -> None: ...
