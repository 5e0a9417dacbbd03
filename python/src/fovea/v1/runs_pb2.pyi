from fovea.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_QUEUED: _ClassVar[Phase]
    PHASE_FORMING: _ClassVar[Phase]
    PHASE_RUNNING: _ClassVar[Phase]
    PHASE_FINISHING: _ClassVar[Phase]
    PHASE_COMPLETED: _ClassVar[Phase]
    PHASE_FAILED: _ClassVar[Phase]
    PHASE_CANCELLED: _ClassVar[Phase]
    PHASE_PAUSED: _ClassVar[Phase]
PHASE_UNSPECIFIED: Phase
PHASE_QUEUED: Phase
PHASE_FORMING: Phase
PHASE_RUNNING: Phase
PHASE_FINISHING: Phase
PHASE_COMPLETED: Phase
PHASE_FAILED: Phase
PHASE_CANCELLED: Phase
PHASE_PAUSED: Phase

class SubmitRequest(_message.Message):
    __slots__ = ("spec",)
    SPEC_FIELD_NUMBER: _ClassVar[int]
    spec: _common_pb2.RunSpec
    def __init__(self, spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token", "store_problem")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STORE_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    store_problem: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., store_problem: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("run", "step", "epoch", "checkpoint", "note")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    run: Run
    step: _common_pb2.StepReport
    epoch: _common_pb2.EpochResult
    checkpoint: _common_pb2.Checkpoint
    note: str
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., step: _Optional[_Union[_common_pb2.StepReport, _Mapping]] = ..., epoch: _Optional[_Union[_common_pb2.EpochResult, _Mapping]] = ..., checkpoint: _Optional[_Union[_common_pb2.Checkpoint, _Mapping]] = ..., note: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("run_id", "step", "dataset", "part", "prediction", "rotations", "maps")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    ROTATIONS_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    dataset: str
    part: _common_pb2.Part
    prediction: bool
    rotations: bool
    maps: bool
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ..., dataset: _Optional[str] = ..., part: _Optional[_Union[_common_pb2.Part, str]] = ..., prediction: bool = ..., rotations: bool = ..., maps: bool = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("run", "existed")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    run: Run
    existed: bool
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., existed: bool = ...) -> None: ...

class ScoresRequest(_message.Message):
    __slots__ = ("run_id", "step", "maps")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    maps: bool
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ..., maps: bool = ...) -> None: ...

class ScoresPart(_message.Message):
    __slots__ = ("info", "probabilities", "maps")
    INFO_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    info: ScoresInfo
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    maps: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, info: _Optional[_Union[ScoresInfo, _Mapping]] = ..., probabilities: _Optional[_Iterable[float]] = ..., maps: _Optional[_Iterable[float]] = ...) -> None: ...

class LossesRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class LossesPart(_message.Message):
    __slots__ = ("first_step", "losses")
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    first_step: int
    losses: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, first_step: _Optional[int] = ..., losses: _Optional[_Iterable[float]] = ...) -> None: ...

class ScoresInfo(_message.Message):
    __slots__ = ("dataset_digest", "part", "samples", "classes", "epoch", "fold", "map_height", "map_width", "rotations")
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    MAP_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAP_WIDTH_FIELD_NUMBER: _ClassVar[int]
    ROTATIONS_FIELD_NUMBER: _ClassVar[int]
    dataset_digest: str
    part: _common_pb2.Part
    samples: int
    classes: int
    epoch: int
    fold: _common_pb2.FoldSpec
    map_height: int
    map_width: int
    rotations: bool
    def __init__(self, dataset_digest: _Optional[str] = ..., part: _Optional[_Union[_common_pb2.Part, str]] = ..., samples: _Optional[int] = ..., classes: _Optional[int] = ..., epoch: _Optional[int] = ..., fold: _Optional[_Union[_common_pb2.FoldSpec, _Mapping]] = ..., map_height: _Optional[int] = ..., map_width: _Optional[int] = ..., rotations: bool = ...) -> None: ...

class EvaluationRecord(_message.Message):
    __slots__ = ("run_id", "step", "dataset", "dataset_digest", "part", "at_ms", "by", "generation", "test_samples", "rotations")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TEST_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ROTATIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    dataset: str
    dataset_digest: str
    part: _common_pb2.Part
    at_ms: int
    by: str
    generation: int
    test_samples: int
    rotations: bool
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ..., dataset: _Optional[str] = ..., dataset_digest: _Optional[str] = ..., part: _Optional[_Union[_common_pb2.Part, str]] = ..., at_ms: _Optional[int] = ..., by: _Optional[str] = ..., generation: _Optional[int] = ..., test_samples: _Optional[int] = ..., rotations: bool = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class AuditReport(_message.Message):
    __slots__ = ("run_id", "train_samples", "steps", "total_steps", "clean_epochs", "samples_used", "problems", "ledger_bytes")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    CLEAN_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_USED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_BYTES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    train_samples: int
    steps: int
    total_steps: int
    clean_epochs: int
    samples_used: int
    problems: _containers.RepeatedScalarFieldContainer[str]
    ledger_bytes: int
    def __init__(self, run_id: _Optional[str] = ..., train_samples: _Optional[int] = ..., steps: _Optional[int] = ..., total_steps: _Optional[int] = ..., clean_epochs: _Optional[int] = ..., samples_used: _Optional[int] = ..., problems: _Optional[_Iterable[str]] = ..., ledger_bytes: _Optional[int] = ...) -> None: ...

