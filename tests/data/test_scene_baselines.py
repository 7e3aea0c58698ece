"""What predictors that learn next to nothing score on the standard worlds.

These figures pin the distribution: results on the standard level are comparable between versions
only while they hold. All of them are over 512 fresh scenes at 64 x 64.
"""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.source import Scenes

QUANTITIES = frozenset({"depth", "flow", "labels", "amodal"})


def load(
    split: str, count: int, quantities: frozenset[str], seed: int = 0
) -> dict[str, np.ndarray]:
    """Stacked fields of the first `count` scenes."""
    samples = Scenes(ScenesSettings(seed=seed), split, quantities).samples(range(count))
    names = [name for name, value in vars(samples[0]).items() if hasattr(value, "numpy")]
    return {name: np.stack([getattr(s, name).numpy() for s in samples]) for name in names}


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    return load("eval", 512, QUANTITIES)


@pytest.fixture(scope="module")
def training() -> dict[str, np.ndarray]:
    return load("train", 1024, frozenset({"depth", "labels"}))


def scaled_log_depth(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Log depth with its 2 % and 98 % quantiles mapped to -1 and 1, clipped."""
    log = np.log(depth)
    low, high = np.quantile(log[valid], [0.02, 0.98])
    return np.clip(2 * (log - low) / max(high - low, 1e-6) - 1, -1, 1)


def mean_map_absrel(training: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """AbsRel of the mean training target, aligned to the log depth of each image."""
    valid = training["depth_valid"]
    targets = [scaled_log_depth(d, v) for d, v in zip(training["depth"], valid)]
    mean = (np.stack(targets) * valid).sum(0) / valid.sum(0).clip(1)
    errors = []
    for depth, inside in zip(truth["depth"], truth["depth_valid"]):
        base, log = mean[inside], np.log(depth[inside])
        design = np.stack([base, np.ones_like(base)], axis=1)
        aligned = np.exp(design @ np.linalg.lstsq(design, log, rcond=None)[0])
        errors.append(np.mean(np.abs(aligned - depth[inside]) / depth[inside]))
    return float(np.mean(errors))


def flow_errors(truth: dict[str, np.ndarray]) -> tuple[float, float]:
    """End-point errors of zero flow and of each image's own mean vector."""
    flow = truth["flow"]
    assert truth["flow_valid"].all()
    rest = flow - flow.mean(axis=(2, 3), keepdims=True)
    return tuple(float(np.linalg.norm(f, axis=1).mean()) for f in (flow, rest))  # type: ignore


def amodal_ious(truth: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """Share of scenes hidden by 10 % or more, and there IoU of the visible mask and of its box."""
    copies, boxes = [], []
    for modal, amodal in zip(truth["modal"][:, 0], truth["amodal"][:, 0]):
        if modal.any() and modal.sum() <= 0.9 * amodal.sum():
            rows, columns = np.nonzero(modal)
            box = np.zeros_like(modal)
            box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
            copies.append(modal.sum() / amodal.sum())
            boxes.append((box & amodal).sum() / (box | amodal).sum())
    return len(copies) / len(truth["modal"]), float(np.mean(copies)), float(np.mean(boxes))


def prior_map_miou(training: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """mIoU of the most frequent training class of each pixel."""
    classes = np.arange(7)
    prior = np.stack([(training["labels"] == c).mean(0) for c in classes]).argmax(0)
    confusion = np.zeros((7, 7))
    for labels in truth["labels"]:
        np.add.at(confusion, (labels, prior), 1)
    hit = np.diag(confusion)
    return float((hit / (confusion.sum(0) + confusion.sum(1) - hit)).mean())


def test_mean_map_depth(training: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> None:
    assert mean_map_absrel(training, truth) == pytest.approx(0.29, abs=0.03)


def test_zero_flow(truth: dict[str, np.ndarray]) -> None:
    zero, mean_vector = flow_errors(truth)
    assert zero == pytest.approx(3.5, abs=0.4)
    assert mean_vector >= 1.4


def test_visible_mask_and_its_box(truth: dict[str, np.ndarray]) -> None:
    share, copy, box = amodal_ious(truth)
    assert share >= 0.7
    assert copy == pytest.approx(0.50, abs=0.04)
    assert box == pytest.approx(0.68, abs=0.04)


def test_prior_map_labels(training: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> None:
    assert prior_map_miou(training, truth) == pytest.approx(0.21, abs=0.03)


def test_pictures_are_well_lit(truth: dict[str, np.ndarray]) -> None:
    assert truth["image"].mean() / 255 == pytest.approx(0.45, abs=0.05)
