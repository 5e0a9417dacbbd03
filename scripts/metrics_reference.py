#!/usr/bin/env python3
"""Writes evaluation/tests/reference.json: figures of random cases by scikit-learn, and intervals by a plain bootstrap.

    pip install numpy==2.4.6 scikit-learn==1.9.1
    python3 scripts/metrics_reference.py

The tests of the crate `evaluation` compare its figures with these. Cases have ties, several photographs a patient, classes
that do not occur, and patients whose photographs are alike. The last ones are of models with an ordinal head, which name
the median class. `pairs` are of two models on the same photographs: the difference of their AUCs, resampled together.
"""
import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn import metrics
from sklearn.calibration import calibration_curve

OUT = Path(__file__).resolve().parent.parent / "evaluation" / "tests" / "reference.json"
BINS = 10
DRAWS = 20_000


def case(rng, number, choice=(2, 2, 3, 5)):
    classes = choice[number % len(choice)]
    positive_class = int(rng.integers(1, classes))
    patients = int(rng.integers(8, 60))
    patient, label, logits = [], [], []
    for p in range(patients):
        severity = rng.normal()
        for _ in range(int(rng.integers(1, 5))):
            grade = int(np.clip(np.round(severity + rng.normal() * 0.6 + (classes - 1) / 2), 0, classes - 1))
            patient.append(p)
            label.append(grade)
            logits.append(-1.2 * np.abs(np.arange(classes) - grade - rng.normal() * 0.9))
    logits = np.array(logits)
    if number % 3 == 0:
        # Ties.
        logits = np.round(logits)
    probabilities = np.exp(logits)
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).astype(np.float32)
    return classes, positive_class, np.array(patient), np.array(label), probabilities


def calibration_error(truth, p):
    share, mean = calibration_curve(truth, p, n_bins=BINS, strategy="uniform")
    # calibration_curve leaves empty bins out; its bins include their lower ends.
    edges = np.linspace(0, 1, BINS + 1)
    count = np.bincount(np.searchsorted(edges[1:-1], p), minlength=BINS)
    return float((count[count > 0] / len(p) * np.abs(share - mean)).sum())


def most_probable(probabilities):
    return probabilities.argmax(1)


def median(probabilities):
    """The highest class that is reached with a probability above 1/2 (CORN, Shi et al. 2021)."""
    beyond = probabilities.astype(np.float64)[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
    return (beyond > 0.5).sum(1)


def figures(classes, positive_class, label, probabilities, predict=most_probable):
    p = np.clip(probabilities[:, positive_class:].astype(np.float64).sum(1), 0, 1)
    truth = label >= positive_class
    predicted = predict(probabilities)
    confusion = metrics.confusion_matrix(label, predicted, labels=range(classes))
    called = p >= 0.5
    out = {
        "auc": metrics.roc_auc_score(truth, p) if 0 < truth.sum() < len(truth) else None,
        "macro_auc": macro_auc(classes, label, probabilities),
        "kappa": metrics.cohen_kappa_score(label, predicted, labels=range(classes), weights="quadratic"),
        "accuracy": metrics.accuracy_score(label, predicted),
        "brier": metrics.brier_score_loss(truth, p, labels=[False, True]),
        "calibration_error": calibration_error(truth, p),
        "recall": [None if not confusion[c].sum() else confusion[c][c] / confusion[c].sum() for c in range(classes)],
        "confusion": confusion.tolist(),
        "sensitivity": metrics.recall_score(truth, called, zero_division=np.nan),
        "specificity": metrics.recall_score(~truth, ~called, zero_division=np.nan),
        "ppv": metrics.precision_score(truth, called, zero_division=np.nan),
        "npv": metrics.precision_score(~truth, ~called, zero_division=np.nan),
    }
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in out.items()}


def macro_auc(classes, label, probabilities):
    """Mean AUC of each class against all others. scikit-learn's own `multi_class="ovr"` demands sums of exactly 1."""
    if classes == 2 or len(set(label)) < classes:
        return None
    one_hot = label[:, None] == np.arange(classes)
    return metrics.roc_auc_score(one_hot, probabilities.astype(np.float64), average="macro")


