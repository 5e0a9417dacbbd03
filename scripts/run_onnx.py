#!/usr/bin/env python3
"""Runs an exported model in ONNX Runtime and in OpenCV, for the tests. It runs in the environment of `make model-tools`.

    run_onnx.py MODEL.onnx FOLDER

FOLDER holds pairs of files: NAME.images (float32, little-endian: batch, 3, height, width) and NAME.logits (batch,
classes), where NAME is BATCH-HEIGHT-WIDTH. Checks the model with ONNX's own checker, and prints for each pair the largest
difference of the logits and of the probabilities from what the file says, in each program, as one JSON object a line.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime


def main():
    path, folder = sys.argv[1], Path(sys.argv[2])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    net = cv2.dnn.readNetFromONNX(path)
    for images in sorted(folder.glob("*.images")):
        batch, height, width = map(int, images.stem.split("-"))
        x = np.fromfile(images, "<f4").reshape(batch, 3, height, width)
        expected = np.fromfile(images.with_suffix(".logits"), "<f4").reshape(batch, -1)
        net.setInput(x)
        for program, (logits, probabilities) in {
            "onnxruntime": runtime.run(["logits", "probabilities"], {"image": x}),
            "opencv": net.forward(["logits", "probabilities"]),
        }.items():
            print(json.dumps({
                "program": program,
                "images": images.stem,
                "logits": float(np.abs(logits - expected).max()),
                "probabilities": float(np.abs(probabilities - softmax(expected)).max()),
                "largest": float(np.abs(expected).max()),
            }))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
