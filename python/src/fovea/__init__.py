"""Client of Fovea, a distributed trainer of GoogLeNet for diabetic retinopathy.

    import fovea

    with fovea.Client("http://127.0.0.1:7070") as client:
        run = client.submit({"name": "dr", "dataset": "eyepacs-224"}, train={"epochs": 3})
        for event in client.watch(run.id):
            print(event)
        frame = client.metrics(run.id)
        client.download_checkpoint(run.id, "best", "dr.safetensors")

    state = fovea.torch_state_dict("dr.safetensors")
"""

from fovea._channel import VERSION as __version__
from fovea.checkpoint import LoadedCheckpoint, load_checkpoint, torch_state_dict
from fovea.client import DEFAULT_COORDINATOR, Client
from fovea.errors import (
    AddressError,
    AnswerTimeoutError,
    CheckpointError,
    CoordinatorError,
    CorruptError,
    CredentialsError,
    DownloadError,
    FoveaError,
    InvalidRequestError,
    LimitReachedError,
    MissingExtraError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    RunCancelledError,
    RunFailedError,
    SpecError,
    UnavailableError,
    WaitTimeoutError,
)
from fovea.types import (
    Checkpoint,
    CheckpointStored,
    EpochEvaluated,
    EpochResult,
    Evaluation,
    Event,
    Group,
    GroupEvent,
    GroupMember,
    GroupUpdated,
    MemberEvaluated,
    MemberUpdated,
    Note,
    Phase,
    QueuedRun,
    Reconnecting,
    Run,
    RunUpdated,
    Scores,
    Selection,
    StepCommitted,
    StepReport,
    Worker,
)

__all__ = [name for name in dir() if not name.startswith("_") and name not in ("checkpoint", "client", "errors", "types", "v1")]
