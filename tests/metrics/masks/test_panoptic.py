"""Panoptic quality: a slow count of sets of pixels, torchmetrics, and COCO's rules by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality

from stepsight.metrics.masks.panoptic import panoptic_rows
from stepsight.metrics.protocol import get
from stepsight.metrics.reduce import reduce
from stepsight.types import IGNORE

CLASSES = 4  # 0 and 1 things, 2 and 3 stuff


def maps(rng, images=3, size=(9, 11), void=True):
    """Blocky truth and a prediction that disturbs it, "b 2 h w" each."""
    shape = (images, 4, 4)
    ids = torch.randint(0, CLASSES, shape, generator=rng)
    numbers = torch.where(ids < 2, torch.randint(1, 4, shape, generator=rng), 0)
    truth = torch.stack([ids, numbers], 1).float()
    truth = torch.nn.functional.interpolate(truth, size=size, mode="nearest").long()
    other = truth.flip(-1).roll(2, dims=2)
    same = torch.rand(images, 1, *size, generator=rng) < 0.62
    pred = torch.where(same, truth, other)
    if void:
        hole = torch.rand(images, *size, generator=rng) < 0.15
        truth[:, 0][hole] = IGNORE
        truth[:, 1][hole] = 0
        crowd = (truth[:, 0] == 1) & (truth[:, 1] == 2)
        truth[:, 1][crowd] = -1
        pred[:, 0][torch.rand(images, *size, generator=rng) < 0.05] = IGNORE
    return pred, truth


def slow(pred, truth):
    """COCO's counts of one image from sets of pixels: class -> [sum IoU, TP, FP, FN]."""

    def segments(x):
        found = {}
        for place, key in enumerate(zip(*(c.flatten().tolist() for c in x))):
            found.setdefault(key, set()).add(place)
        return found

    true, guess = segments(truth), segments(pred)
    void = set().union(*(s for (c, _), s in true.items() if c == IGNORE))
    counts, met = np.zeros((CLASSES, 4)), set()
    for (c, n), pixels in true.items():
        if c == IGNORE or n == -1:
            continue
        counts[c, 3] += 1
        for (d, m), other in guess.items():
            iou = len(pixels & other) / len((pixels | other) - (other & void))
            if c == d and iou > 0.5:
                counts[c] += [iou, 1, 0, -1]
                met.add((d, m))
    for (d, m), pixels in guess.items():
        crowd = true.get((d, -1), set())
        if d != IGNORE and (d, m) not in met:
            counts[d, 2] += len(pixels & (void | crowd)) / len(pixels) <= 0.5
    return counts


@pytest.mark.parametrize("void", [False, True])
def test_counts_match_sets_of_pixels(rng, void):
    pred, truth = maps(rng, void=void)
    rows = panoptic_rows(pred, truth[:, 0], truth[:, 1], CLASSES)
    for i in range(3):
        np.testing.assert_allclose(rows["segments"][i].numpy(), slow(pred[i], truth[i]))
    assert rows["segments"][..., 1:].sum((0, 1)).min() > 0  # TP, FP and FN all occur


def test_torchmetrics_agrees_where_it_computes_the_same(rng):
    """Without void and crowds; its result per class is (PQ, SQ, RQ)."""
    pred, truth = maps(rng, images=4, void=False)
    ours = panoptic_rows(pred, truth[:, 0], truth[:, 1], CLASSES)
    oracle = PanopticQuality({0, 1}, {2, 3}, return_per_class=True, return_sq_and_rq=True)
    oracle.update(pred.movedim(1, -1), truth.movedim(1, -1))
    theirs = oracle.compute().numpy()
    found = reduce(ours, get("pq"))
    for column, name in enumerate(("pq", "sq", "rq")):
        assert found[name] == pytest.approx(theirs[:, column].mean(), rel=1e-6)
        assert found[f"{name}_things"] == pytest.approx(theirs[:2, column].mean(), rel=1e-6)
        assert found[f"{name}_stuff"] == pytest.approx(theirs[2:, column].mean(), rel=1e-6)


def strip(*pairs):
    """One image of a row of (class, number) pixels, "1 2 1 n"."""
    return torch.tensor(pairs).T[None, :, None]


def counts(pred, truth):
    return panoptic_rows(pred, truth[:, 0], truth[:, 1], CLASSES)["segments"][0]


def test_void_is_neither_in_the_union_nor_a_false_positive():
    truth = strip((0, 1), (0, 1), (IGNORE, 0), (IGNORE, 0), (IGNORE, 0), (2, 0))
    pred = strip((0, 1), (0, 1), (0, 1), (1, 1), (1, 1), (2, 0))
    found = counts(pred, truth)
    assert found[0].tolist() == [1, 1, 0, 0]  # IoU 2 / (3 + 2 - 2 - 1)
    assert found[1].tolist() == [0, 0, 0, 0]  # lies on void altogether


@pytest.mark.parametrize("on_crowd,false_positive", [(1, 1), (2, 1), (3, 0)])
def test_a_prediction_mostly_on_a_crowd_of_its_class_is_forgiven(on_crowd, false_positive):
    truth = strip(*[(0, -1)] * 3, *[(2, 0)] * 5)
    pred = strip(*[(0, 1) if 3 - on_crowd <= i < 5 else (2, 0) for i in range(8)])
    pred[0, :, 0, 3 - on_crowd : 5] = torch.tensor([[0], [1]])
    assert counts(pred, truth)[0].tolist() == [0, 0, false_positive, 0]  # and the crowd is no miss


def test_half_is_no_match():
    truth, pred = strip((0, 1), (0, 1), (2, 0)), strip((0, 1), (2, 0), (2, 0))
    found = counts(pred, truth)
    assert found[0].tolist() == [0, 0, 1, 1] and found[2].tolist() == [0, 0, 1, 1]


def test_things_and_stuff_are_told_by_the_truth_and_reduced_once(rng):
    pred, truth = maps(rng, void=False)
    rows = panoptic_rows(pred, truth[:, 0], truth[:, 1], CLASSES)
    parts = [
        panoptic_rows(p, g[:, 0], g[:, 1], CLASSES) for p, g in zip(pred.split(1), truth.split(1))
    ]
    joined = {name: torch.cat([part[name] for part in parts]) for name in rows}
    assert reduce(joined, get("pq")) == reduce(rows, get("coco-panoptic"))
    found = reduce(rows, get("pq"))
    assert found["pq"] == pytest.approx((found["pq_things"] + found["pq_stuff"]) / 2)
    perfect = reduce(panoptic_rows(truth, truth[:, 0], truth[:, 1], CLASSES), get("pq"))
    assert perfect["pq"] == perfect["sq_things"] == perfect["rq_stuff"] == 1
