"""Masks and class maps: slow loops over pixels, selection of objects, ignored labels."""

from dataclasses import replace

import pytest
import torch

from stepsight.evaluation.statistics import pool
from stepsight.metrics.masks.segmentation import (
    amodal_rows,
    class_iou,
    confusion,
    miou,
    pixel_accuracy,
    semantic_rows,
)
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.metrics.reduce import reduce
from stepsight.types import IGNORE

PROTOCOL = PROTOCOLS["amodal-iou"]
PER_IMAGE, POOLED = RULES = (PROTOCOL, replace(PROTOCOL, averaging="pooled"))
ALL_OBJECTS = replace(PROTOCOL, min_hidden=None)


def row(*pixels):
    return torch.tensor(pixels, dtype=torch.bool).reshape(1, 1, 1, -1)


@pytest.fixture
def masks(rng):
    """Prediction, modal, amodal: bool "4 1 5 7"."""
    pred, amodal, seen = (torch.rand(4, 1, 5, 7, generator=rng) < 0.5 for _ in range(3))
    return pred, amodal & seen, amodal


def test_amodal_matches_a_slow_loop(masks, rng):
    valid = torch.rand(4, 1, 5, 7, generator=rng) < 0.8
    rows = amodal_rows(*masks, valid, ALL_OBJECTS)
    for i in range(4):
        pixels = [
            (bool(p), bool(m), bool(a))
            for p, m, a, v in zip(*(x[i].flatten() for x in (*masks, valid)))
            if v
        ]
        hidden = [(p, a) for p, m, a in pixels if not m]
        area = sum(a for _, _, a in pixels)
        expected = {
            "n": area,
            "iou": sum(p and a for p, _, a in pixels) / sum(p or a for p, _, a in pixels),
            "iou_hidden": sum(p and a for p, a in hidden) / sum(p or a for p, a in hidden),
            "hidden": sum(a and not m for _, m, a in pixels) / area,
        }
        for name, value in expected.items():
            assert rows[name][i].item() == pytest.approx(value), name


def test_probabilities_are_cut_at_one_half(masks):
    pred, modal, amodal = masks
    everywhere = torch.ones_like(pred)
    torch.testing.assert_close(
        amodal_rows(torch.where(pred, 0.51, 0.5), modal, amodal, everywhere, PROTOCOL),
        amodal_rows(pred, modal, amodal, everywhere, PROTOCOL),
    )


def test_an_object_in_full_view_has_no_hidden_iou():
    amodal, pred = row(1, 1, 0, 0), row(1, 1, 1, 0)
    rows = amodal_rows(pred, amodal, amodal, torch.ones_like(pred), ALL_OBJECTS)
    assert rows["iou"].item() == pytest.approx(2 / 3)
    assert rows["hidden"].item() == 0
    assert rows["iou_hidden"].isnan() and rows["union_hidden"] == 0


def test_only_objects_hidden_by_a_tenth_are_measured():
    amodal = row(*[1] * 10, 0).repeat(3, 1, 1, 1)
    modal = amodal.clone()
    modal[1, ..., 0] = False  # exactly 10 % hidden
    amodal[2] = modal[2] = False  # no object was chosen
    rows = amodal_rows(amodal, modal, amodal, torch.ones_like(amodal), PROTOCOL)
    assert rows["n"].tolist() == [0, 10, 0]
    assert rows["iou"].isnan().tolist() == [True, False, True]
    expected = {"iou": 1, "iou_hidden": 1, "hidden": 0.1, "n_images": 1}
    assert reduce(rows, PER_IMAGE) == pytest.approx(expected)


def test_pooled_iou_weighs_objects_by_size():
    amodal = torch.cat([row(1, 1, 1, 1, 1, 1, 1, 1), row(1, 1, 0, 0, 0, 0, 0, 0)])
    pred = torch.cat([row(1, 1, 1, 1, 1, 1, 1, 1), row(1, 0, 0, 0, 0, 0, 0, 0)])
    modal = torch.cat([row(1, 1, 0, 0, 0, 0, 0, 0), row(1, 0, 0, 0, 0, 0, 0, 0)])
    rows = amodal_rows(pred, modal, amodal, torch.ones_like(pred), PROTOCOL)
    assert reduce(rows, PER_IMAGE)["iou"] == pytest.approx((1 + 1 / 2) / 2)
    assert reduce(rows, POOLED)["iou"] == pytest.approx(9 / 10)
    assert reduce(rows, PER_IMAGE)["iou_hidden"] == pytest.approx((1 + 0) / 2)
    assert reduce(rows, POOLED)["iou_hidden"] == pytest.approx(6 / 7)
    assert reduce(rows, POOLED)["hidden"] == pytest.approx(7 / 10)


