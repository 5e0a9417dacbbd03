from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateDatasetRequest(_message.Message):
    __slots__ = ("header", "piece")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    header: DatasetFiles
    piece: PackPiece
    def __init__(self, header: _Optional[_Union[DatasetFiles, _Mapping]] = ..., piece: _Optional[_Union[PackPiece, _Mapping]] = ...) -> None: ...

class DatasetFiles(_message.Message):
    __slots__ = ("manifest", "index")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    index: bytes
    def __init__(self, manifest: _Optional[bytes] = ..., index: _Optional[bytes] = ...) -> None: ...

class PackPiece(_message.Message):
    __slots__ = ("pack", "data")
    PACK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    pack: int
    data: bytes
    def __init__(self, pack: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class CreateDatasetResponse(_message.Message):
    __slots__ = ("dataset", "outcome", "repaired_packs", "repaired_files")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[CreateDatasetResponse.Outcome]
        OUTCOME_ADDED: _ClassVar[CreateDatasetResponse.Outcome]
        OUTCOME_UNCHANGED: _ClassVar[CreateDatasetResponse.Outcome]
        OUTCOME_REPAIRED: _ClassVar[CreateDatasetResponse.Outcome]
    OUTCOME_UNSPECIFIED: CreateDatasetResponse.Outcome
    OUTCOME_ADDED: CreateDatasetResponse.Outcome
    OUTCOME_UNCHANGED: CreateDatasetResponse.Outcome
    OUTCOME_REPAIRED: CreateDatasetResponse.Outcome
    DATASET_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_PACKS_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FILES_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    outcome: CreateDatasetResponse.Outcome
    repaired_packs: _containers.RepeatedScalarFieldContainer[int]
    repaired_files: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ..., outcome: _Optional[_Union[CreateDatasetResponse.Outcome, str]] = ..., repaired_packs: _Optional[_Iterable[int]] = ..., repaired_files: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    def __init__(self, dataset: _Optional[str] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets",)
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    def __init__(self, dataset: _Optional[str] = ...) -> None: ...

class FetchPackRequest(_message.Message):
    __slots__ = ("digest", "pack")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    digest: str
    pack: int
    def __init__(self, digest: _Optional[str] = ..., pack: _Optional[int] = ...) -> None: ...

class PackChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "digest", "image_size", "train_samples", "validation_samples", "train_grades", "validation_grades", "packs", "size_bytes", "problem", "test_samples", "test_grades", "preprocessing", "pipeline", "scale")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TRAIN_GRADES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_GRADES_FIELD_NUMBER: _ClassVar[int]
    PACKS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    TEST_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEST_GRADES_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    image_size: int
    train_samples: int
    validation_samples: int
    train_grades: _containers.RepeatedScalarFieldContainer[int]
    validation_grades: _containers.RepeatedScalarFieldContainer[int]
    packs: int
    size_bytes: int
    problem: str
    test_samples: int
    test_grades: _containers.RepeatedScalarFieldContainer[int]
    preprocessing: str
    pipeline: str
    scale: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., image_size: _Optional[int] = ..., train_samples: _Optional[int] = ..., validation_samples: _Optional[int] = ..., train_grades: _Optional[_Iterable[int]] = ..., validation_grades: _Optional[_Iterable[int]] = ..., packs: _Optional[int] = ..., size_bytes: _Optional[int] = ..., problem: _Optional[str] = ..., test_samples: _Optional[int] = ..., test_grades: _Optional[_Iterable[int]] = ..., preprocessing: _Optional[str] = ..., pipeline: _Optional[str] = ..., scale: _Optional[str] = ...) -> None: ...
