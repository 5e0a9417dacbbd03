#!/usr/bin/env python3
"""The recipe in plain PyTorch on one device, to compare Fovea with: GoogLeNet at 224 px, whole stem frozen.

    python bench/peer_torch.py --device cuda --batch 256 --steps 200 --bf16 --compile

Photographs lie in the device's memory from the start, so nothing is read, decoded or sent: PyTorch's best case. Prints one JSON line
with "images_per_s". Needs PyTorch 2.x.
"""

import argparse
import json
import time

import torch
from torch import nn
from torch.nn import functional

# Channels of each module's branches: 1x1, 3x3 (reduced, convolved), 5x5 (reduced, convolved), behind the pooling.
MODULES = [
    ("3a", 64, (96, 128), (16, 32), 32),
    ("3b", 128, (128, 192), (32, 96), 64),
    ("pool",),
    ("4a", 192, (96, 208), (16, 48), 64),
    ("4b", 160, (112, 224), (24, 64), 64),
    ("4c", 128, (128, 256), (24, 64), 64),
    ("4d", 112, (144, 288), (32, 64), 64),
    ("4e", 256, (160, 320), (32, 128), 128),
    ("pool",),
    ("5a", 256, (160, 320), (32, 128), 128),
    ("5b", 384, (192, 384), (48, 128), 128),
]
# Photographs in memory, of which each step takes some.
HELD = 2048


def convolution(inputs, outputs, size, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2), nn.ReLU(inplace=True))


class Inception(nn.Module):
    def __init__(self, inputs, one, three, five, pooled):
        super().__init__()
        self.branches = nn.ModuleList([
            convolution(inputs, one, 1),
            nn.Sequential(convolution(inputs, three[0], 1), convolution(*three, 3)),
            nn.Sequential(convolution(inputs, five[0], 1), convolution(*five, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(inputs, pooled, 1)),
        ])
        self.outputs = one + three[1] + five[1] + pooled

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class GoogLeNet(nn.Module):
    """As published for Caffe: sizes of poolings are rounded up, and the two normalizations lie on either side of a pooling."""

    def __init__(self, classes):
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        norm = nn.LocalResponseNorm(5, 1e-4, 0.75)
        self.stem = nn.Sequential(
            convolution(3, 64, 7, 2), pool, norm, convolution(64, 64, 1), convolution(64, 192, 3), norm, pool)
        self.stem.requires_grad_(False)
        parts, channels = [], 192
        for name, *branches in MODULES:
            if name == "pool":
                parts.append(pool)
                continue
            parts.append(Inception(channels, *branches))
            channels = parts[-1].outputs
        self.modules_ = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(channels, classes))

    def forward(self, x):
        with torch.no_grad():
            x = self.stem(x)
        return self.classifier(self.modules_(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 by autocast")
    parser.add_argument("--tf32", action="store_true", help="float32 whose products may be TF32")
    parser.add_argument("--compile", action="store_true", help="with torch.compile; otherwise eager")
    parser.add_argument("--trace", action="store_true", help="say what the most expensive kernels are, too (bench/gpu_trace.py)")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments)), flush=True)


def measure(arguments):
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arguments.tf32
    network = GoogLeNet(2).train().to(device, memory_format=torch.channels_last)
    forward = torch.compile(network) if arguments.compile else network
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-3, 0.9, weight_decay=2e-4)
    photographs = torch.randint(0, 256, (HELD, 224, 224, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 2, (HELD,), device=device)

    def step():
        chosen = torch.randint(0, HELD, (arguments.batch,), device=device)
        # One turn for all: a turn for each would cost more.
        turned = torch.rot90(photographs[chosen], int(torch.randint(0, 4, (1,))), (1, 2))
        x = turned.permute(0, 3, 1, 2).float().sub_(117).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
            loss = functional.cross_entropy(forward(x), labels[chosen])
        loss.backward()
        optimizer.step()

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(arguments.warm_up):
        step()
    wait()
    begun = time.perf_counter()
    for _ in range(arguments.steps):
        step()
    wait()
    seconds = time.perf_counter() - begun
    precision = "bf16" if arguments.bf16 else "tf32" if arguments.tf32 else "float32"
    row = {
        "peer": "torch.compile" if arguments.compile else "eager",
        "torch": torch.__version__,
        "device": arguments.device,
        "batch": arguments.batch,
        "precision": precision,
        "images_per_s": round(arguments.batch * arguments.steps / seconds, 1),
        "step_ms": round(seconds / arguments.steps * 1e3, 2),
        "steps": arguments.steps,
    }
    if arguments.trace:
        row["kernels"] = traced(step, wait)
    return row


def traced(step, wait, steps=10):
    import os
    import tempfile

    import gpu_trace

    with torch.profiler.profile() as profile:
        for _ in range(steps):
            step()
        wait()
    handle, path = tempfile.mkstemp(suffix=".json")
    os.close(handle)
    try:
        profile.export_chrome_trace(path)
        return gpu_trace.summary(path, steps)
    finally:
        os.unlink(path)


if __name__ == "__main__":
    main()
