"""The Pareto frontier against its definition."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.sampling.frontier import frontier, frontier_table, frontiers, pareto
from stepsight.scaling.sampling.paired import MetricTable
from stepsight.scaling.sampling.sweeps import Family


def by_definition(cost: np.ndarray, error: np.ndarray) -> list[bool]:
    points = list(zip(cost, error))
    return [
        not any((c <= cost_i and e <= error_i) and (c, e) != (cost_i, error_i) for c, e in points)
        for cost_i, error_i in points
    ]


@pytest.mark.parametrize("seed", range(20))
def test_against_all_pairs_with_many_ties(seed: int):
    rng = np.random.default_rng(seed)
    cost, error = rng.integers(0, 6, (2, 25)).astype(float)
    assert pareto(cost, error).tolist() == by_definition(cost, error)


def test_without_ties():
    cost, error = np.random.default_rng(0).random((2, 200))
    assert pareto(cost, error).tolist() == by_definition(cost, error)


def test_points_that_are_not_finite_are_off():
    mask = pareto([1.0, 2.0, np.nan, 3.0], [0.5, np.nan, 0.1, 0.4])
    assert mask.tolist() == [True, False, False, True]
    assert pareto([], []).tolist() == []


def test_table_is_in_order_of_cost(record):
    settings = [(8, 4, 0.20), (1, 1, 0.25), (8, 1, 0.26), (4, 1, 0.22)]
    records = [
        record(nfe=nfe, members=members, inference_flops=1e9 * nfe * members, value=value)
        for nfe, members, value in settings
    ]
    table = frontier_table(records)
    assert [(p.record.nfe, p.record.members) for p in table] == [(1, 1), (4, 1), (8, 4)]
    assert [p.gain for p in table[1:]] == pytest.approx([1 - 0.22 / 0.25, 1 - 0.20 / 0.22])
    assert np.isnan(table[0].gain)


def test_higher_is_better(record):
    better = dict(metric="delta1", lower_is_better=False)
    records = [record(inference_flops=c, value=v, **better) for c, v in ((1, 0.6), (2, 0.5))]
    records.append(record(inference_flops=4.0, value=0.75, **better))
    table = frontier_table(records)
    assert [p.value for p in table] == [0.6, 0.75]
    assert table[1].gain == pytest.approx(0.25)


def test_protocols_do_not_mix(record):
    with pytest.raises(UserError, match="one metric under one protocol"):
        frontier_table([record(), record(protocol="other")])


def test_cells_of_all_families_compete(sweep):
    cells = [
        *sweep(lambda t, n: 0.3 - 0.01 * t * n, nfe=(1, 2), members=(1, 2), checkpoint="small"),
        *sweep(lambda t, n: 0.25 if t * n == 2 else 0.9, nfe=(1, 2), members=(1, 2), size="64x64"),
    ]
    found = frontier(cells, "depth")
    assert [(p.cell.checkpoint, p.cell.size, p.cell.setting) for p in found] == [
        ("small", "", (1, 1)),
        ("", "64x64", (1, 2)),  # and not (2, 1), which costs and errs the same
    ]
    assert [p.cost for p in found] == [1, 2]
    assert found[1].gain == pytest.approx(1 - 0.25 / 0.29) and np.isnan(found[0].gain)


def test_cells_where_higher_is_better(sweep):
    cells = sweep(lambda t, n: 0.5 + 0.05 * t, nfe=(1, 2, 4), members=(1,), metric="delta1")
    found = frontier(cells, "depth", cost="gflop")
    assert [p.cell.nfe for p in found] == [1, 2, 4]
    assert [p.cost for p in found] == [0.5, 1.0, 2.0]
    assert found[1].gain == pytest.approx(0.05 / 0.55)


def test_frontier_json_has_an_object_a_task(sweep):
    cells = [
        *sweep(lambda t, n: 0.3 / t, nfe=(1, 2), members=(1,)),
        *sweep(lambda t, n: 0.5, nfe=(1,), members=(1,), metric="rmse"),
        *sweep(lambda t, n: np.nan, nfe=(1,), members=(1,), task="flow", metric="epe"),
    ]
    found = json.loads(json.dumps(frontiers(cells), allow_nan=False))
    assert found.keys() == {"depth"} and found["depth"]["metric"] == "abs_rel"
    assert [(p["nfe"], p["cost"], p["gain"]) for p in found["depth"]["points"]] == [
        (1, 1, None),
        (2, 2, 0.5),
    ]


def test_costs_that_were_not_measured_or_not_known(sweep):
    unpriced = {"ms_per_image": np.nan, "latency_ms": np.nan}
    cells = sweep(lambda t, n: 0.3, **unpriced)
    for cost, column in (("ms", "ms_per_image"), ("latency", "latency_ms")):
        with pytest.raises(UserError, match=f"no {column} of depth"):
            frontier(cells, "depth", cost=cost)
    with pytest.raises(UserError, match="Did you mean 'calls'"):
        frontier(cells, "depth", cost="call")


def tables(cells, noise: float = 0.0, images: int = 40) -> list[MetricTable]:
    """The images behind cells of one metric, whose means are those of the cells."""
    rng = np.random.default_rng(0)
    hard = rng.gamma(2.0, 1.0, images)
    hard /= hard.mean()
    found: dict[Family, dict[tuple[int, int], np.ndarray]] = {}
    for cell in cells:
        half = noise * rng.standard_normal(images // 2)
        values = cell.value * hard + np.concatenate([half, -half])
        rows = np.stack([values, np.ones(images)], axis=1)
        found.setdefault(cell.family, {})[cell.setting] = rows
    keys = [str(i) for i in range(images)]
    own = {"task": cells[0].task, "metric": cells[0].metric, "keys": keys}
    return [MetricTable(**own, family=family, settings=rows) for family, rows in found.items()]


def test_gains_have_intervals_where_the_images_are_at_hand(sweep):
    """Of two steps on the frontier one is sure and one is luck; they cross families."""
    cells = [
        *sweep(lambda t, n: {1: 0.3, 2: 0.2499}[t], nfe=(1, 2), members=(1,)),
        *sweep(lambda t, n: 0.25, nfe=(1,), members=(1,), temperature=0.0),
    ]
    found = frontier(cells, "depth", tables=tables(cells, noise=0.02))
    assert [(p.cell.temperature, p.cell.nfe) for p in found] == [(0.0, 1), (1.0, 2)]
    lucky = found[1]
    assert lucky.gain_lo < lucky.gain < lucky.gain_hi and lucky.gain_lo < 0 < lucky.gain_hi
    other = frontier(cells[:2], "depth", tables=tables(cells[:2], noise=0.02))[1]
    assert 0 < other.gain_lo < other.gain < other.gain_hi < 0.3
    assert other.sure and other.paired and not lucky.sure and np.isnan(found[0].gain_lo)


def test_gains_of_a_table_alone_have_unpaired_intervals(sweep):
    """From the cells' own ends, here 5 % of their values."""
    cells = sweep(lambda t, n: {1: 0.3, 2: 0.2, 4: 0.197}[t], nfe=(1, 2, 4), members=(1,))
    _, sure, lucky = frontier(cells, "depth")
    assert (sure.sure, sure.paired, lucky.sure) == (True, False, False)
    half = np.hypot(0.05 * 0.3, 0.05 * 0.2) / 0.3
    assert (sure.gain_lo, sure.gain_hi) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    with_images = frontier(cells, "depth", tables=tables(cells, noise=0.0))[2]
    assert with_images.sure and with_images.paired, "hard images are hard for both"


