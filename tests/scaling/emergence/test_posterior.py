"""The sampled posterior: its density by hand, its agreement with the bootstrap, its absence."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from scipy.stats import norm

from stepsight.errors import UserError
from stepsight.scaling.emergence import posterior as emergence_posterior
from stepsight.scaling.emergence.elbow import fit_columns
from stepsight.scaling.emergence.model import Points, elbow_problem
from stepsight.scaling.emergence.posterior import log_posterior, sample
from stepsight.scaling.fitting.search import best_start

LOSS, IMAGES = (
    part.ravel() for part in np.meshgrid(np.linspace(2.25, 1.9, 8), 64 * 4.0 ** np.arange(5))
)
CURVE = 0.45 * np.maximum(0, 0.06 * np.log(IMAGES) ** 0.9 + 1.8 - LOSS) + 0.25
FEW_SHOT = 1.89208


def points(sigma: float = 0.01, seed: int = 1) -> Points:
    noise = sigma * np.random.default_rng(seed).standard_normal(len(CURVE))
    return Points(LOSS, IMAGES, CURVE + noise)


def columns() -> dict[str, np.ndarray]:
    return dict(zip(("loss", "images", "y"), points()))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(emergence_posterior, "STEPS", 450)


def test_density():
    """Gaussian, with alpha, A and sigma in logs; nothing outside of the priors."""
    measured = points()
    model = elbow_problem(measured, None)
    ends = [0.06 * math.log(d) ** 0.9 + 1.8 for d in (64, 16384)]
    theta = np.array([math.log(0.9), *ends, math.log(0.45), math.log(0.01), 0.25])
    other = theta + np.array([0.1, 0.01, -0.01, 0.1, 0.2, 0.005])
    found = log_posterior(model, np.stack([theta, other]))
    by_hand = norm.logpdf(measured.y - CURVE, scale=0.01).sum()
    alpha, (low, high) = 0.9 * math.exp(0.1), np.log([64, 16384])
    share = (np.log(IMAGES) ** alpha - low**alpha) / (high**alpha - low**alpha)
    depth = np.maximum(0, other[1] + (other[2] - other[1]) * share - LOSS)
    curve = 0.45 * math.exp(0.1) * depth + 0.255
    by_hand -= norm.logpdf(measured.y - curve, scale=0.01 * math.exp(0.2)).sum()
    assert found[0] - found[1] == pytest.approx(by_hand, rel=1e-6)
    outside = np.tile(theta, (4, 1))
    outside[0, 0], outside[1, 4], outside[2, 5] = math.log(6), 5.0, 99.0
    outside[3, 1:3] = outside[3, 2:0:-1]  # elbows that fall with images
    assert (log_posterior(model, outside) == -np.inf).all()


def test_posterior_and_bootstrap_agree(short):
    one = fit_columns(columns(), ("loss", "images"), "y", bootstrap=40, posterior=True)
    few = one.few_shot()
    assert few.posterior is not None and few.posterior[0] <= FEW_SHOT <= few.posterior[1]
    assert one.posterior is not None and list(one.posterior) == list(one.params)
    for name, (lo, hi) in one.posterior.items():
        truth = {"A": 0.45, "B": 0.25, "k": 0.06, "alpha": 0.9, "C": 1.8, "sigma": 0.01}[name]
        assert lo <= truth <= hi
    assert one.posterior_draws is not None
    medians = [
        np.median(d[:, 2] * math.log(5) ** d[:, 3] + d[:, 4])
        for d in (one.draws, one.posterior_draws)
    ]
    assert abs(medians[0] - medians[1]) < 0.075
    assert "draws" not in one.to_dict() and "posterior_draws" not in one.to_dict()


def test_draws_are_those_of_the_likelihood_where_it_is_sharp(short):
    """B is the level of the points on the base: known to sigma / sqrt(n) or better."""
    model = elbow_problem(points(), None)
    best = best_start(model)
    draws, _ = sample(model, best, seed=0)
    base = draws[:, 1]
    flat = (LOSS > 2.1) & (IMAGES < 300)
    assert base.mean() == pytest.approx(best.q[0, -1], abs=0.004)
    assert 0.5 * 0.01 / math.sqrt(len(LOSS)) < base.std() < 1.5 * 0.01 / math.sqrt(flat.sum())


def test_same_seed_same_draws_and_a_given_base(short):
    model = elbow_problem(points(), 0.25)
    best = best_start(model)
    one, two, other = (sample(model, best, seed)[0] for seed in (0, 0, 1))
    assert (one == two).all() and not np.array_equal(one, other)
    assert (one[:, 1] == 0.25).all()


def test_a_short_chain_is_said(monkeypatch):
    monkeypatch.setattr(emergence_posterior, "STEPS", 60)
    model = elbow_problem(points(), None)
    _, notes = sample(model, best_start(model), seed=0)
    assert "not converged" in notes[0]


def test_without_emcee(monkeypatch):
    monkeypatch.setitem(sys.modules, "emcee", None)
    with pytest.raises(UserError, match="--extra scaling"):
        fit_columns(columns(), ("loss", "images"), "y", bootstrap=0, posterior=True)
    assert fit_columns(columns(), ("loss", "images"), "y", bootstrap=0).posterior is None
