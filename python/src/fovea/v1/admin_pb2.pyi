from fovea.v1 import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupPart(_message.Message):
    __slots__ = ("info", "data", "end")
    INFO_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    info: BackupInfo
    data: bytes
    end: BackupEnd
    def __init__(self, info: _Optional[_Union[BackupInfo, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[_Union[BackupEnd, _Mapping]] = ...) -> None: ...

class BackupInfo(_message.Message):
    __slots__ = ("bytes", "created_at_ms", "runs", "live_runs", "datasets")
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    LIVE_RUNS_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    created_at_ms: int
    runs: int
    live_runs: int
    datasets: int
    def __init__(self, bytes: _Optional[int] = ..., created_at_ms: _Optional[int] = ..., runs: _Optional[int] = ..., live_runs: _Optional[int] = ..., datasets: _Optional[int] = ...) -> None: ...

class BackupEnd(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class VerifyStoreRequest(_message.Message):
    __slots__ = ("skip_checkpoints", "skip_datasets", "skip_weights")
    SKIP_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    SKIP_DATASETS_FIELD_NUMBER: _ClassVar[int]
    SKIP_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    skip_checkpoints: bool
    skip_datasets: bool
    skip_weights: bool
    def __init__(self, skip_checkpoints: bool = ..., skip_datasets: bool = ..., skip_weights: bool = ...) -> None: ...

class VerifyStoreEvent(_message.Message):
    __slots__ = ("progress", "problem", "summary")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    progress: VerifyProgress
    problem: VerifyProblem
    summary: VerifySummary
    def __init__(self, progress: _Optional[_Union[VerifyProgress, _Mapping]] = ..., problem: _Optional[_Union[VerifyProblem, _Mapping]] = ..., summary: _Optional[_Union[VerifySummary, _Mapping]] = ...) -> None: ...

class VerifyProgress(_message.Message):
    __slots__ = ("read_bytes", "total_bytes", "what")
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    read_bytes: int
    total_bytes: int
    what: str
    def __init__(self, read_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., what: _Optional[str] = ...) -> None: ...

class VerifyProblem(_message.Message):
    __slots__ = ("what", "state", "problem", "action")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    what: str
    state: _common_pb2.FileState
    problem: str
    action: str
    def __init__(self, what: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.FileState, str]] = ..., problem: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class VerifySummary(_message.Message):
    __slots__ = ("checkpoints", "packs", "read_bytes", "problems", "weights", "objects")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    PACKS_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: int
    packs: int
    read_bytes: int
    problems: int
    weights: int
    objects: int
    def __init__(self, checkpoints: _Optional[int] = ..., packs: _Optional[int] = ..., read_bytes: _Optional[int] = ..., problems: _Optional[int] = ..., weights: _Optional[int] = ..., objects: _Optional[int] = ...) -> None: ...
