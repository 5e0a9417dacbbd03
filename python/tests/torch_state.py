#!/usr/bin/env python3
"""Checks that PyTorch takes a checkpoint's parameters as a state dict. It ends with an error where something is not as it should be.

    torch_state.py FILE     a checkpoint
"""

import sys
import warnings

import numpy as np
import torch

import fovea


def layer(name: str, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """An empty layer of PyTorch with the shape of these parameters."""
    shape = state[f"{name}.weight"].shape
    if len(shape) == 2:
        return torch.nn.Linear(shape[1], shape[0])
    return torch.nn.Conv2d(shape[1], shape[0], (shape[2], shape[3]))


def main() -> None:
    # An array that PyTorch must not write to is a warning.
    warnings.simplefilter("error")
    parameters = fovea.load_checkpoint(sys.argv[1]).parameters
    state = fovea.torch_state_dict(sys.argv[1])
    assert list(state) == list(parameters) and len(state) > 100, len(state)
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu", name
        assert np.array_equal(tensor.numpy(), parameters[name]), name

    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    module = torch.nn.ModuleDict({name: layer(name, state) for name in names})
    # Strict: no name is missing or unknown, and every shape fits.
    module.load_state_dict(state)
    name = "inception_3a/1x1"
    image = np.random.default_rng(1).random((1, 192, 5, 7), dtype=np.float32)
    with torch.no_grad():
        found = module[name](torch.from_numpy(image)).numpy()
    weight, bias = parameters[f"{name}.weight"][:, :, 0, 0], parameters[f"{name}.bias"]
    expected = np.einsum("oi,nihw->nohw", weight, image) + bias[:, None, None]
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)
    print(f"{len(state)} tensors in PyTorch {torch.__version__}")


main()
