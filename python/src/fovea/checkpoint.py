"""Reading checkpoints: safetensors files, without a coordinator."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors

from fovea.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    import torch

#: Begins the names of the optimizer's state.
_VELOCITY = "optimizer/velocity/"


@dataclass(frozen=True)
class LoadedCheckpoint:
    """The content of a checkpoint, or of parameters that `fovea export` wrote."""

    #: By Caffe's name, such as "inception_3a/1x1.weight" [out, in, height, width] and "inception_3a/1x1.bias" [out]; float32.
    parameters: dict[str, npt.NDArray[np.float32]] = field(repr=False)
    #: The optimizer's velocities by the name of their parameter; empty in an exported file.
    velocities: dict[str, npt.NDArray[np.float32]] = field(repr=False)
    #: As in the file. `spec`, `fingerprint` and `preprocessing` are JSON.
    metadata: dict[str, str]

    @property
    def run_id(self) -> str:
        """The run that wrote it; empty if the file does not say."""
        return self.metadata.get("run_id", "")

    @property
    def step(self) -> int | None:
        """Committed steps that it holds; None if the file does not say."""
        text = self.metadata.get("step")
        return None if text is None else int(text)

    @property
    def spec(self) -> dict[str, Any]:
        """The run's spec, with every default filled in; empty if the file does not say."""
        spec: dict[str, Any] = json.loads(self.metadata.get("spec", "{}"))
        return spec


def load_checkpoint(path: str | os.PathLike[str]) -> LoadedCheckpoint:
    """Reads a checkpoint into NumPy arrays.

    Raises CheckpointError if it is no complete safetensors file, OSError if it cannot be read.
    """
    parameters: dict[str, npt.NDArray[np.float32]] = {}
    velocities: dict[str, npt.NDArray[np.float32]] = {}
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            for name in file.keys():
                kind = velocities if name.startswith(_VELOCITY) else parameters
                kind[name.removeprefix(_VELOCITY)] = file.get_tensor(name)
            metadata = dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{os.fspath(path)} is no checkpoint: {error}") from error
    return LoadedCheckpoint(parameters, velocities, metadata)


def torch_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The parameters of a checkpoint as tensors of PyTorch, on the CPU, under Caffe's names. Needs PyTorch.

    Their layout is PyTorch's. The network's input is blue, green, red, 0 to 255, minus (104, 117, 123).

    Raises MissingExtraError, and what `load_checkpoint` raises.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("PyTorch is not installed: pip install torch") from error
    return {name: torch.from_numpy(array) for name, array in load_checkpoint(path).parameters.items()}
