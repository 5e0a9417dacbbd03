from fovea.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "heartbeat", "ready", "step", "scores", "released", "leaving", "state_digest", "interrupted", "unreachable", "prepared", "memory")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    ready: Ready
    step: StepCommitted
    scores: Scores
    released: Released
    leaving: Leaving
    state_digest: StateDigest
    interrupted: Interrupted
    unreachable: Unreachable
    prepared: Prepared
    memory: Memory
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., step: _Optional[_Union[StepCommitted, _Mapping]] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ..., released: _Optional[_Union[Released, _Mapping]] = ..., leaving: _Optional[_Union[Leaving, _Mapping]] = ..., state_digest: _Optional[_Union[StateDigest, _Mapping]] = ..., interrupted: _Optional[_Union[Interrupted, _Mapping]] = ..., unreachable: _Optional[_Union[Unreachable, _Mapping]] = ..., prepared: _Optional[_Union[Prepared, _Mapping]] = ..., memory: _Optional[_Union[Memory, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("worker_id", "address", "host", "device", "version", "serving", "held_run_id", "protocol", "boot_id", "gpu_uuid", "memory", "machine")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    HELD_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_UUID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    address: str
    host: str
    device: str
    version: str
    serving: Serving
    held_run_id: str
    protocol: int
    boot_id: str
    gpu_uuid: str
    memory: Memory
    machine: Machine
    def __init__(self, worker_id: _Optional[str] = ..., address: _Optional[str] = ..., host: _Optional[str] = ..., device: _Optional[str] = ..., version: _Optional[str] = ..., serving: _Optional[_Union[Serving, _Mapping]] = ..., held_run_id: _Optional[str] = ..., protocol: _Optional[int] = ..., boot_id: _Optional[str] = ..., gpu_uuid: _Optional[str] = ..., memory: _Optional[_Union[Memory, _Mapping]] = ..., machine: _Optional[_Union[Machine, _Mapping]] = ...) -> None: ...

class Machine(_message.Message):
    __slots__ = ("device", "cpu", "libtorch", "kernels")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    LIBTORCH_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    device: str
    cpu: str
    libtorch: str
    kernels: str
    def __init__(self, device: _Optional[str] = ..., cpu: _Optional[str] = ..., libtorch: _Optional[str] = ..., kernels: _Optional[str] = ...) -> None: ...

class Memory(_message.Message):
    __slots__ = ("host_bytes", "gpu_bytes", "gpu_free_bytes")
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    host_bytes: int
    gpu_bytes: int
    gpu_free_bytes: int
    def __init__(self, host_bytes: _Optional[int] = ..., gpu_bytes: _Optional[int] = ..., gpu_free_bytes: _Optional[int] = ...) -> None: ...

class Serving(_message.Message):
    __slots__ = ("run_id", "generation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence", "serving", "ticks", "waiting_for", "polls", "scored", "load")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    TICKS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    POLLS_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    serving: Serving
    ticks: int
    waiting_for: int
    polls: int
    scored: int
    load: _common_pb2.Load
    def __init__(self, sequence: _Optional[int] = ..., serving: _Optional[_Union[Serving, _Mapping]] = ..., ticks: _Optional[int] = ..., waiting_for: _Optional[int] = ..., polls: _Optional[int] = ..., scored: _Optional[int] = ..., load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("run_id", "generation", "state_digest", "fingerprint", "step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    state_digest: str
    fingerprint: _common_pb2.Fingerprint
    step: int
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., state_digest: _Optional[str] = ..., fingerprint: _Optional[_Union[_common_pb2.Fingerprint, _Mapping]] = ..., step: _Optional[int] = ...) -> None: ...

class StepCommitted(_message.Message):
    __slots__ = ("run_id", "generation", "report", "samples")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    report: _common_pb2.StepReport
    samples: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., report: _Optional[_Union[_common_pb2.StepReport, _Mapping]] = ..., samples: _Optional[_Iterable[int]] = ...) -> None: ...

class StateDigest(_message.Message):
    __slots__ = ("run_id", "generation", "step", "digest")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    step: int
    digest: str
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., step: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class Interrupted(_message.Message):
    __slots__ = ("run_id", "generation", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Unreachable(_message.Message):
    __slots__ = ("run_id", "generation", "worker_ids")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORKER_IDS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    worker_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., worker_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("run_id", "problem", "trouble")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    problem: str
    trouble: _common_pb2.Trouble
    def __init__(self, run_id: _Optional[str] = ..., problem: _Optional[str] = ..., trouble: _Optional[_Union[_common_pb2.Trouble, str]] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("run_id", "generation", "epoch", "scores")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    epoch: int
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., epoch: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("sample", "label", "probabilities", "loss", "map", "map_width")
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    MAP_WIDTH_FIELD_NUMBER: _ClassVar[int]
    sample: int
    label: int
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    loss: float
    map: _containers.RepeatedScalarFieldContainer[float]
    map_width: int
    def __init__(self, sample: _Optional[int] = ..., label: _Optional[int] = ..., probabilities: _Optional[_Iterable[float]] = ..., loss: _Optional[float] = ..., map: _Optional[_Iterable[float]] = ..., map_width: _Optional[int] = ...) -> None: ...

class Released(_message.Message):
    __slots__ = ("run_id", "generation", "completed_step", "stopped_step", "aborted", "failed", "yielded_step", "blocked", "unfit")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_STEP_FIELD_NUMBER: _ClassVar[int]
    STOPPED_STEP_FIELD_NUMBER: _ClassVar[int]
    ABORTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    YIELDED_STEP_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    UNFIT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    completed_step: int
    stopped_step: int
    aborted: Aborted
    failed: Failure
    yielded_step: int
    blocked: Blocked
    unfit: Unfit
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., completed_step: _Optional[int] = ..., stopped_step: _Optional[int] = ..., aborted: _Optional[_Union[Aborted, _Mapping]] = ..., failed: _Optional[_Union[Failure, _Mapping]] = ..., yielded_step: _Optional[int] = ..., blocked: _Optional[_Union[Blocked, _Mapping]] = ..., unfit: _Optional[_Union[Unfit, _Mapping]] = ...) -> None: ...

class Aborted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Failure(_message.Message):
    __slots__ = ("reason", "fatal")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FATAL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    fatal: bool
    def __init__(self, reason: _Optional[str] = ..., fatal: bool = ...) -> None: ...

class Blocked(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Unfit(_message.Message):
    __slots__ = ("trouble", "reason")
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    trouble: _common_pb2.Trouble
    reason: str
    def __init__(self, trouble: _Optional[_Union[_common_pb2.Trouble, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Leaving(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CoordinatorMessage(_message.Message):
    __slots__ = ("welcome", "assignment", "stop", "abort", "prepare", "ack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    YIELD_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assignment: Assignment
    stop: Stop
    abort: Abort
    prepare: Prepare
    ack: Ack
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., prepare: _Optional[_Union[Prepare, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., **kwargs) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("heartbeat_ms", "timeout_ms", "protocol")
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    heartbeat_ms: int
    timeout_ms: int
    protocol: int
    def __init__(self, heartbeat_ms: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., protocol: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("run_id", "generation", "spec", "dataset_digest", "members", "start_step", "checkpoint", "mesh_key", "lineage", "at_boundary", "discard_state", "next_epoch", "traceparent")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    START_STEP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    MESH_KEY_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    AT_BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    DISCARD_STATE_FIELD_NUMBER: _ClassVar[int]
    NEXT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    spec: _common_pb2.RunSpec
    dataset_digest: str
    members: _containers.RepeatedCompositeFieldContainer[Member]
    start_step: int
    checkpoint: _common_pb2.Checkpoint
    mesh_key: bytes
    lineage: int
    at_boundary: bool
    discard_state: bool
    next_epoch: int
    traceparent: str
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., dataset_digest: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., start_step: _Optional[int] = ..., checkpoint: _Optional[_Union[_common_pb2.Checkpoint, _Mapping]] = ..., mesh_key: _Optional[bytes] = ..., lineage: _Optional[int] = ..., at_boundary: bool = ..., discard_state: bool = ..., next_epoch: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("run_id", "spec", "dataset_digest", "members")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    spec: _common_pb2.RunSpec
    dataset_digest: str
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, run_id: _Optional[str] = ..., spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., dataset_digest: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class Yield(_message.Message):
    __slots__ = ("run_id", "generation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("run_id", "step", "next_epoch")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NEXT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    next_epoch: int
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ..., next_epoch: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("worker_id", "address", "first_virtual_rank", "virtual_ranks")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FIRST_VIRTUAL_RANK_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_RANKS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    address: str
    first_virtual_rank: int
    virtual_ranks: int
    def __init__(self, worker_id: _Optional[str] = ..., address: _Optional[str] = ..., first_virtual_rank: _Optional[int] = ..., virtual_ranks: _Optional[int] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("run_id", "generation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("run_id", "generation", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SliceUpload(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: SliceHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[SliceHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class SliceHeader(_message.Message):
    __slots__ = ("run_id", "generation", "worker_id", "step", "offset", "elements", "digest", "state_digest")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    generation: int
    worker_id: str
    step: int
    offset: int
    elements: int
    digest: str
    state_digest: str
    def __init__(self, run_id: _Optional[str] = ..., generation: _Optional[int] = ..., worker_id: _Optional[str] = ..., step: _Optional[int] = ..., offset: _Optional[int] = ..., elements: _Optional[int] = ..., digest: _Optional[str] = ..., state_digest: _Optional[str] = ...) -> None: ...

class SliceAck(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
