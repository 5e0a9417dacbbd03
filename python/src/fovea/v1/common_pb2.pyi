from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]

class Part(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PART_UNSPECIFIED: _ClassVar[Part]
    PART_TRAIN: _ClassVar[Part]
    PART_VALIDATION: _ClassVar[Part]
    PART_TEST: _ClassVar[Part]
    PART_ALL: _ClassVar[Part]

class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRATEGY_UNSPECIFIED: _ClassVar[Strategy]
    STRATEGY_FINE_TUNE: _ClassVar[Strategy]
    STRATEGY_LINEAR_PROBE: _ClassVar[Strategy]
    STRATEGY_FROM_SCRATCH: _ClassVar[Strategy]

class Pooling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOLING_UNSPECIFIED: _ClassVar[Pooling]
    POOLING_GLOBAL: _ClassVar[Pooling]
    POOLING_DENSE: _ClassVar[Pooling]

class Head(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_UNSPECIFIED: _ClassVar[Head]
    HEAD_SOFTMAX: _ClassVar[Head]
    HEAD_ORDINAL: _ClassVar[Head]

class Init(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INIT_UNSPECIFIED: _ClassVar[Init]
    INIT_XAVIER: _ClassVar[Init]
    INIT_MSRA: _ClassVar[Init]

class Imbalance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMBALANCE_UNSPECIFIED: _ClassVar[Imbalance]
    IMBALANCE_NONE: _ClassVar[Imbalance]
    IMBALANCE_CLASS_WEIGHTS: _ClassVar[Imbalance]
    IMBALANCE_OVERSAMPLE: _ClassVar[Imbalance]

class Reduction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDUCTION_UNSPECIFIED: _ClassVar[Reduction]
    REDUCTION_ORDERED: _ClassVar[Reduction]
    REDUCTION_FAST: _ClassVar[Reduction]

class LearningRatePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNING_RATE_POLICY_UNSPECIFIED: _ClassVar[LearningRatePolicy]
    LEARNING_RATE_POLICY_FIXED: _ClassVar[LearningRatePolicy]
    LEARNING_RATE_POLICY_POLY: _ClassVar[LearningRatePolicy]

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FLOAT32: _ClassVar[Precision]
    PRECISION_BF16: _ClassVar[Precision]
    PRECISION_TF32: _ClassVar[Precision]

class BestBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BEST_BY_UNSPECIFIED: _ClassVar[BestBy]
    BEST_BY_NONE: _ClassVar[BestBy]
    BEST_BY_AUC: _ClassVar[BestBy]
    BEST_BY_LOSS: _ClassVar[BestBy]
    BEST_BY_KAPPA: _ClassVar[BestBy]

class Trouble(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TROUBLE_UNSPECIFIED: _ClassVar[Trouble]
    TROUBLE_MEMORY: _ClassVar[Trouble]
    TROUBLE_DISK: _ClassVar[Trouble]
    TROUBLE_DATA: _ClassVar[Trouble]
    TROUBLE_CONTENT: _ClassVar[Trouble]
    TROUBLE_DEVICE: _ClassVar[Trouble]
    TROUBLE_SYSTEM: _ClassVar[Trouble]

class FileState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_STATE_UNSPECIFIED: _ClassVar[FileState]
    FILE_STATE_OK: _ClassVar[FileState]
    FILE_STATE_MISSING: _ClassVar[FileState]
    FILE_STATE_UNREADABLE: _ClassVar[FileState]
    FILE_STATE_CORRUPT: _ClassVar[FileState]
    FILE_STATE_UNLISTED: _ClassVar[FileState]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_HIGH: Priority
PART_UNSPECIFIED: Part
PART_TRAIN: Part
PART_VALIDATION: Part
PART_TEST: Part
PART_ALL: Part
STRATEGY_UNSPECIFIED: Strategy
STRATEGY_FINE_TUNE: Strategy
STRATEGY_LINEAR_PROBE: Strategy
STRATEGY_FROM_SCRATCH: Strategy
POOLING_UNSPECIFIED: Pooling
POOLING_GLOBAL: Pooling
POOLING_DENSE: Pooling
HEAD_UNSPECIFIED: Head
HEAD_SOFTMAX: Head
HEAD_ORDINAL: Head
INIT_UNSPECIFIED: Init
INIT_XAVIER: Init
INIT_MSRA: Init
IMBALANCE_UNSPECIFIED: Imbalance
IMBALANCE_NONE: Imbalance
IMBALANCE_CLASS_WEIGHTS: Imbalance
IMBALANCE_OVERSAMPLE: Imbalance
REDUCTION_UNSPECIFIED: Reduction
REDUCTION_ORDERED: Reduction
REDUCTION_FAST: Reduction
LEARNING_RATE_POLICY_UNSPECIFIED: LearningRatePolicy
LEARNING_RATE_POLICY_FIXED: LearningRatePolicy
LEARNING_RATE_POLICY_POLY: LearningRatePolicy
PRECISION_UNSPECIFIED: Precision
PRECISION_FLOAT32: Precision
PRECISION_BF16: Precision
PRECISION_TF32: Precision
BEST_BY_UNSPECIFIED: BestBy
BEST_BY_NONE: BestBy
BEST_BY_AUC: BestBy
BEST_BY_LOSS: BestBy
BEST_BY_KAPPA: BestBy
TROUBLE_UNSPECIFIED: Trouble
TROUBLE_MEMORY: Trouble
TROUBLE_DISK: Trouble
TROUBLE_DATA: Trouble
TROUBLE_CONTENT: Trouble
TROUBLE_DEVICE: Trouble
TROUBLE_SYSTEM: Trouble
FILE_STATE_UNSPECIFIED: FileState
FILE_STATE_OK: FileState
FILE_STATE_MISSING: FileState
FILE_STATE_UNREADABLE: FileState
FILE_STATE_CORRUPT: FileState
FILE_STATE_UNLISTED: FileState

class RunSpec(_message.Message):
    __slots__ = ("name", "dataset", "seed", "model", "train", "workers", "checkpoint", "evaluate", "fold", "priority")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    dataset: str
    seed: int
    model: ModelSpec
    train: TrainSpec
    workers: WorkersSpec
    checkpoint: CheckpointSpec
    evaluate: EvaluateSpec
    fold: FoldSpec
    priority: Priority
    def __init__(self, name: _Optional[str] = ..., dataset: _Optional[str] = ..., seed: _Optional[int] = ..., model: _Optional[_Union[ModelSpec, _Mapping]] = ..., train: _Optional[_Union[TrainSpec, _Mapping]] = ..., workers: _Optional[_Union[WorkersSpec, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointSpec, _Mapping]] = ..., evaluate: _Optional[_Union[EvaluateSpec, _Mapping]] = ..., fold: _Optional[_Union[FoldSpec, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class FoldSpec(_message.Message):
    __slots__ = ("index", "of")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    index: int
    of: int
    def __init__(self, index: _Optional[int] = ..., of: _Optional[int] = ...) -> None: ...

class EvaluateSpec(_message.Message):
    __slots__ = ("run_id", "step", "part", "rotations", "maps")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    ROTATIONS_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    step: int
    part: Part
    rotations: bool
    maps: bool
    def __init__(self, run_id: _Optional[str] = ..., step: _Optional[int] = ..., part: _Optional[_Union[Part, str]] = ..., rotations: bool = ..., maps: bool = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("weights", "weights_sha256", "init", "classes", "positive_from", "frozen", "dropout", "head", "strategy", "tap", "pooling", "auxiliary")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_FROM_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    TAP_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    AUXILIARY_FIELD_NUMBER: _ClassVar[int]
    weights: str
    weights_sha256: str
    init: Init
    classes: int
    positive_from: int
    frozen: LayerList
    dropout: float
    head: Head
    strategy: Strategy
    tap: str
    pooling: Pooling
    auxiliary: float
    def __init__(self, weights: _Optional[str] = ..., weights_sha256: _Optional[str] = ..., init: _Optional[_Union[Init, str]] = ..., classes: _Optional[int] = ..., positive_from: _Optional[int] = ..., frozen: _Optional[_Union[LayerList, _Mapping]] = ..., dropout: _Optional[float] = ..., head: _Optional[_Union[Head, str]] = ..., strategy: _Optional[_Union[Strategy, str]] = ..., tap: _Optional[str] = ..., pooling: _Optional[_Union[Pooling, str]] = ..., auxiliary: _Optional[float] = ...) -> None: ...

class LayerList(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class TrainSpec(_message.Message):
    __slots__ = ("epochs", "virtual_ranks", "batch", "learning_rate", "policy", "power", "warmup_steps", "momentum", "weight_decay", "head_lr_mult", "rotate", "precision", "threads", "digest_every", "reduction", "imbalance")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_RANKS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POWER_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    HEAD_LR_MULT_FIELD_NUMBER: _ClassVar[int]
    ROTATE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_EVERY_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    virtual_ranks: int
    batch: int
    learning_rate: float
    policy: LearningRatePolicy
    power: float
    warmup_steps: int
    momentum: float
    weight_decay: float
    head_lr_mult: float
    rotate: bool
    precision: Precision
    threads: int
    digest_every: int
    reduction: Reduction
    imbalance: Imbalance
    def __init__(self, epochs: _Optional[int] = ..., virtual_ranks: _Optional[int] = ..., batch: _Optional[int] = ..., learning_rate: _Optional[float] = ..., policy: _Optional[_Union[LearningRatePolicy, str]] = ..., power: _Optional[float] = ..., warmup_steps: _Optional[int] = ..., momentum: _Optional[float] = ..., weight_decay: _Optional[float] = ..., head_lr_mult: _Optional[float] = ..., rotate: bool = ..., precision: _Optional[_Union[Precision, str]] = ..., threads: _Optional[int] = ..., digest_every: _Optional[int] = ..., reduction: _Optional[_Union[Reduction, str]] = ..., imbalance: _Optional[_Union[Imbalance, str]] = ...) -> None: ...

class WorkersSpec(_message.Message):
    __slots__ = ("min", "max", "device", "mixed")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MIXED_FIELD_NUMBER: _ClassVar[int]
    min: int
    max: int
    device: str
    mixed: bool
    def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ..., device: _Optional[str] = ..., mixed: bool = ...) -> None: ...

class CheckpointSpec(_message.Message):
    __slots__ = ("every_epochs", "every_steps", "keep_last", "keep_best")
    EVERY_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    KEEP_BEST_FIELD_NUMBER: _ClassVar[int]
    every_epochs: int
    every_steps: int
    keep_last: int
    keep_best: BestBy
    def __init__(self, every_epochs: _Optional[int] = ..., every_steps: _Optional[int] = ..., keep_last: _Optional[int] = ..., keep_best: _Optional[_Union[BestBy, str]] = ...) -> None: ...

class Fingerprint(_message.Message):
    __slots__ = ("device", "cpu", "libtorch", "threads", "precision", "fovea", "kernels", "path")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    LIBTORCH_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    FOVEA_FIELD_NUMBER: _ClassVar[int]
    KERNELS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    device: str
    cpu: str
    libtorch: str
    threads: int
    precision: str
    fovea: str
    kernels: str
    path: str
    def __init__(self, device: _Optional[str] = ..., cpu: _Optional[str] = ..., libtorch: _Optional[str] = ..., threads: _Optional[int] = ..., precision: _Optional[str] = ..., fovea: _Optional[str] = ..., kernels: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("step", "generation", "size_bytes", "sha256", "stored_at_ms", "fingerprint", "lineage")
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    STORED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    step: int
    generation: int
    size_bytes: int
    sha256: str
    stored_at_ms: int
    fingerprint: Fingerprint
    lineage: int
    def __init__(self, step: _Optional[int] = ..., generation: _Optional[int] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., stored_at_ms: _Optional[int] = ..., fingerprint: _Optional[_Union[Fingerprint, _Mapping]] = ..., lineage: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("samples", "positives", "loss", "accuracy", "auc", "sensitivity", "specificity", "quadratic_kappa", "confusion", "classes")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    AUC_FIELD_NUMBER: _ClassVar[int]
    SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    SPECIFICITY_FIELD_NUMBER: _ClassVar[int]
    QUADRATIC_KAPPA_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    samples: int
    positives: int
    loss: float
    accuracy: float
    auc: float
    sensitivity: float
    specificity: float
    quadratic_kappa: float
    confusion: _containers.RepeatedScalarFieldContainer[int]
    classes: int
    def __init__(self, samples: _Optional[int] = ..., positives: _Optional[int] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., auc: _Optional[float] = ..., sensitivity: _Optional[float] = ..., specificity: _Optional[float] = ..., quadratic_kappa: _Optional[float] = ..., confusion: _Optional[_Iterable[int]] = ..., classes: _Optional[int] = ...) -> None: ...

class EpochResult(_message.Message):
    __slots__ = ("epoch", "step", "train_loss", "validation")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step: int
    train_loss: float
    validation: Evaluation
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ..., train_loss: _Optional[float] = ..., validation: _Optional[_Union[Evaluation, _Mapping]] = ...) -> None: ...

class StepReport(_message.Message):
    __slots__ = ("step", "loss", "images", "images_per_s", "learning_rate", "phases")
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    step: int
    loss: float
    images: int
    images_per_s: float
    learning_rate: float
    phases: StepPhases
    def __init__(self, step: _Optional[int] = ..., loss: _Optional[float] = ..., images: _Optional[int] = ..., images_per_s: _Optional[float] = ..., learning_rate: _Optional[float] = ..., phases: _Optional[_Union[StepPhases, _Mapping]] = ...) -> None: ...

class StepPhases(_message.Message):
    __slots__ = ("load_ms", "forward_ms", "backward_ms", "reduce_ms", "optimizer_ms")
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_MS_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_MS_FIELD_NUMBER: _ClassVar[int]
    REDUCE_MS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_MS_FIELD_NUMBER: _ClassVar[int]
    load_ms: float
    forward_ms: float
    backward_ms: float
    reduce_ms: float
    optimizer_ms: float
    def __init__(self, load_ms: _Optional[float] = ..., forward_ms: _Optional[float] = ..., backward_ms: _Optional[float] = ..., reduce_ms: _Optional[float] = ..., optimizer_ms: _Optional[float] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("step_ms", "wait_ratio", "gpu_used_bytes", "resident_bytes")
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_RATIO_FIELD_NUMBER: _ClassVar[int]
    GPU_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    step_ms: float
    wait_ratio: float
    gpu_used_bytes: int
    resident_bytes: int
    def __init__(self, step_ms: _Optional[float] = ..., wait_ratio: _Optional[float] = ..., gpu_used_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...

class LeftOut(_message.Message):
    __slots__ = ("worker_id", "run_id", "trouble", "reason", "for_ms", "again_in_ms")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FOR_MS_FIELD_NUMBER: _ClassVar[int]
    AGAIN_IN_MS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    run_id: str
    trouble: Trouble
    reason: str
    for_ms: int
    again_in_ms: int
    def __init__(self, worker_id: _Optional[str] = ..., run_id: _Optional[str] = ..., trouble: _Optional[_Union[Trouble, str]] = ..., reason: _Optional[str] = ..., for_ms: _Optional[int] = ..., again_in_ms: _Optional[int] = ...) -> None: ...