def test_few_images_make_no_gain_sure(sweep):
    """Those of four agree perfectly, and decide nothing."""
    cells = sweep(lambda t, n: 0.3 / t, nfe=(1, 2), members=(1,))
    few, enough = (frontier(cells, "depth", tables=tables(cells, images=n))[1] for n in (4, 8))
    assert np.isnan([few.gain_lo, few.gain_hi]).all() and not few.sure and few.gain == 0.5
    assert enough.sure and enough.paired


def test_the_interval_of_a_gain_points_up_where_higher_is_better(sweep):
    cells = sweep(lambda t, n: 0.5 + 0.05 * t, nfe=(1, 2), members=(1,), metric="delta1")
    point = frontier(cells, "depth", tables=tables(cells, noise=0.01))[1]
    assert 0 < point.gain_lo < point.gain < point.gain_hi


def test_the_json_says_what_was_left_out(sweep):
    cells = sweep(lambda t, n: np.nan if t == 4 else 0.3 / t, nfe=(1, 2, 4), members=(1,))
    (found,) = frontiers(cells, tables=tables(cells[:2], noise=0.01)).values()
    assert found["left_out"] == ["4 NFE x 1 members (value is no number)"]
    assert all(list(p)[-4:] == ["gain", "gain_lo", "gain_hi", "paired"] for p in found["points"])
    assert found["points"][0]["gain_lo"] is None and 0.4 < found["points"][1]["gain_lo"] < 0.5
