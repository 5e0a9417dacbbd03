from fovea.v1 import common_pb2 as _common_pb2
from fovea.v1 import runs_pb2 as _runs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitGroupRequest(_message.Message):
    __slots__ = ("spec", "folds", "seeds", "variants", "selection")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    FOLDS_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    spec: _common_pb2.RunSpec
    folds: int
    seeds: _containers.RepeatedScalarFieldContainer[int]
    variants: _containers.RepeatedCompositeFieldContainer[Variant]
    selection: Selection
    def __init__(self, spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., folds: _Optional[int] = ..., seeds: _Optional[_Iterable[int]] = ..., variants: _Optional[_Iterable[_Union[Variant, _Mapping]]] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ...) -> None: ...

class Variant(_message.Message):
    __slots__ = ("label", "spec")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    label: str
    spec: _common_pb2.RunSpec
    def __init__(self, label: _Optional[str] = ..., spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("by", "after_epochs", "keep_one_of", "patience")
    BY_FIELD_NUMBER: _ClassVar[int]
    AFTER_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    KEEP_ONE_OF_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    by: _common_pb2.BestBy
    after_epochs: _containers.RepeatedScalarFieldContainer[int]
    keep_one_of: int
    patience: int
    def __init__(self, by: _Optional[_Union[_common_pb2.BestBy, str]] = ..., after_epochs: _Optional[_Iterable[int]] = ..., keep_one_of: _Optional[int] = ..., patience: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("id", "name", "submitted_at_ms", "submitted_by", "runs", "variants", "selection", "deciding")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    DECIDING_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    submitted_at_ms: int
    submitted_by: str
    runs: _containers.RepeatedCompositeFieldContainer[GroupMember]
    variants: _containers.RepeatedScalarFieldContainer[str]
    selection: Selection
    deciding: bool
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., submitted_at_ms: _Optional[int] = ..., submitted_by: _Optional[str] = ..., runs: _Optional[_Iterable[_Union[GroupMember, _Mapping]]] = ..., variants: _Optional[_Iterable[str]] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ..., deciding: bool = ...) -> None: ...

class GroupMember(_message.Message):
    __slots__ = ("run_id", "fold", "seed", "phase", "variant")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    fold: _common_pb2.FoldSpec
    seed: int
    phase: _runs_pb2.Phase
    variant: int
    def __init__(self, run_id: _Optional[str] = ..., fold: _Optional[_Union[_common_pb2.FoldSpec, _Mapping]] = ..., seed: _Optional[int] = ..., phase: _Optional[_Union[_runs_pb2.Phase, str]] = ..., variant: _Optional[int] = ...) -> None: ...

class GetGroupRequest(_message.Message):
    __slots__ = ("group_id",)
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    def __init__(self, group_id: _Optional[str] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups", "next_page_token")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    next_page_token: str
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelGroupRequest(_message.Message):
    __slots__ = ("group_id",)
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    def __init__(self, group_id: _Optional[str] = ...) -> None: ...

class SetGroupPriorityRequest(_message.Message):
    __slots__ = ("group_id", "priority")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    priority: _common_pb2.Priority
    def __init__(self, group_id: _Optional[str] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ...) -> None: ...

class DeleteGroupRequest(_message.Message):
    __slots__ = ("group_id", "with_checkpoints")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    with_checkpoints: bool
    def __init__(self, group_id: _Optional[str] = ..., with_checkpoints: bool = ...) -> None: ...

class DeleteGroupResponse(_message.Message):
    __slots__ = ("runs", "checkpoints", "freed_bytes")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    runs: int
    checkpoints: int
    freed_bytes: int
    def __init__(self, runs: _Optional[int] = ..., checkpoints: _Optional[int] = ..., freed_bytes: _Optional[int] = ...) -> None: ...