@pytest.fixture
def maps(rng):
    """Predicted and true classes, "3 5 7", a fifth of the truth without label."""
    pred, labels = (torch.randint(0, 4, (3, 5, 7), generator=rng) for _ in range(2))
    labels[torch.rand(3, 5, 7, generator=rng) < 0.2] = IGNORE
    return pred, labels


def test_confusion_matches_a_slow_loop(maps):
    pred, labels = maps
    expected = torch.zeros(3, 4, 4, dtype=torch.float64)
    for i in range(3):
        for p, g in zip(pred[i].flatten().tolist(), labels[i].flatten().tolist()):
            if g != IGNORE:
                expected[i, g, p] += 1
    assert torch.equal(confusion(pred, labels, 4), expected)
    assert torch.equal(semantic_rows(pred, labels, 4)["n"], expected.sum((1, 2)))


def test_scores_by_hand():
    matrix = torch.tensor([[3.0, 1.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]).double()
    assert class_iou(matrix)[:2].tolist() == pytest.approx([3 / 6, 4 / 7])
    assert class_iou(matrix)[2].isnan()
    assert miou(matrix).item() == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert pixel_accuracy(matrix).item() == pytest.approx(7 / 10)


def test_a_class_in_neither_truth_nor_prediction_is_skipped_or_counts_as_zero():
    matrix = torch.tensor([[3.0, 1.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]).double()
    rows = {"n": torch.tensor([10.0]), "confusion": matrix[None]}
    skipped, zero = (reduce(rows, PROTOCOLS[name]) for name in ("ade20k", "ade20k-challenge"))
    assert skipped["miou"] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert zero["miou"] == pytest.approx((3 / 6 + 4 / 7) / 3)
    assert zero["mean_score"] == pytest.approx((zero["miou"] + 0.7) / 2)
    counted = pool(rows, "miou", PROTOCOLS["ade20k-challenge"])
    assert counted is not None
    assert counted.of(counted.rows)[0] == pytest.approx(zero["miou"])


def test_a_class_only_predicted_counts_as_zero():
    matrix = confusion(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 2)
    assert miou(matrix).item() == pytest.approx((1 / 2 + 0) / 2)


def test_predictions_at_ignored_pixels_do_not_matter(maps):
    pred, labels = maps
    other = torch.where(labels == IGNORE, IGNORE, pred)
    assert torch.equal(confusion(pred, labels, 4), confusion(other, labels, 4))


@pytest.mark.parametrize("bad", [(4, 0), (0, 4), (-1, 0), (0, -1)])
def test_ids_outside_the_classes_are_refused(bad):
    pred, labels = (torch.tensor([[[value]]]) for value in bad)
    with pytest.raises(AssertionError, match="class ids outside 0 .. 3"):
        confusion(pred, labels, 4)


def test_miou_of_the_set_is_not_the_mean_of_images(maps):
    rows = semantic_rows(*maps, 4)
    pooled, per_image = reduce(rows, POOLED), reduce(rows, PER_IMAGE)
    assert pooled["miou"] == pytest.approx(miou(rows["confusion"].sum(0)).item())
    assert per_image["miou"] == pytest.approx(miou(rows["confusion"]).mean().item())
    assert pooled["miou"] != pytest.approx(per_image["miou"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.averaging)
def test_an_image_without_labels_changes_nothing(maps, rule):
    pred, labels = maps
    labels[1] = IGNORE
    without = semantic_rows(pred[[0, 2]], labels[[0, 2]], 4)
    assert reduce(semantic_rows(pred, labels, 4), rule) == reduce(without, rule)


def test_false_pixels_around_objects_in_full_view_count_where_all_objects_are_summed():
    """Deocclusion's inv_mIoU: sums of intersections and unions outside the visible masks."""
    amodal, modal = row(1, 1, 0, 0).repeat(2, 1, 1, 1), row(1, 1, 0, 0).repeat(2, 1, 1, 1)
    modal[0, ..., 1] = False  # half hidden, found; the other is in full view, one pixel too large
    pred = amodal.clone()
    pred[1, ..., 2] = True
    rule = PROTOCOLS["pix2gestalt-pooled"]
    rows = amodal_rows(pred, modal, amodal, torch.ones_like(pred), rule)
    assert reduce(rows, rule)["iou_hidden"] == pytest.approx(1 / 2)
    others = replace(rule, full_view=False)
    rows = amodal_rows(pred, modal, amodal, torch.ones_like(pred), others)
    assert reduce(rows, others)["iou_hidden"] == 1
