"""Rows are looked at before a law is fitted: repeats, runs, mixed curves, units, scores."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.scaling.rows.curve import CurveRows, called
from stepsight.scaling.rows.grouping import by_hint, grouped, mixed, run_column
from stepsight.scaling.rows.preparation import prepared
from stepsight.scaling.rows.scores import better, turned
from stepsight.scaling.rows.units import unit_notes

X = np.geomspace(1e12, 1e16, 12)
Y = 4 * X**-0.1 * np.exp(0.02 * np.random.default_rng(0).standard_normal(12))


def rows(x=X, y=Y, target="error", texts=None, runs=None, **inputs) -> CurveRows:
    columns = {"flops": np.asarray(x, dtype=float)} if x is not None else {}
    columns |= {name: np.asarray(column, dtype=float) for name, column in inputs.items()}
    names = tuple(f"line {number}" for number in range(2, len(y) + 2))
    return CurveRows(columns, np.asarray(y, dtype=float), target, names, runs, texts or {})


def only(notes) -> str:
    (note,) = notes
    return note


def test_clean_rows_are_left_alone():
    assert prepared(rows()).notes == () and prepared(rows()).y is not None
    np.testing.assert_array_equal(prepared(rows()).y, Y)


def test_rows_in_words():
    assert called(["line 3"]) == "line 3"
    assert called(["line 3", "line 9", "line 4"]) == "lines 3, 9 and 4"
    assert called(["run a at 64 images", "run b at 64 images"]).count(" and ") == 1
    assert called([f"line {k}" for k in range(9)]) == "lines 0, 1, 2, 3, 4, 5 and 3 more"


# ------------------------------------------------------------------------------------- repeats


def test_seeds_of_one_rounded_result_are_two_rows():
    seeds = {"seed": tuple("0" * 12 + "1" * 12)}
    assert len(prepared(rows(np.tile(X, 2), np.tile(Y, 2), texts=seeds)).y) == 24


def test_identical_rows_count_once():
    one = prepared(rows(np.tile(X, 3), np.tile(Y, 3)))
    np.testing.assert_array_equal(one.y, Y)
    assert one.names == rows().names
    told = "lines 2, 14 and 26 are the same measurement, counted once, and so for 11 others"
    assert told in only(one.notes) and "12 of 36 rows are left" in only(one.notes)


def test_equal_results_of_different_runs_are_two_measurements():
    labels = tuple(f"run {k}" for k in range(24))
    both = prepared(rows(np.tile(X, 2), np.tile(Y, 2), runs=labels))
    assert len(both.y) == 24 and "24 rows stand where others do" in only(both.notes)


def test_replicates_are_kept_and_said():
    y = np.concatenate([Y, 1.01 * Y[3:5]])
    kept = prepared(rows(np.concatenate([X, X[3:5]]), y))
    assert len(kept.y) == 14
    told = "4 rows stand where others do (such as lines 5 and 14): all are kept, as replicates"
    assert told in only(kept.notes)


# ------------------------------------------------------------------------------------- grouping

RUNS = np.concatenate([10.0 ** (12 + k) * 2.0 ** np.arange(6) for k in range(4)])
MODELS = tuple(f"m{k // 6}" for k in range(24))


def test_a_column_called_run_is_found_and_said():
    assert run_column({"model": MODELS, "Run ID": MODELS}) == "Run ID"
    assert run_column({"model": MODELS}) is None
    found = grouped(rows(RUNS, RUNS**-0.1), {"run": MODELS})
    assert found.runs == MODELS and "grouped by run, 4 runs of 6 rows" in only(found.notes)
    single = grouped(rows(RUNS, RUNS**-0.1), {"run": tuple(map(str, range(24)))})
    assert single.notes == () and len(set(single.runs or ())) == 24
    two = grouped(rows(RUNS, RUNS**-0.1), {"run": tuple("ab"[k // 12] for k in range(24))})
    assert "fewer than 3" in only(two.notes)


def test_checkpoints_are_known_by_the_columns_they_share():
    texts = {"model": MODELS, "time": tuple(map(str, range(24)))}
    found = by_hint(rows(RUNS, RUNS**-0.1, texts=texts))
    told = only(found.notes)
    assert "4 groups of 6 rows that share model" in told and "--groups model)" in told
    assert found.runs == MODELS
    marked = texts | {"marker": tuple("ab"[k % 5 == 0] for k in range(24))}
    assert by_hint(rows(RUNS, RUNS**-0.1, texts=marked)).runs == MODELS
    seeds = tuple(str(k // 3 % 2) for k in range(24))
    both = by_hint(rows(RUNS, RUNS**-0.1, texts={"model": MODELS, "seed": seeds}))
    assert "8 groups of 3 rows" in only(both.notes) and len(set(both.runs or ())) == 8


def test_with_two_inputs_a_run_has_one_size():
    n, d = np.repeat([1e6, 1e7, 1e8, 1e9], 6), np.tile(10.0 ** np.arange(6, 12), 4)
    grid = rows(None, n**-0.1 + d**-0.1, texts={"model": MODELS}, params=n, tokens=d)
    assert "share model" in only(by_hint(grid).notes)
    recipes = tuple("ab"[k % 2] for k in range(24))
    mixture = rows(None, grid.y, texts={"recipe": recipes}, params=n, tokens=d)
    assert by_hint(mixture) is mixture
    bare = rows(None, grid.y, params=n, tokens=d)
    assert by_hint(bare) is bare


def test_sizes_that_grow_within_a_group_are_no_checkpoints():
    widths = tuple(str(32 * 2 ** (k % 6)) for k in range(24))
    found = by_hint(rows(RUNS, RUNS**-0.1, texts={"optimizer": MODELS, "width": widths}))
    assert found.runs is None


def test_an_input_that_starts_again_is_suspected():
    told = only(by_hint(rows(RUNS, RUNS**-0.1)).notes)
    assert "flops starts again at lines 2, 8, 14 and 20" in told and "--groups none" in told
    assert by_hint(rows(RUNS[::-1], RUNS[::-1] ** -0.1)).notes == ()
    for known in ({"runs": MODELS}, {"texts": {"model": MODELS}}):
        assert prepared(rows(RUNS, RUNS**-0.1, **known), independent=True).notes == ()
    assert prepared(rows(RUNS, RUNS**-0.1, runs=MODELS)).runs == MODELS


def test_rows_of_several_curves_are_said():
    texts = {"metric": tuple(["abs_rel", "delta1"] * 6), "model": ("a",) * 12}
    told = only(mixed(rows(texts=texts)))
    assert "metric holds 2 values (abs_rel, delta1)" in told
    assert "--where 'metric=abs_rel'" in told


# ---------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("places", [[2, 7], [5], [0, 11]])
@pytest.mark.parametrize("factor, decades", [(1e3, 0.7), (1e6, 3), (1e9, 4)])
def test_another_unit_is_seen(factor, decades, places):
    """Of a factor larger than the design is wide; other slips are outliers."""
    x = np.geomspace(1e12, 10 ** (12 + decades), 12)
    y = 4 * x**-0.1 * Y / (4 * X**-0.1)
    x[places] /= factor
    told = only(unit_notes(rows(x, y)))
    lines = called([f"line {place + 2}" for place in places])
    assert f"flops of {lines} is {factor:g} times below" in told
    above = only(unit_notes(rows(x * np.where(np.isin(np.arange(12), places), factor**2, 1), y)))
    assert f"flops of {lines} is {factor:g} times above" in above


def test_a_wide_design_is_in_one_unit():
    x = np.concatenate([np.geomspace(1e6, 1e7, 6), np.geomspace(1e9, 1e10, 6)])
    noise = np.exp(0.02 * np.random.default_rng(1).standard_normal(12))
    assert unit_notes(rows(x, 4 * x**-0.1 * noise)) == []
    assert unit_notes(rows(x, 0.3 + 40 * x**-0.3 * noise)) == []


# --------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize(
    "name, way",
    [
        ("delta1", "higher"),
        ("Delta 1", "higher"),
        ("hellaswag_acc", "higher"),
        ("mIoU", "higher"),
        ("abs_rel", "lower"),
        ("AbsRel", "lower"),
        ("delta1_error", "lower"),
        ("val_loss", "lower"),
        ("y", "unknown"),
    ],
)
def test_names_say_which_way_is_better(name, way):
    assert better(name) == way


def test_scores_are_turned_and_said():
    share = turned(rows(y=1 - Y, target="accuracy"))
    np.testing.assert_allclose(share.y, Y)
    assert share.target == "1 - accuracy" and "fitted as 1 - accuracy" in only(share.notes)
    percent = turned(rows(y=100 * (1 - Y), target="delta1"))
    np.testing.assert_allclose(percent.y, 100 * Y)
    assert percent.target == "100 - delta1" and "in percent" in only(percent.notes)
    unnamed = turned(rows(y=1 - Y, target="score"))
    assert unnamed.target == "1 - score" and "rises with scale" in only(unnamed.notes)


def test_a_share_among_percents_is_named():
    y = 100 * (1 - Y)
    y[4] = 1 - Y[4]
    assert "line 6: are these shares?" in only(turned(rows(y=y, target="accuracy")).notes)


def test_what_is_no_score_is_left_alone():
    for target, y in [("error", Y), ("abs_rel", Y[::-1]), ("loss", 1 - Y), ("y", Y)]:
        left = turned(rows(y=y, target=target))
        assert left.target == target and left.notes == ()
        np.testing.assert_array_equal(left.y, y)


def test_what_cannot_be_turned_is_said():
    psnr = turned(rows(y=20 - 5 * np.log10(Y), target="psnr"))
    assert psnr.target == "psnr" and "1 - value for a share" in only(psnr.notes)
    fallen = turned(rows(y=Y, target="accuracy"))
    assert fallen.target == "accuracy" and "yet falls as scale grows" in only(fallen.notes)
