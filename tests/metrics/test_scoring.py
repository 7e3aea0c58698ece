"""The one door to the metrics: every protocol yields what it reports, faults are told."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from stepsight.errors import UserError
from stepsight.measures import measure
from stepsight.metrics.protocol import PROTOCOLS, get
from stepsight.metrics.reduce import reduce
from stepsight.tasks.table import score
from stepsight.types import IGNORE, Batch

CLASSES = 5
OWN_SIZE = {"marigold-nyu": (480, 640), "lotus-nyu": (480, 640)}
PANOPTIC = {f"{s}{g}" for s in ("pq", "sq", "rq") for g in ("", "_things", "_stuff")}
ALL = {  # what a protocol without a list of metrics reports
    "amodal": {"iou", "iou_hidden", "hidden"},
    "panoptic": PANOPTIC,
}


def case(task, size, rng):
    """Values and a batch with every truth."""
    one, two, three = ((2, n, *size) for n in (1, 2, 3))
    labels = torch.randint(0, CLASSES, (2, *size), generator=rng)
    amodal = torch.rand(one, generator=rng) < 0.5
    batch = Batch(
        image=torch.zeros(three),
        keys=["a", "b"],
        sources=["toy"] * 2,
        depth=2 + 7 * torch.rand(one, generator=rng),
        depth_valid=torch.rand(one, generator=rng) < 0.9,
        flow=25 * torch.randn(two, generator=rng),
        flow_valid=torch.rand(one, generator=rng) < 0.9,
        occluded=torch.rand(one, generator=rng) < 0.3,
        labels=labels.masked_fill(torch.rand(labels.shape, generator=rng) < 0.2, IGNORE),
        instances=(labels < 2).long(),
        modal=amodal & (torch.rand(one, generator=rng) < 0.5),
        amodal=amodal,
        amodal_valid=torch.ones(one, dtype=torch.bool),
        normals=F.normalize(torch.randn(three, generator=rng), dim=1),
        normals_valid=torch.rand(one, generator=rng) < 0.9,
        order=torch.tensor([[[0, 0, 1, 1], [2, 3, 0, 1]]] * 2),
    )
    guess = torch.randint(0, CLASSES, one, generator=rng)
    values = {
        "depth": 2 + 7 * torch.rand(one, generator=rng),
        "flow": torch.randn(two, generator=rng),
        "amodal": torch.rand(one, generator=rng),
        "semantic": guess,
        "panoptic": torch.cat([guess, (guess < 2).long()], 1),
        "normals": torch.randn(three, generator=rng),
    }
    return values[task], batch


@pytest.mark.parametrize(
    "name", [n for n, row in PROTOCOLS.items() if row.task != "image" and row.needs != "film"]
)
def test_every_protocol_reports_its_metrics_and_no_others(name, rng):
    row = get(name)
    values, batch = case(row.task, OWN_SIZE.get(name, (12, 16)), rng)
    classes = CLASSES
    if row.besides == "instances":  # persons and so on
        classes, values = 19, values + 11
        batch.labels = torch.where(batch.labels == IGNORE, IGNORE, batch.labels + 11)
    if row.needs == "amodal":  # an object in full view
        batch.modal = batch.amodal
    metrics = reduce(score(values, batch, row, classes=classes), row)
    assert metrics.keys() - {"n_images"} == (set(row.metrics) or ALL[row.task])
    assert metrics["n_images"] == 2
    pooled = set(row.metrics) - {"median_angle"} if row.averaging == "pooled" else set()
    assert all(measure(metric).pools for metric in pooled)
    assert all(value == value for value in metrics.values()), metrics


def test_semantic_scores_are_those_of_torchmetrics(rng):
    values, batch = case("semantic", (30, 40), rng)
    found = reduce(score(values, batch, get("ade20k"), classes=CLASSES), get("ade20k"))
    known = {"num_classes": CLASSES, "ignore_index": IGNORE}
    miou = MulticlassJaccardIndex(**known)(values[:, 0], batch.labels).item()
    accuracy = MulticlassAccuracy(**known, average="micro")(values[:, 0], batch.labels).item()
    assert found["miou"] == pytest.approx(miou, rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(accuracy, rel=1e-6)
    assert found["mean_score"] == pytest.approx((miou + accuracy) / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["marigold-depth", "da2k", "raft-kitti", "ade20k", "pq"])
def test_missing_truth_is_named(name):
    batch = Batch(torch.zeros(1, 3, 4, 4), ["k"], ["barefoot"])
    with pytest.raises(UserError, match=f"under {name} needs .*, which barefoot does not have"):
        score(torch.zeros(1, 2, 4, 4), batch, get(name), classes=2)


@pytest.mark.parametrize("task,bad", [("semantic", 7), ("semantic", -1), ("panoptic", 5)])
def test_class_ids_without_a_class_are_told_with_their_image(task, bad, rng):
    values, batch = case(task, (6, 8), rng)
    batch.labels = torch.zeros_like(batch.labels)
    values[1, 0, 0, 0] = bad
    name = {"semantic": "voc", "panoptic": "pq"}[task]
    with pytest.raises(UserError, match=f"^b: class {bad} is predicted .* 5 classes, 0 to 4"):
        score(values, batch, get(name), classes=CLASSES)


def test_an_unlabelled_pixel_may_hold_any_predicted_id(rng):
    values, batch = case("semantic", (6, 8), rng)
    other = torch.where(batch.labels[:, None] == IGNORE, 99, values)
    row = get("cityscapes")
    first, second = (score(x, batch, row, classes=CLASSES) for x in (values, other))
    assert torch.equal(first["confusion"], second["confusion"])


def test_generators_cannot_be_scored_by_values(rng):
    _, batch = case("depth", (4, 4), rng)
    with pytest.raises(UserError, match="image-energy: it needs a model"):
        score(batch.image, batch, get("image-energy"))


def test_what_depth_is_given_as_reaches_the_alignment(rng):
    values, batch = case("depth", (12, 16), rng)
    row = get("pixel-perfect-depth")
    same = score(1 / values, batch, row, given="disparity")
    torch.testing.assert_close(same, score(values, batch, row))
    rising = batch.depth**0.5 + 0.1 * values
    affine = 0.5 * torch.log1p(rising) - 1  # as the model of that protocol answers
    found = score(affine, batch, row, given="log1p")
    torch.testing.assert_close(found, score(rising, batch, row))
    with pytest.raises(UserError, match="depth up to scale and shift, not disparity"):
        score(values, batch, get("seed-release-normalised-depth"), given="disparity")
