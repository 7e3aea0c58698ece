"""Laws over distinct samples, experts and resolution: known truths come back, with their limits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stepsight.scaling.laws.fits import fit
from stepsight.scaling.laws.forms import FORMS

SIZES, IMAGES = (1e5, 1e6, 1e7), (3e3, 3e4, 3e5, 3e6)
TRUTHS = {
    "repeated": {"E": 0.05, "B": 20.0, "beta": 0.45, "R": 15.4},
    "constrained": {"E": 0.05, "A": 60.0, "alpha": 0.5, "B": 20.0, "beta": 0.45, "R": 15.4},
    "experts": {"E": 0.05, "A": 60.0, "alpha": 0.5, "B": 20.0, "beta": 0.45, "c": 0.3},
    "resolution": dict(E=0.05, A=60.0, alpha=0.5, B=20.0, beta=0.45, C=3.0, gamma=0.6),
}
PLACES = {
    "repeated": list(product(IMAGES, (3e3, 3e4, 3e5))),
    "constrained": list(product(SIZES, IMAGES, (3e3, 3e4, 3e5))),
    "experts": [(n, m * n, d) for n, m, d in product(SIZES, (1, 2, 5), IMAGES)],
    "resolution": list(product(SIZES, IMAGES, (1024.0, 4096.0, 16384.0))),
}


def effective(images: np.ndarray, samples: np.ndarray, worth: float) -> np.ndarray:
    """Equation 5 of arXiv:2305.16264."""
    unique = np.minimum(samples, images)
    return unique + unique * worth * (1 - np.exp(-(images / unique - 1) / worth))


def known(name: str, x: np.ndarray) -> np.ndarray:
    """The laws as their papers print them."""
    t = TRUTHS[name]
    if name == "repeated":
        return t["E"] + t["B"] * effective(x[:, 0], x[:, 1], t["R"]) ** -t["beta"]
    sizes, data = x[:, 0], x[:, 1]
    if name == "constrained":
        data = effective(x[:, 1], x[:, 2], t["R"])
    elif name == "experts":
        sizes, data = x[:, 0] ** (1 - t["c"]) * x[:, 1] ** t["c"], x[:, 2]
    more = t["C"] * x[:, 2] ** -t["gamma"] if name == "resolution" else 0.0
    return t["E"] + t["A"] * sizes ** -t["alpha"] + t["B"] * data ** -t["beta"] + more


@pytest.mark.parametrize("name", TRUTHS)
def test_a_known_truth_comes_back(name):
    x = np.array(PLACES[name])
    found = fit(name, x, known(name, x), bootstrap=0)
    assert found.params == pytest.approx(TRUTHS[name], rel=1e-3)
    assert found.predict(x) == pytest.approx(known(name, x), rel=1e-6)


@pytest.mark.parametrize("name", TRUTHS)
def test_with_noise_it_is_a_law_whose_interval_holds_what_comes_next(name):
    x, rng = np.array(PLACES[name]), np.random.default_rng(1)
    y = known(name, x) * np.exp(0.01 * rng.standard_normal(len(x)))
    found, next_one = fit(name, x, y, bootstrap=20), 2 * x.max(axis=0)
    expected = found.forecast(next_one)
    assert found.r2 > 0.99 and expected.lo < known(name, next_one[None])[0] < expected.hi


def test_images_that_are_all_new_follow_the_law_of_images():
    """Of samples that outnumber the images nothing was repeated, however many there are."""
    images = np.array(IMAGES)
    fresh, more = (np.log(np.stack([images, times * images], axis=1)) for times in (1.0, 50.0))
    logs = np.array([[0.05, np.log(20.0), 0.45, np.log(15.4)]])
    form = FORMS["repeated"]
    assert form.evaluate(logs, fresh) == pytest.approx(form.evaluate(logs, more))
    assert np.exp(form.evaluate(logs, fresh))[0] == pytest.approx(0.05 + 20 * images**-0.45)
