"""Laws of a report over distinct samples, resolution and experts, from records."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ladders import IMAGES, SIZES, TRUTH, law, record

from stepsight.scaling.analysis.axes import axis_laws
from stepsight.scaling.analysis.curves import curves
from stepsight.scaling.ladders.forecast import by_quantity

R = 15.0
SAMPLES = (3_000, 30_000, 300_000)


def effective(images: int, samples: int) -> float:
    unique = min(samples, images)
    return unique * (1 + R * (1 - np.exp(-(images / unique - 1) / R)))


def repeated(sizes=SIZES):
    return [
        record(n, d, law(n, effective(d, s)), None, samples=s, run=f"{n}-{d}-{s}")
        for n, d, s in product(sizes, IMAGES, SAMPLES)
    ]


def resolutions(amounts=IMAGES):
    return [
        record(n, d, law(n, d) + 20 / side**1.6, None, size=f"{side}x{side}", run=f"{n}-{d}-{side}")
        for n, d, side in product(SIZES, amounts, (32, 64, 128, 256, 512))
    ]


def experts():
    """Of three idle parameters in four, each is worth .3 of an active one, in logs."""
    return [
        record(
            *(n, d, law(n * m**0.3, d), None),
            params_total=m * n,
            model=f"DiT-{n}" + f"-{m}E1A" * (m > 1),
            run=f"{n}-{d}-{m}",
        )
        for n, d, m in product(SIZES, IMAGES, (1, 4))
    ]


@pytest.mark.parametrize(
    "records, form, against, wanted",
    [
        (repeated(), "constrained", "parameters, images and distinct samples", {"R": R}),
        (repeated(SIZES[1:2]), "repeated", "images and distinct samples, at 1M param", {"R": R}),
        (resolutions(), "resolution", "parameters, images and pixels", {"gamma": 0.8, "C": 20.0}),
        (resolutions(IMAGES[:1]), "power_floor", "pixels, at 100k parameters and 3k", {"a": 0.8}),
        (experts(), "experts", "parameters, parameters in all and images", {"c": 0.3}),
    ],
)
def test_what_a_ladder_varies_has_its_law(records, form, against, wanted):
    (found,) = axis_laws(records, bootstrap=0)
    assert found.fit.form == form and found.against.startswith(against)
    known = {name: TRUTH[name] for name in ("alpha", "beta") if name in found.fit.params}
    got = {name: found.fit.params[name] for name in wanted | known}
    assert got == pytest.approx(wanted | known, rel=5e-3)


def test_an_ordinary_ladder_has_none():
    records = [record(n, d, law(n, d), None, samples=10**6) for n, d in product(SIZES, IMAGES)]
    assert list(axis_laws(records, bootstrap=0)) == []


def test_experts_and_dense_models_share_no_curve_in_active_parameters():
    found, _ = curves(experts())
    assert [curve.name for curve in found] == ["depth loss, dense", "depth loss, 4E1A"]
    pooled = by_quantity(experts(), ["params_active", "params_total"])
    assert [len(rows) for rows in pooled.values()] == [18]


def test_branches_go_by_their_trunk():
    records = [record(n, d, law(n, d), None) for n, d in product(SIZES, IMAGES)]
    trunks = {one.run: f"trunk-{one.params_active}" for one in records}
    ((curve,), _) = curves(records, trunks)
    assert len(set(curve.runs)) == 3 and len(curve.points) == 9
