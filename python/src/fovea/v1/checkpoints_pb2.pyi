from fovea.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CheckpointPlace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECKPOINT_PLACE_UNSPECIFIED: _ClassVar[CheckpointPlace]
    CHECKPOINT_PLACE_LOCAL: _ClassVar[CheckpointPlace]
    CHECKPOINT_PLACE_REMOTE: _ClassVar[CheckpointPlace]
    CHECKPOINT_PLACE_BOTH: _ClassVar[CheckpointPlace]
    CHECKPOINT_PLACE_NOWHERE: _ClassVar[CheckpointPlace]
CHECKPOINT_PLACE_UNSPECIFIED: CheckpointPlace
CHECKPOINT_PLACE_LOCAL: CheckpointPlace
CHECKPOINT_PLACE_REMOTE: CheckpointPlace
CHECKPOINT_PLACE_BOTH: CheckpointPlace
CHECKPOINT_PLACE_NOWHERE: CheckpointPlace

class VerifyCheckpointsRequest(_message.Message):
    __slots__ = ("run_id", "step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class VerifyCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[VerifiedCheckpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[VerifiedCheckpoint, _Mapping]]] = ...) -> None: ...

class VerifiedCheckpoint(_message.Message):
    __slots__ = ("checkpoint", "problem", "state", "manifest_state", "manifest_problem")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_STATE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    checkpoint: _common_pb2.Checkpoint
    problem: str
    state: _common_pb2.FileState
    manifest_state: _common_pb2.FileState
    manifest_problem: str
    def __init__(self, checkpoint: _Optional[_Union[_common_pb2.Checkpoint, _Mapping]] = ..., problem: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.FileState, str]] = ..., manifest_state: _Optional[_Union[_common_pb2.FileState, str]] = ..., manifest_problem: _Optional[str] = ...) -> None: ...

class DeleteCheckpointRequest(_message.Message):
    __slots__ = ("run_id", "step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class DeleteCheckpointResponse(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints", "places", "store_problem")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    STORE_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[_common_pb2.Checkpoint]
    places: _containers.RepeatedScalarFieldContainer[CheckpointPlace]
    store_problem: str
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[_common_pb2.Checkpoint, _Mapping]]] = ..., places: _Optional[_Iterable[_Union[CheckpointPlace, str]]] = ..., store_problem: _Optional[str] = ...) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ("run_id", "step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class CheckpointChunk(_message.Message):
    __slots__ = ("info", "data")
    INFO_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    info: _common_pb2.Checkpoint
    data: bytes
    def __init__(self, info: _Optional[_Union[_common_pb2.Checkpoint, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...
