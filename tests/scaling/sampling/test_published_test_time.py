"""The seed paper's points of test-time compute (arXiv 2411.08034) through the same analysis."""

from __future__ import annotations

import pytest

from stepsight.scaling.sampling.axes import axis_verdicts
from stepsight.scaling.sampling.frontier import ascending

MODELS = ("a2", "a4", "a6")
STEPS = ("seed_test_time_steps.csv", "denoising_steps", "ensemble_size_inferred")
MEMBERS = ("seed_test_time_ensemble.csv", "denoising_steps_inferred", "ensemble_size")


def curve(rows, model, steps, members, error="absrel"):
    own = [row for row in rows if row["model"] == model]
    return {(int(row[steps]), int(row[members])): float(row[error]) for row in own}


@pytest.mark.parametrize("model", MODELS)
def test_steps_saturate(published, model):
    table, *columns = STEPS
    (steps,) = axis_verdicts(curve(published(table), model, *columns))
    assert (steps.dial, steps.at, steps.points) == ("steps", 5, 8)
    assert steps.verdict == "saturated" and steps.gain > 0.5


@pytest.mark.parametrize("model", MODELS)
def test_members_keep_paying(published, model):
    table, *columns = MEMBERS
    (members,) = axis_verdicts(curve(published(table), model, *columns))
    assert (members.dial, members.at, members.points) == ("members", 50, 6)
    assert members.verdict in ("law", "improves but no law")
    assert 0.19 < members.gain < 0.21 and members.exponent == pytest.approx(0.083, abs=0.005)


def test_the_frontier_grows_the_model_first(published):
    points = []
    for table, steps, members in (STEPS, MEMBERS):
        for row in published(table):
            dial = (int(row[steps]), int(row[members]))
            points.append((float(row["macs_as_plotted"]), float(row["absrel"]), row["model"], dial))
    order = ascending([p[0] for p in points], [p[1] for p in points])
    worth = [(points[i][2], points[i][3]) for i in order]
    assert worth[:4] == [("a2", (1, 5)), ("a2", (2, 5)), ("a2", (5, 5)), ("a2", (10, 5))]
    models = [model for model, _ in worth]
    assert models == sorted(models)  # never back to a smaller one
    assert [dial for model, dial in worth if model == "a6"] == [
        (5, 5),
        (10, 5),
        (50, 5),
        (50, 10),
        (50, 15),
    ]