class DeleteRunRequest(_message.Message):
    __slots__ = ("run_id", "with_checkpoints")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    with_checkpoints: bool
    def __init__(self, run_id: _Optional[str] = ..., with_checkpoints: bool = ...) -> None: ...

class DeleteRunResponse(_message.Message):
    __slots__ = ("checkpoints", "freed_bytes")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    checkpoints: int
    freed_bytes: int
    def __init__(self, checkpoints: _Optional[int] = ..., freed_bytes: _Optional[int] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("run_id", "checkpoint_step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    checkpoint_step: int
    def __init__(self, run_id: _Optional[str] = ..., checkpoint_step: _Optional[int] = ...) -> None: ...

class SetPriorityRequest(_message.Message):
    __slots__ = ("run_id", "priority")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    priority: _common_pb2.Priority
    def __init__(self, run_id: _Optional[str] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "spec", "phase", "reason", "generation", "workers", "steps_per_epoch", "total_steps", "train_samples", "validation_samples", "progress", "epochs", "checkpoints", "dataset_digest", "submitted_at_ms", "left_out", "submitted_by", "evaluations", "began_at_ms", "ended_at_ms", "most_workers", "scored", "group_id", "pipeline", "priority")
    ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    MOST_WORKERS_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    spec: _common_pb2.RunSpec
    phase: Phase
    reason: str
    generation: int
    workers: _containers.RepeatedScalarFieldContainer[str]
    steps_per_epoch: int
    total_steps: int
    train_samples: int
    validation_samples: int
    progress: _common_pb2.StepReport
    epochs: _containers.RepeatedCompositeFieldContainer[_common_pb2.EpochResult]
    checkpoints: _containers.RepeatedCompositeFieldContainer[_common_pb2.Checkpoint]
    dataset_digest: str
    submitted_at_ms: int
    left_out: _containers.RepeatedCompositeFieldContainer[_common_pb2.LeftOut]
    submitted_by: str
    evaluations: _containers.RepeatedCompositeFieldContainer[EvaluationRecord]
    began_at_ms: int
    ended_at_ms: int
    most_workers: int
    scored: int
    group_id: str
    pipeline: Pipeline
    priority: _common_pb2.Priority
    def __init__(self, id: _Optional[str] = ..., spec: _Optional[_Union[_common_pb2.RunSpec, _Mapping]] = ..., phase: _Optional[_Union[Phase, str]] = ..., reason: _Optional[str] = ..., generation: _Optional[int] = ..., workers: _Optional[_Iterable[str]] = ..., steps_per_epoch: _Optional[int] = ..., total_steps: _Optional[int] = ..., train_samples: _Optional[int] = ..., validation_samples: _Optional[int] = ..., progress: _Optional[_Union[_common_pb2.StepReport, _Mapping]] = ..., epochs: _Optional[_Iterable[_Union[_common_pb2.EpochResult, _Mapping]]] = ..., checkpoints: _Optional[_Iterable[_Union[_common_pb2.Checkpoint, _Mapping]]] = ..., dataset_digest: _Optional[str] = ..., submitted_at_ms: _Optional[int] = ..., left_out: _Optional[_Iterable[_Union[_common_pb2.LeftOut, _Mapping]]] = ..., submitted_by: _Optional[str] = ..., evaluations: _Optional[_Iterable[_Union[EvaluationRecord, _Mapping]]] = ..., began_at_ms: _Optional[int] = ..., ended_at_ms: _Optional[int] = ..., most_workers: _Optional[int] = ..., scored: _Optional[int] = ..., group_id: _Optional[str] = ..., pipeline: _Optional[_Union[Pipeline, _Mapping]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ...) -> None: ...

class Pipeline(_message.Message):
    __slots__ = ("steps", "size", "digest", "recipe")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    steps: str
    size: int
    digest: str
    recipe: str
    def __init__(self, steps: _Optional[str] = ..., size: _Optional[int] = ..., digest: _Optional[str] = ..., recipe: _Optional[str] = ...) -> None: ...
