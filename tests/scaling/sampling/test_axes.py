"""Verdicts on the dials, on synthetic twins of what was published and measured."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from stepsight.scaling.fitting.quality import Verdict
from stepsight.scaling.sampling.axes import (
    axis_verdicts,
    by_family,
    deviations_of,
    errors_of,
    joint_verdict,
    surfaces,
)
from stepsight.scaling.sampling.surface import fit_surface

NFE, MEMBERS = (1, 2, 4, 8, 16, 32), (1, 2, 4, 8)


def judged(points) -> dict[str, str]:
    return {f"{dial.dial} at {dial.at}": dial.verdict for dial in axis_verdicts(points)}


def grid(value):
    return {(t, n): value(t, n) for t in NFE for n in MEMBERS}


def test_a_law_in_both():
    points = grid(lambda t, n: 0.01 + 0.3 * t**-0.4 + 0.2 * n**-0.5)
    assert judged(points)["steps at 8"] == "law"
    assert joint_verdict(points, fit_surface(points)) == "law"


def test_steps_that_saturate_early():
    """The published steps of the seed: from 1 to 5 most of the error goes, then nothing."""
    curve = dict(zip((1, 2, 5, 10, 20, 50, 100, 200), (0.72, 0.54, 0.21, 0.2, 0.2, 0.2, 0.2, 0.2)))
    assert judged({(t, 5): value for t, value in curve.items()}) == {"steps at 5": "saturated"}


def test_steps_alone_hurt_and_with_members_help():
    points = grid(lambda t, n: 0.12 + 0.1 * t**-0.6 + (0.01 + 0.25 * (1 - t**-0.6)) / n)
    verdicts = judged(points)
    assert verdicts["steps at 1"] == "not monotone" and verdicts["steps at 8"] != "not monotone"
    gains = {f"{dial.dial} at {dial.at}": dial.gain for dial in axis_verdicts(points)}
    assert gains["steps at 1"] < 0 < gains["steps at 8"]
    assert gains["members at 1"] < gains["members at 32"]


@pytest.mark.parametrize(
    "value, verdict",
    [
        (lambda t, n: 0.2 + 0.1 * t**0.5 + 0.1 / n, "not monotone"),
        (lambda t, n: 0.2 + 0.5 * (t == 1) + 0.3 * (n == 1), "saturated"),
        (lambda t, n: 0.2 + 0.5 * (t == 1) + 0.3 / n, "improves but no law"),  # a at its bound
    ],
)
def test_joint_verdicts(value, verdict):
    points = grid(value)
    assert joint_verdict(points, fit_surface(points, bootstrap=20)) == verdict


def test_too_few_points():
    points = {(1, 1): 0.3, (2, 1): 0.2, (1, 2): 0.25, (2, 2): 0.15}
    assert set(judged(points).values()) == {"too few points"}
    assert joint_verdict(points, fit_surface(points)) == "too few points"
    assert axis_verdicts({(1, 1): 0.3}) == [] and axis_verdicts({}) == []


def test_cells_become_points(cell):
    cells = [cell(1, 1, metric="iou", value=0.75, lo=0.7, hi=0.8), cell(2, metric="iou", value=1.0)]
    assert errors_of(cells) == {(1, 1): 0.25}  # an error of 0 has no logarithm
    assert deviations_of(cells)[1, 1] == pytest.approx(0.1 / 3.919928)
    assert list(by_family([cell(), cell(sampler="euler"), cell(8)]).values()) == [
        [cell(), cell(8)],
        [cell(sampler="euler")],
    ]


def test_fit_json_has_an_object_a_family(sweep):
    cells = [
        *sweep(lambda t, n: 0.1 + 0.2 / t + 0.1 / n),
        *sweep(lambda t, n: 0.1 + 0.3 / t, nfe=(1, 2), members=(1,), sampler="euler"),
        *sweep(lambda t, n: 0.5, metric="delta1"),
    ]
    found = surfaces(cells, bootstrap=5)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["depth"]["metric"] == "abs_rel"
    ddim, euler = found["depth"]["families"]
    assert (ddim["sampler"], ddim["points"]) == ("ddim", 20)
    assert ddim["surface"]["params"]["a"] == pytest.approx(1.0, rel=0.01)
    assert (euler["sampler"], euler["surface"], euler["verdict"]) == (
        "euler",
        None,
        "too few points",
    )
    assert {dial["verdict"] for dial in ddim["dials"]} <= set(get_args(Verdict))
