from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateWeightsRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: WeightsHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[WeightsHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class WeightsHeader(_message.Message):
    __slots__ = ("name", "file_name", "sha256", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    file_name: str
    sha256: str
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., file_name: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class CreateWeightsResponse(_message.Message):
    __slots__ = ("weights", "outcome")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[CreateWeightsResponse.Outcome]
        OUTCOME_ADDED: _ClassVar[CreateWeightsResponse.Outcome]
        OUTCOME_UNCHANGED: _ClassVar[CreateWeightsResponse.Outcome]
        OUTCOME_REPAIRED: _ClassVar[CreateWeightsResponse.Outcome]
    OUTCOME_UNSPECIFIED: CreateWeightsResponse.Outcome
    OUTCOME_ADDED: CreateWeightsResponse.Outcome
    OUTCOME_UNCHANGED: CreateWeightsResponse.Outcome
    OUTCOME_REPAIRED: CreateWeightsResponse.Outcome
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    weights: StoredWeights
    outcome: CreateWeightsResponse.Outcome
    def __init__(self, weights: _Optional[_Union[StoredWeights, _Mapping]] = ..., outcome: _Optional[_Union[CreateWeightsResponse.Outcome, str]] = ...) -> None: ...

class ListWeightsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWeightsResponse(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedCompositeFieldContainer[StoredWeights]
    def __init__(self, weights: _Optional[_Iterable[_Union[StoredWeights, _Mapping]]] = ...) -> None: ...

class FetchWeightsRequest(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class WeightsChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class DeleteWeightsRequest(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: str
    def __init__(self, weights: _Optional[str] = ...) -> None: ...

class DeleteWeightsResponse(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...

class StoredWeights(_message.Message):
    __slots__ = ("name", "sha256", "size_bytes", "added_at_ms", "format", "layers", "ignored", "used_by", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ADDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_FIELD_NUMBER: _ClassVar[int]
    USED_BY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    size_bytes: int
    added_at_ms: int
    format: str
    layers: _containers.RepeatedCompositeFieldContainer[WeightsLayer]
    ignored: _containers.RepeatedCompositeFieldContainer[IgnoredLayer]
    used_by: _containers.RepeatedScalarFieldContainer[str]
    problem: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., added_at_ms: _Optional[int] = ..., format: _Optional[str] = ..., layers: _Optional[_Iterable[_Union[WeightsLayer, _Mapping]]] = ..., ignored: _Optional[_Iterable[_Union[IgnoredLayer, _Mapping]]] = ..., used_by: _Optional[_Iterable[str]] = ..., problem: _Optional[str] = ...) -> None: ...

class WeightsLayer(_message.Message):
    __slots__ = ("name", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class IgnoredLayer(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
