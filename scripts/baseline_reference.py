#!/usr/bin/env python3
"""Writes baseline/tests/reference.json: small cases of the classical classifiers by scikit-learn, and of texture by scikit-image.

    pip install numpy==2.4.6 scikit-learn==1.9.1 scikit-image==0.26.0
    python3 scripts/baseline_reference.py

The tests of the crate `baseline` compare its support vector machines, sigmoids, coupling of pairs, perceptron and co-occurrence
features with these.
"""
import itertools
import json
from pathlib import Path

import numpy as np
import skimage
import sklearn
from skimage.feature import graycomatrix, graycoprops
from sklearn.calibration import _sigmoid_calibration
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import SVC

OUT = Path(__file__).resolve().parent.parent / "baseline" / "tests" / "reference.json"


def samples(rng, classes, features, n):
    label = np.arange(n) % classes
    centre = rng.normal(size=(classes, features))
    return centre[label] + rng.normal(size=(n, features)), label


def machines(rng):
    """Decision values of pairs of classes on new rows, positive for the first of the pair."""
    cases = []
    kernels = [("rbf", "rbf", 0.0), ("linear", "linear", 0.0), ("polynomial", "poly", 1.0)]
    for (name, kernel, coef0), weighted in itertools.product(kernels, [False, True]):
        rows, label = samples(rng, 3, 4, 60)
        test, _ = samples(rng, 3, 4, 12)
        weights = [0.5, 1.0, 2.5] if weighted else [1.0, 1.0, 1.0]
        c, gamma = (4.0, 0.25) if kernel == "rbf" else (0.5, 0.125)
        svc = SVC(kernel=kernel, C=c, gamma=gamma, coef0=coef0, degree=3, class_weight=dict(enumerate(weights)),
                  decision_function_shape="ovo").fit(rows, label)
        cases.append({"kernel": name, "c": c, "gamma": gamma, "weights": weights, "rows": rows.tolist(), "label": label.tolist(),
                      "test": test.tolist(), "decisions": svc.decision_function(test).tolist()})
    return cases


def sigmoids(rng):
    cases = []
    for n, shift in [(30, 1.0), (200, 0.3), (12, 4.0)]:
        first = rng.random(n) < 0.4
        values = rng.normal(size=n) + shift * (2 * first - 1)
        a, b = _sigmoid_calibration(values, first.astype(float))
        cases.append({"values": values.tolist(), "first": first.tolist(),
                      "p": (1 / (1 + np.exp(a * values + b))).tolist()})
    return cases


def couplings(rng):
    """Wu, Lin and Weng's second method: least sum of (r_ji p_i - r_ij p_j)^2 with a sum of 1, by its linear system."""
    cases = []
    for classes in (3, 4, 5):
        r = np.zeros((classes, classes))
        for i, j in itertools.combinations(range(classes), 2):
            r[i, j] = rng.uniform(0.02, 0.98)
            r[j, i] = 1 - r[i, j]
        q = -r.T * r
        np.fill_diagonal(q, (r**2).sum(0))
        system = np.block([[q, np.ones((classes, 1))], [np.ones((1, classes)), np.zeros((1, 1))]])
        p = np.linalg.solve(system, np.r_[np.zeros(classes), 1.0])[:-1]
        assert (p >= 0).all()
        pairs = [r[i, j] for i, j in itertools.combinations(range(classes), 2)]
        cases.append({"classes": classes, "pairs": pairs, "p": p.tolist()})
    return cases


def perceptron(rng):
    """Loss and gradient at given weights."""
    rows, label = samples(rng, 3, 4, 20)
    net = MLPClassifier(hidden_layer_sizes=(5,), activation="tanh", solver="lbfgs", alpha=0.7, max_iter=1).fit(rows, label)
    coefs = [rng.normal(size=c.shape) for c in net.coefs_]
    intercepts = [rng.normal(size=c.shape) for c in net.intercepts_]
    net.coefs_, net.intercepts_ = coefs, intercepts
    y = LabelBinarizer().fit_transform(label)
    activations = [rows] + [np.empty((len(rows), 5)), np.empty((len(rows), 3))]
    deltas = [np.empty_like(a) for a in activations[1:]]
    grads, biases = [np.empty_like(c) for c in coefs], [np.empty_like(c) for c in intercepts]
    loss, grads, biases = net._backprop(rows, y, None, activations, deltas, grads, biases)
    flat = lambda w, b: np.concatenate([w[0].ravel(), b[0], w[1].ravel(), b[1]]).tolist()
    return {"rows": rows.tolist(), "label": label.tolist(), "hidden": 5, "classes": 3, "decay": 0.7,
            "values": flat(coefs, intercepts), "loss": float(loss), "gradient": flat(grads, biases),
            "p": net.predict_proba(rows).tolist()}


def texture(rng):
    """Of all neighbours of a square picture, 32 levels, four directions counted together."""
    picture = np.clip(rng.normal(120, 30, (24, 24)) + 40 * np.sin(np.arange(24) / 3), 0, 255).astype(np.uint8)
    counts = graycomatrix(picture // 8, [1], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], levels=32, symmetric=True)
    pooled = counts.sum(3, keepdims=True).astype(np.float64)
    pooled /= pooled.sum()
    figures = {name: float(graycoprops(pooled, name)[0, 0]) for name in ("contrast", "homogeneity", "energy", "correlation")}
    p = pooled[pooled > 0]
    figures["entropy"] = float(-(p * np.log2(p)).sum())
    return {"side": 24, "picture": picture.ravel().tolist(), "figures": figures}


def main():
    rng = np.random.default_rng(20261127)
    cases = {
        "made_by": {"scikit-learn": sklearn.__version__, "scikit-image": skimage.__version__, "numpy": np.__version__},
        "machines": machines(rng),
        "sigmoids": sigmoids(rng),
        "couplings": couplings(rng),
        "perceptron": perceptron(rng),
        "texture": texture(rng),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
