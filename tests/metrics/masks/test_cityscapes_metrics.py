"""IoU of categories, and IoU in which every instance counts alike: by hand."""

import pytest
import torch

from stepsight.errors import UserError
from stepsight.metrics.masks.cityscapes import CATEGORIES, SIZES, weighted_instances
from stepsight.metrics.protocol import get
from stepsight.metrics.reduce import reduce
from stepsight.tasks.table import score
from stepsight.types import IGNORE, Batch

RULE = get("cityscapes-benchmark")
ROAD, SIDEWALK, PERSON, RIDER, CAR = 0, 1, 11, 12, 13


def scored(pred, labels, instances):
    labels, instances, pred = (torch.tensor([[x]]) for x in (labels, instances, pred))
    batch = Batch(
        torch.zeros(1, 3, 1, labels.shape[-1]), ["a"], ["toy"], labels=labels, instances=instances
    )
    return score(pred[None], batch, RULE, classes=19)


def test_a_small_instance_counts_as_much_as_a_large_one():
    """Persons of 4 pixels, all found, and of 1, taken for a rider; one road pixel is a person."""
    rows = scored(
        [PERSON, PERSON, PERSON, PERSON, RIDER, PERSON, SIDEWALK],
        [PERSON, PERSON, PERSON, PERSON, PERSON, ROAD, ROAD],
        [1, 1, 1, 1, 2, 0, 0],
    )
    found, size = reduce(rows, RULE), SIZES[PERSON]
    of_persons, of_riders = size / (2 * size + 1), 0 / 1
    assert found["instance_iou"] == pytest.approx((of_persons + of_riders) / 2)
    assert found["category_instance_iou"] == pytest.approx(2 * size / (2 * size + 1))
    assert found["category_iou"] == pytest.approx((5 / 6 + 1 / 2) / 2)  # human, flat
    assert found["miou"] == pytest.approx((4 / 6 + 0 + 0 + 0) / 4)  # person, rider, road, sidewalk


def test_groups_and_what_has_no_label_are_no_instances():
    pred, labels, instances = ([[[CAR, CAR, CAR]]], [[[CAR, IGNORE, CAR]]], [[[-1, 1, 2]]])
    found = weighted_instances(*map(torch.tensor, (pred, labels, instances)))
    assert found[0, CAR].tolist() == pytest.approx([SIZES[CAR]] * 3)  # of one instance
    assert found.sum() == pytest.approx(3 * SIZES[CAR])


def test_every_class_has_a_category_and_those_with_instances_a_size():
    assert len(CATEGORIES) == 19 and list(SIZES) == list(range(11, 19))
    assert {CATEGORIES[label] for label in SIZES} == {5, 6}


def test_other_classes_are_refused():
    batch = Batch(torch.zeros(1, 3, 1, 1), ["a"], ["toy"])
    batch.labels = batch.instances = torch.zeros(1, 1, 1, dtype=torch.long)
    with pytest.raises(UserError, match="cityscapes-benchmark scores the 19 classes"):
        score(torch.zeros(1, 1, 1, 1).long(), batch, RULE, classes=5)