def auc(truth, p):
    """Much faster than scikit-learn's for small cases, and compared with it."""
    pos, neg = p[truth], p[~truth]
    if not len(pos) or not len(neg):
        return np.nan
    return ((pos[:, None] > neg).sum() + 0.5 * (pos[:, None] == neg).sum()) / (len(pos) * len(neg))


def intervals(rng, positive_class, patient, label, probabilities):
    p = np.clip(probabilities[:, positive_class:].astype(np.float64).sum(1), 0, 1)
    truth = label >= positive_class
    assert abs(auc(truth, p) - metrics.roc_auc_score(truth, p)) < 1e-12
    members = [np.flatnonzero(patient == q) for q in range(patient.max() + 1)]
    draws = {"auc": [], "accuracy": [], "sensitivity": []}
    for _ in range(DRAWS):
        rows = np.concatenate([members[q] for q in rng.integers(0, len(members), len(members))])
        t, s = truth[rows], p[rows]
        draws["auc"].append(auc(t, s))
        draws["accuracy"].append((probabilities[rows].argmax(1) == label[rows]).mean())
        draws["sensitivity"].append((s[t] >= 0.5).mean() if t.any() else np.nan)
    return {k: np.nanquantile(v, [0.025, 0.975]).tolist() for k, v in draws.items()}


def pair(rng, number):
    """Two models that err on the same photographs in part."""
    _, _, patient, label, probabilities = case(rng, number, (2,))
    truth = label == 1
    assert 0 < truth.sum() < len(truth)
    first = probabilities[:, 1].astype(np.float64)
    second = 1 / (1 + np.exp(-(np.log(first / (1 - first)) + rng.normal(size=len(first)) * 1.5)))
    if number % 2:
        first, second = np.round(first, 1), np.round(second, 1)
    members = [np.flatnonzero(patient == q) for q in range(patient.max() + 1)]
    draws = []
    for _ in range(DRAWS):
        rows = np.concatenate([members[q] for q in rng.integers(0, len(members), len(members))])
        t = truth[rows]
        draws.append(auc(t, first[rows]) - auc(t, second[rows]))
    difference = metrics.roc_auc_score(truth, first) - metrics.roc_auc_score(truth, second)
    return {
        "patient": patient.tolist(),
        "label": label.tolist(),
        "first": first.tolist(),
        "second": second.tolist(),
        "difference": difference,
        "interval": np.nanquantile(draws, [0.025, 0.975]).tolist(),
    }


def main():
    rng = np.random.default_rng(20261127)
    cases = []
    for number in range(40):
        classes, positive_class, patient, label, probabilities = case(rng, number)
        entry = {
            "classes": classes,
            "positive_class": positive_class,
            "patient": patient.tolist(),
            "label": label.tolist(),
            "probabilities": [[float(x) for x in row] for row in probabilities],
            "figures": figures(classes, positive_class, label, probabilities),
        }
        truth = label >= positive_class
        if number < 8 and 0 < truth.sum() < len(truth):
            entry["intervals"] = intervals(rng, positive_class, patient, label, probabilities)
        cases.append(entry)
    rng = np.random.default_rng(20261128)
    differ = 0
    for number in range(12):
        classes, positive_class, patient, label, probabilities = case(rng, number, (4, 5))
        differ += int((median(probabilities) != most_probable(probabilities)).sum())
        cases.append({
            "classes": classes,
            "positive_class": positive_class,
            "head": "ordinal",
            "patient": patient.tolist(),
            "label": label.tolist(),
            "probabilities": [[float(x) for x in row] for row in probabilities],
            "figures": figures(classes, positive_class, label, probabilities, median),
        })
    assert differ >= 10, differ
    rng = np.random.default_rng(20261129)
    pairs = [pair(rng, number) for number in range(6)]
    made_by = {"scikit-learn": sklearn.__version__, "numpy": np.__version__, "draws": DRAWS}
    OUT.write_text(json.dumps({"made_by": made_by, "cases": cases, "pairs": pairs}, separators=(",", ":")) + "\n")
    print(f"{OUT}: {len(cases)} cases, {len(pairs)} pairs, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
