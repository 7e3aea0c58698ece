"""Train or sample: the cheapest deployment against brute force, and the seed paper's points."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw, allocate
from stepsight.scaling.compute_allocation.serving import SamplingLaw, cheapest_ranges, serve

LAW = TrainingLaw(E=0.05, A=40.0, alpha=0.33, B=60.0, beta=0.29)
KAPLAN = TrainingLaw(E=0.05, A=2e5, alpha=0.33, B=1e6, beta=0.29, form="kaplan")
SAMPLING = SamplingLaw(A=0.04, a=1.5, B=0.05, b=0.9)
TARGET = 0.3


def total(law: TrainingLaw, queries: float, setting, params, samples, factor: float = 6.0):
    return factor * params * (samples + queries * setting[0] * setting[1] / 3)


def brute_force(law: TrainingLaw, queries: float, most=(6, 6)) -> tuple[float, tuple[int, int]]:
    """Every setting, a fine grid of sizes, and the fewest samples that reach the target."""
    p, s, q, t, g = law.powers
    params = np.geomspace(1e3, 1e14, 60001)
    found = []
    for steps in range(1, most[0] + 1):
        for members in range(1, most[1] + 1):
            left = TARGET - law.E - float(SAMPLING.excess(steps, members))
            rest = max(left, 0) ** (1 / g) - p * params**-s
            ok = rest > 0
            if ok.any():
                samples = (q / rest[ok]) ** (1 / t)
                costs = total(law, queries, (steps, members), params[ok], samples)
                found.append((float(costs.min()), (steps, members)))
    return min(found)


@pytest.mark.parametrize("law", [LAW, KAPLAN])
@pytest.mark.parametrize("queries", [0.0, 1e6, 1e9, 1e12])
def test_against_brute_force(law: TrainingLaw, queries: float):
    best = serve(law, SAMPLING, TARGET, queries, most=(6, 6)).best
    cost, setting = brute_force(law, queries)
    assert best.total == pytest.approx(cost, rel=1e-6) and best.total <= cost * (1 + 1e-9)
    assert (best.steps, best.members) == setting
    assert best.total == pytest.approx(
        total(law, queries, setting, best.params, best.samples), rel=1e-9
    )
    reached = float(law.loss(best.params, best.samples) + SAMPLING.excess(*setting))
    assert reached == pytest.approx(TARGET, rel=1e-9)


def test_without_queries_the_model_is_compute_optimal():
    best = serve(LAW, SAMPLING, TARGET, 0.0, least=(4, 4), most=(4, 4)).best
    optimal = allocate(LAW, best.training)
    assert best.params == pytest.approx(optimal.params, rel=1e-6)
    assert best.samples == pytest.approx(optimal.samples, rel=1e-6)
    assert best.serving == 0


def test_queries_make_models_smaller_and_sampling_shorter():
    answers = [serve(LAW, SAMPLING, TARGET, q).best for q in (1e3, 1e6, 1e9, 1e12, 1e15)]
    calls = [one.steps * one.members for one in answers]
    assert calls == sorted(calls, reverse=True) and calls[0] > calls[-1]
    ratios = [one.samples / one.params for one in answers]
    assert ratios == sorted(ratios)


CHEAP = SamplingLaw(A=0.01, a=1.5, B=0.012, b=0.9)  # little to gain: training wins in the end


def test_break_even_parts_sampling_from_training():
    """Below it the least sampling costs more than the best, above it the same; found once."""
    at = serve(LAW, CHEAP, TARGET, 1e6).break_even
    assert at is not None and 1 < at < 1e20
    for share, cheapest in ((0.2, False), (0.99, False), (1.01, True), (1e4, True)):
        answer = serve(LAW, CHEAP, TARGET, share * at)
        assert answer.least is not None
        assert ((answer.best.steps, answer.best.members) == (1, 1)) == cheapest
        assert (answer.least.total == answer.best.total) == cheapest
        assert answer.break_even == pytest.approx(at)


def test_two_settings_cost_the_same_once_at_most():
    """The argument of the docstring, over random laws: more sampling grows faster with queries."""
    rng = np.random.default_rng(0)
    queries = np.geomspace(1e-3, 1e25, 29)
    for _ in range(12):
        alpha, beta = rng.uniform(0.1, 0.9, 2)
        law = TrainingLaw(0.05, rng.uniform(1, 1e3), alpha, rng.uniform(1, 1e3), beta)
        few, many = (
            [serve(law, CHEAP, TARGET, q, least=at, most=at).best.total for q in queries]
            for at in ((1, 1), (3, 2))
        )
        signs = np.sign(np.array(few) - np.array(many))
        assert signs[0] > 0 and np.count_nonzero(np.diff(signs)) <= 1


def test_sampling_that_training_cannot_replace():
    answer = serve(LAW, SamplingLaw(A=0.5, a=2.0, B=0.0, b=1.0), TARGET, 1e9)
    assert answer.least is None and answer.break_even is None
    assert any("no training reaches" in warning for warning in answer.warnings)
    assert answer.best.members == 1 and answer.best.steps > 1


def test_the_end_of_the_range_is_said():
    limited = serve(LAW, SAMPLING, TARGET, 0.0, most=(3, 2))
    assert (limited.best.steps, limited.best.members) == (3, 2)
    assert [warning.split()[0] for warning in limited.warnings] == ["steps", "members"]
    assert serve(LAW, SAMPLING, TARGET, 1e12).warnings == ()


def test_a_call_may_cost_what_it_costs():
    """Queries twice as dear are twice as many queries."""
    dear = serve(LAW, SAMPLING, TARGET, 1e9, query_factor=4.0).best
    many = serve(LAW, SAMPLING, TARGET, 2e9).best
    assert dear == pytest.approx(many)


def test_what_cannot_be_served():
    with pytest.raises(UserError, match="An error of 0.04 is out of reach"):
        serve(LAW, SAMPLING, 0.04, 1.0)
    with pytest.raises(UserError, match="The target must be a positive number"):
        serve(LAW, SAMPLING, -1.0, 1.0)
    with pytest.raises(UserError, match="Queries lie between"):
        serve(LAW, SAMPLING, TARGET, -1.0)
    with pytest.raises(UserError, match="no less than the least"):
        serve(LAW, SAMPLING, TARGET, 1.0, least=(4, 1), most=(2, 8))
    with pytest.raises(UserError, match="a, b is missing or is"):
        SamplingLaw.of({"A": 0.1, "a": -1.0, "B": 0.1})


@pytest.mark.parametrize("seed", range(5))
def test_measured_ranges_against_all_configurations(seed: int):
    rng = np.random.default_rng(seed)
    once, each = rng.integers(1, 30, (2, 40)).astype(float)
    error = rng.random(40)
    ranges = cheapest_ranges(once, each, error, 0.5)
    assert ranges[0].start == 0 and math.isinf(ranges[-1].end)
    assert [one.end for one in ranges[:-1]] == [one.start for one in ranges[1:]]
    able = error <= 0.5
    for one in ranges:
        for queries in (one.start, (one.start + min(one.end, 1e3)) / 2, min(one.end, 1e6)):
            own = once[one.place] + queries * each[one.place]
            assert own == pytest.approx((once + queries * each)[able].min())


def test_one_configuration_or_none():
    assert cheapest_ranges([5.0], [1.0], [0.1], 0.1) == [(0, 0.0, math.inf)]
    assert cheapest_ranges([1.0, 1.0], [2.0, 1.0], [0.1, 0.1], 1) == [(1, 0.0, math.inf)]
    with pytest.raises(UserError, match="No configuration reaches an error of 0.01; .* 0.1"):
        cheapest_ranges([5.0, math.nan], [1.0, 1.0], [0.1, 0.2], 0.01)


def test_train_or_sample_on_the_seed_papers_points(published):
    """AbsRel .32 (arXiv:2411.08034, MACs as plotted, fine-tuning without pretraining): a2 sampled
    50 x 15, or a4 sampled 5 x 5. At .2 sampling saves nothing, only a6 gets there."""
    trained = {row["model"]: float(row["macs_as_plotted"]) for row in published(_TRAINING)}
    rows = [
        (row["model"], float(row["macs_as_plotted"]), float(row["absrel"]))
        for name in ("seed_test_time_steps.csv", "seed_test_time_ensemble.csv")
        for row in published(name)
    ]
    once = [trained[model] for model, *_ in rows]
    each, error = ([row[i] for row in rows] for i in (1, 2))
    few, many = cheapest_ranges(once, each, error, 0.32)
    assert [rows[one.place] for one in (few, many)] == [
        ("a2", 1.939e13, 0.3172),
        ("a4", 3.876e12, 0.2399),
    ]
    assert few.end == pytest.approx((1.331e17 - 2.242e16) / (1.939e13 - 3.876e12))
    assert few.end == pytest.approx(7130, rel=0.01)
    assert {rows[one.place][0] for one in cheapest_ranges(once, each, error, 0.2)} == {"a6"}


_TRAINING = "seed_finetune_depth_points.csv"


def test_what_a_call_of_the_seed_papers_models_costs(published):
    """Two FLOPs a token for two thirds of the parameters: a third of a DiT, which turns the noise
    level into scales and shifts, acts once a sample. So --query-factor is 4/3 x 256 tokens."""
    for row in published("seed_model_ladder_derived.csv"):
        if row["plotted_macs_per_forward_G"]:
            params = 1e6 * float(row["params_millions_formula"])
            plotted = 1e9 * float(row["plotted_macs_per_forward_G"])
            assert plotted / params == pytest.approx(4 / 3 * 256, rel=0.02)
