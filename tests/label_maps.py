"""Label maps for the tests of metrics, and what to compare."""

import numpy as np

from utils.metrics import ConfusionMatrix


def random_maps(seed, classes=7, shape=(3, 20, 31), ignored=0.1, absent=(5,), outputs=None):
    """Labels with ignored pixels and classes that never occur, predictions that are often right."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c not in absent]
    labels = rng.choice(present, shape)
    guesses = rng.choice(present, shape) if outputs is None else rng.integers(0, outputs, shape)
    predictions = np.where(rng.random(shape) < 0.6, labels, guesses)
    labels = np.where(rng.random(shape) < ignored, 255, labels)
    return labels.astype(np.uint8), predictions.astype(np.uint8)


def measured(classes, *pairs):
    matrix = ConfusionMatrix(classes)
    for labels, predictions in pairs:
        matrix.update(labels, predictions)
    return matrix.compute()


def same_numbers(first: dict, second: dict):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_equal(
            np.array(first[name], float), np.array(second[name], float), err_msg=name
        )


def vspw_videos(golden, names):
    """Raw VSPW masks (0 others, 1..124, 255 void) -> labels 0..123, 255."""
    for name in names:
        raw = golden[f"gt_{name}"].astype(int)
        yield (
            np.where((raw == 0) | (raw == 255), 255, raw - 1).astype(np.uint8),
            golden[f"pred_{name}"],
        )
