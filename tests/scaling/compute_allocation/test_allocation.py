"""Compute-optimal models in closed form, against brute force and published constants."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw, allocate

HOFFMANN = TrainingLaw(E=1.69, A=406.4, alpha=0.34, B=410.7, beta=0.28)  # arXiv:2203.15556, eq. 10
EPOCH = TrainingLaw(E=1.8169, A=482.01, alpha=0.3478, B=2085.43, beta=0.3659)  # arXiv:2404.10102
KAPLAN = TrainingLaw(E=1.97, A=6.7e7, alpha=0.413, B=8.9e8, beta=0.456, form="kaplan")


@pytest.mark.parametrize("law", [HOFFMANN, EPOCH, KAPLAN])
@pytest.mark.parametrize("factor", [6.0, 6.0 * 256])
def test_nothing_is_better_at_the_same_budget(law: TrainingLaw, factor: float):
    best = allocate(law, 1e21, factor)
    assert factor * best.params * best.samples == pytest.approx(1e21, rel=1e-12)
    params = best.params * np.geomspace(0.01, 100, 4001)
    losses = law.loss(params, 1e21 / (factor * params))
    assert best.loss <= losses.min() * (1 + 1e-12)
    assert params[np.argmin(losses)] == pytest.approx(best.params, rel=3e-3)


@pytest.mark.parametrize("law", [HOFFMANN, KAPLAN])
def test_optima_follow_power_laws(law: TrainingLaw):
    near, far = allocate(law, 1e18), allocate(law, 1e22)
    assert np.log(far.params / near.params) == pytest.approx(law.a * np.log(1e4), rel=1e-9)
    assert np.log(far.samples / near.samples) == pytest.approx(law.b * np.log(1e4), rel=1e-9)
    assert law.a + law.b == pytest.approx(1) and far.loss < near.loss


def test_published_exponents():
    """a = .513 of the replication; .46 in table 2 of the original, which rounds other digits."""
    assert EPOCH.a == pytest.approx(0.513, abs=5e-4)
    assert HOFFMANN.a == pytest.approx(0.452, abs=5e-4)


def test_the_replication_agrees_with_twenty_tokens_a_parameter():
    """At Chinchilla's budget (70 B parameters, 1.4 T tokens); the original constants do not."""
    own, original = (allocate(law, 6 * 70e9 * 1.4e12) for law in (EPOCH, HOFFMANN))
    assert own.params == pytest.approx(70e9, rel=0.1)
    assert 15 < own.samples / own.params < 25
    assert original.samples / original.params > 70


def test_images_instead_of_tokens():
    """The same run told in images of 256 tokens: the law's B and the factor change together."""
    images = TrainingLaw(HOFFMANN.E, HOFFMANN.A, 0.34, HOFFMANN.B * 256**-0.28, 0.28)
    by_tokens, by_images = allocate(HOFFMANN, 1e21), allocate(images, 1e21, 6 * 256)
    assert by_images.params == pytest.approx(by_tokens.params)
    assert by_images.samples == pytest.approx(by_tokens.samples / 256)
    assert by_images.loss == pytest.approx(by_tokens.loss)


def test_what_is_no_law():
    good = dict(E=0.0, A=1.0, alpha=0.3, B=1.0, beta=0.3)
    assert TrainingLaw.of(good, "kaplan").form == "kaplan"
    for wrong in (good | {"A": 0.0}, good | {"beta": float("nan")}, good | {"E": -1.0}):
        with pytest.raises(UserError, match="is missing or is none"):
            TrainingLaw.of(wrong)
    with pytest.raises(UserError, match="alpha, beta is missing"):
        TrainingLaw.of({"E": 1.0, "A": 1.0, "B": 1.0})
    with pytest.raises(UserError, match="Did you mean 'kaplan'"):
        TrainingLaw.of(good, "kaplen")
    with pytest.raises(UserError, match="budget 0"):
        allocate(HOFFMANN, 0.0)
    with pytest.raises(UserError, match="factor -6"):
        allocate(HOFFMANN, 1e20, -6.0)
