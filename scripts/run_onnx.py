#!/usr/bin/env python3
"""Runs an exported model in ONNX Runtime and in OpenCV, for the tests. It runs in the environment of `make model-tools`.

    run_onnx.py MODEL.onnx FOLDER

FOLDER holds three files for each NAME, which is BATCH-HEIGHT-WIDTH: NAME.images (float32, little-endian: batch, 3, height,
width), NAME.logits (batch, outputs) and NAME.probabilities (batch, classes). Checks the model with ONNX's own checker, and
prints for each NAME the largest differences from these files, in each program, as one JSON object a line.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime


OUTPUTS = ["logits", "probabilities"]


def main():
    path, folder = sys.argv[1], Path(sys.argv[2])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    net = cv2.dnn.readNetFromONNX(path)
    for images in sorted(folder.glob("*.images")):
        batch, height, width = map(int, images.stem.split("-"))
        x = np.fromfile(images, "<f4").reshape(batch, 3, height, width)
        expected, likely = (np.fromfile(images.with_suffix(f".{what}"), "<f4").reshape(batch, -1) for what in OUTPUTS)
        net.setInput(x)
        for program, (logits, probabilities) in {
            "onnxruntime": runtime.run(OUTPUTS, {"image": x}),
            "opencv": net.forward(OUTPUTS),
        }.items():
            print(json.dumps({
                "program": program,
                "images": images.stem,
                "logits": float(np.abs(logits - expected).max()),
                "probabilities": float(np.abs(probabilities - likely).max()),
                "largest": float(np.abs(expected).max()),
            }))


if __name__ == "__main__":
    main()
