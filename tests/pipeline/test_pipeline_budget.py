"""A budget in place of dials, and members added only while they disagree."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepsight.errors import UserError
from stepsight.pipeline import budget as budget_module
from stepsight.pipeline.budget import SWEEP
from stepsight.pipeline.config import Profile
from stepsight.pipeline.dense import DensePipeline
from stepsight.scaling.sampling.sweeps import Cell, read_sweep, write_sweep

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def cells(penalty: float = 0.0, **more: Any) -> list[Cell]:
    """A sweep in which both dials pay, from NFE 1 x 1 member to 8 x 8."""
    fixed = {"task": "depth", "sampler": "ddim", "spacing": "trailing", "schedule": "trained"}
    fixed |= {"peak_gb": 1.0, "metric": "abs_rel", "checkpoint": "run"} | more
    found = []
    for nfe in (1, 2, 4, 8):
        for members in (1, 2, 4, 8):
            calls, error = nfe * members, 0.1 + 0.2 / nfe + 0.3 / members + penalty
            cost = {"total_calls": calls, "gflop_per_image": 3.0 * calls, "ms_per_image": 4 * calls}
            cost["latency_ms"] = 5 * calls
            spread = {"value": error, "lo": error - 0.01, "hi": error + 0.01}
            found.append(Cell(nfe=nfe, members=members, **cost, **spread, **fixed))
    return found


@pytest.fixture
def swept(pipeline, tmp_path) -> DensePipeline:
    """A pipeline whose run folder holds a sweep."""
    other = copy(pipeline)
    other.home = tmp_path / "run"
    (other.home / "sweep").mkdir(parents=True)
    write_sweep(other.home / SWEEP, cells())
    return other


def spent(pipeline: DensePipeline, **options: Any) -> tuple[int, Any]:
    """Model calls of all members, and the prediction."""
    rows: list[int] = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    found = pipeline(IMAGE, "depth", **options)
    hook.remove()
    return sum(rows), found


@pytest.mark.parametrize("budget", ["16nfe", "48gflop", "80ms"])
def test_a_budget_is_spent_as_the_sweep_says(budget, swept):
    """All three are 16 calls here."""
    plan = swept.plan("depth", budget)
    assert plan.total_calls <= 16 and plan.members > 1 and plan.nfe > 1
    calls, found = spent(swept, budget=budget)
    assert calls == plan.total_calls
    expected = swept(IMAGE, "depth", nfe=plan.nfe, members=plan.members)
    assert torch.equal(found.values, expected.values)


def test_a_plan_is_made_once_for_all_images_until_the_sweep_changes(swept, monkeypatch):
    read: list[Path] = []
    monkeypatch.setattr(
        budget_module, "read_sweep", lambda path: read.append(path) or read_sweep(path)
    )
    plans = [swept.plan("depth", "16nfe") for _ in range(3)]
    assert read == [swept.home / SWEEP] and plans[0] is plans[2]
    write_sweep(swept.home / SWEEP, cells(sampler="euler"))
    assert swept.plan("depth", "16nfe").sampler == "euler" and len(read) == 2


def test_another_sweep_may_be_named(swept, pipeline, tmp_path):
    write_sweep(tmp_path / "other.csv", [cell for cell in cells() if cell.members == 1])
    calls, found = spent(pipeline, budget="8nfe", sweep=tmp_path / "other.csv")
    assert calls == 8 and found.uncertainty is None  # one member
    assert swept.plan("depth", "8nfe").members > 1


def test_the_plan_sets_all_that_the_sweep_varied(swept, pipeline):
    way = {"sampler": "euler", "spacing": "karras", "schedule": "cosine", "merge": "mean"}
    write_sweep(swept.home / SWEEP, [*cells(), *cells(penalty=-0.05, size="16x24", **way)])
    plan = swept.plan("depth", "4nfe")
    own = swept.planned("depth", plan)
    used = own.diffusion.settings
    assert (used.sampler, used.spacing, used.sampling_schedule) == ("euler", "karras", "cosine")
    assert own.tasks["depth"].merge_by == "mean" and own.tasks["flow"] == swept.tasks["flow"]
    assert own.sizes["depth"] == (16, 24) and own.sizes["flow"] == swept.sizes["flow"]
    assert swept.sizes == pipeline.sizes and swept.tasks == pipeline.tasks
    spread = {"nfe": plan.nfe, "members": plan.members}
    expected = swept.sampling(**way | {"merge": {"depth": "mean"}})
    expected.sizes = own.sizes
    found = swept(IMAGE, "depth", budget="4nfe")
    assert torch.equal(found.values, expected(IMAGE, "depth", **spread).values)


def test_a_plan_sizes_the_work_of_a_published_model_by_its_profile(swept):
    swept.profile = Profile("published", fit="longest", resolution=32, pad=8)
    write_sweep(swept.home / SWEEP, cells(size="16x24", protocol=swept.profile.mark("p@1")))
    own = swept.planned("depth", swept.plan("depth", "4nfe"))
    assert own.working_size("depth", (48, 72)) == (16, 24) and own.sizes == swept.sizes


def test_a_plan_is_made_of_what_was_measured_under_the_same_profile(swept):
    swept.published = Profile("published", fit="longest", resolution=32, pad=8)
    published = swept.profiled("published")
    mark = published.profile.mark("p@1")
    with pytest.raises(UserError, match=f"{published.profile.id}.*--profile published"):
        published.plan("depth", "8nfe")
    write_sweep(swept.home / SWEEP, [*cells(), *cells(-0.05, protocol=mark, sampler="euler")])
    assert published.plan("depth", "8nfe").sampler == "euler"
    assert swept.plan("depth", "8nfe").sampler == "ddim"
    write_sweep(swept.home / SWEEP, cells(protocol=mark))
    with pytest.raises(UserError, match="under the profile stepsight.*--profile stepsight"):
        swept.plan("depth", "8nfe")


def test_a_plan_walks_by_the_conventions_in_use(swept):
    levels = {"schedule": "scaled_linear", "sampling_shift": 1.0, "convention": "DDIMScheduler"}
    swept.config = replace(swept.config, diffusion=replace(swept.config.diffusion, **levels))
    for which, convention in (("published", "DDIMScheduler"), ("stepsight", "stepsight")):
        run = swept.profiled(which)
        planned = run.planned("depth", run.plan("depth", "8nfe"))
        assert planned.diffusion.settings.convention == convention


def test_a_plan_speaks_of_the_run_and_not_of_a_copy_that_samples_otherwise(swept):
    otherwise = swept.sampling(spacing="karras", eta=0.5)
    plan = otherwise.plan("depth", "8nfe")
    assert otherwise.planned("depth", plan).diffusion.settings == swept.diffusion.settings


def test_early_sweeps_name_the_trained_schedule(swept):
    write_sweep(swept.home / SWEEP, cells(checkpoint="", schedule="rectified_flow"))
    own = swept.planned("depth", swept.plan("depth", "8nfe"))
    assert own.diffusion.settings == swept.diffusion.settings
    write_sweep(swept.home / SWEEP, cells(schedule="rectified_flow"))
    own = swept.planned("depth", swept.plan("depth", "8nfe"))
    assert own.diffusion.settings.sampling_schedule == "rectified_flow"


def test_of_several_checkpoints_a_model_goes_by_its_own_weights(swept, tmp_path):
    """Also where they are steps of one run, whose folder says nothing of which."""
    own = cells(weights=swept.name, sampler="euler")
    write_sweep(swept.home / SWEEP, [*cells(penalty=-0.09, weights="better"), *own])
    assert swept.plan("depth", "8nfe").sampler == "euler"
    write_sweep(swept.home / SWEEP, cells(weights="better", checkpoint="runs/better"))
    with pytest.raises(UserError, match="of runs/better, whose weights are not those"):
        swept.plan("depth", "8nfe")


def test_a_budget_that_buys_nothing_is_refused(swept):
    with pytest.raises(UserError, match="budget of 0.5nfe buys nothing: the cheapest"):
        swept(IMAGE, "depth", budget="0.5nfe")


def test_without_a_sweep_it_is_said_how_to_make_one(swept):
    (swept.home / SWEEP).unlink()
    with pytest.raises(UserError, match=r"sweep\.csv does not exist.*evaluate\.py --checkpoint"):
        swept(IMAGE, "depth", budget="8nfe")
    swept.home = None
    with pytest.raises(UserError, match="not opened from a run folder.* --sweep FILE"):
        swept(IMAGE, "depth", budget="8nfe")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "8nfe", "nfe": 2}, "leave out nfe, or the budget"),
        ({"budget": "8nfe", "members": 2, "sampler": "euler"}, "leave out members, sampler"),
        ({"sweep": "sweep.csv"}, "only read to plan a budget"),
        ({"budget": "8"}, "budget '8': write a positive number and a unit"),
        ({"budget": "8nfe", "sweep": "gone.csv"}, "gone.csv does not exist"),
        ({"tolerance": -1.0}, "tolerance of -1"),
        ({"tolerance": math.nan}, "tolerance of nan"),
    ],
)
def test_contradictions_are_refused(options, message, swept):
    with pytest.raises(UserError, match=message):
        swept(IMAGE, "depth", **options)


def test_a_task_that_was_not_swept_is_refused(swept):
    with pytest.raises(UserError, match="holds no task 'flow'"):
        swept(IMAGE, "flow", second=IMAGE, budget="8nfe")


# ---------------------------------------------------------------------------- tolerance


def test_an_image_is_done_once_its_members_agree(pipeline):
    for tolerance, members in ((math.inf, 2), (0.0, 6)):
        calls, found = spent(pipeline, nfe=2, members=6, tolerance=tolerance)
        fixed = pipeline(IMAGE, "depth", nfe=2, members=members)
        assert calls == 2 * members and found.picture is not None
        torch.testing.assert_close(found.values, fixed.values, atol=1e-4, rtol=1e-4)


def test_a_tolerance_bounds_what_a_budget_may_spend(swept):
    plan = swept.plan("depth", "16nfe")
    assert spent(swept, budget="16nfe", tolerance=math.inf)[0] == 2 * plan.nfe
    assert spent(swept, budget="16nfe", tolerance=0.0)[0] == plan.total_calls


def test_the_most_members_are_those_of_the_sweep(pipeline):
    """Not the usual number, which may be one: whoever gives a tolerance wants several."""
    few = copy(pipeline)
    few.config = replace(few.config, evaluation=replace(few.config.evaluation, nfe=1, members=3))
    assert spent(few, tolerance=0.0)[0] == max(few.config.evaluation.sweep_members)
    assert spent(few, tolerance=0.0, members=4)[0] == 4
    assert spent(few)[0] == 3
