"""Flicker by the true flow: what it counts, and what it does not."""

from __future__ import annotations

import pytest
import torch

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.film import SceneFilm
from stepsight.errors import UserError
from stepsight.metrics.protocol import get
from stepsight.metrics.temporal import temporal_rows
from stepsight.tasks.table import score
from stepsight.types import Batch

RULE = get("temporal-affine-log")


@pytest.fixture(scope="module")
def film():
    """Depth, valid, flow and seen of six frames."""
    samples = list(SceneFilm(ScenesSettings(size=(32, 32)), 2, 6))
    pairs = samples[:-1]
    return (
        torch.stack([one.depth for one in samples]),
        torch.stack([one.depth_valid for one in samples]),
        torch.stack([one.flow for one in pairs]),
        ~torch.stack([one.occluded for one in pairs]),
    )


def means(depth, film, rule=RULE):
    rows = temporal_rows(depth, *film, rule)
    assert all(len(row) == len(depth) - 1 for row in rows.values())
    return {name: float(row.mean()) for name, row in rows.items()}


def test_the_truth_does_not_flicker_though_it_changes(film):
    found = means(film[0], film)
    assert found["flicker"] < 1e-12 and found["abs_rel"] < 1e-12
    assert 1e-4 < found["warped"] < 0.03 and found["opw"] > 1e-3
    assert found["n"] > 0.8 * 32 * 32


def test_a_film_has_one_scale_and_shift_of_log_depth(film):
    truth = film[0]
    other = 3 * truth**0.4
    one, two = means(truth, film), means(other, film)
    assert all(two[name] == pytest.approx(one[name], abs=1e-6) for name in one)


def test_pumping_is_flicker_by_its_size(film):
    truth, pumps = film[0], torch.tensor([0.0, 0.1, 0.0, 0.1, 0.0, 0.1])
    pumped = truth * pumps.exp()[:, None, None, None]
    metric = means(pumped, film, get("temporal-metric"))
    assert metric["flicker"] == pytest.approx(0.1, abs=1e-5)
    each = score(pumped, Batch(torch.zeros(6, 3, 32, 32), [*"abcdef"], ["x"] * 6, depth=truth,
                 depth_valid=film[1]), get("depth-affine-log"))  # fmt: skip
    assert float(each["abs_rel"].max()) < 1e-6  # which a fit for each frame cannot see


def test_what_the_next_frame_hides_does_not_count(film):
    depth, valid, flow, seen = film
    part = depth[:2], valid[:2], flow[:1], seen[:1]
    wrong = depth[:2].clone()
    wrong[:1] = torch.where(seen[:1], wrong[:1], 5 * wrong[:1])
    assert (~seen[0]).sum() > 10
    rule = get("temporal-metric")
    found, clean = (temporal_rows(x, *part, rule) for x in (wrong, depth[:2]))
    assert torch.equal(found["flicker"], clean["flicker"])
    unknown = valid[:2].clone()
    unknown[1, :, 8:16, 8:16] = False  # also for whoever fetches from there
    wrong = torch.where(unknown, depth[:2], 7.0)
    rows = temporal_rows(wrong, depth[:2], unknown, flow[:1], seen[:1], rule)
    assert rows["flicker"].item() < 1e-12 and rows["n"] < clean["n"] - 40


def test_pictures_are_refused(film):
    batch = Batch(torch.zeros(1, 3, 32, 32), ["k"], ["x"], depth=film[0][:1])
    with pytest.raises(UserError, match="temporal-affine-log scores films.*stepsight film"):
        score(film[0][:1], batch, RULE)
