"""Trunks and branches, one rate for all sizes, stages that upcycle: what a file becomes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from stepsight.errors import UserError
from stepsight.scaling.ladders import ladder as ladders
from stepsight.scaling.ladders import launch, tuning
from stepsight.scaling.ladders.file import read_ladder
from stepsight.scaling.ladders.jobs import JobOutcome

SIZES = ["DiT-32x2/8", "DiT-64x3/8"]
GRID = [{"model.name": SIZES, "training.images": [256, 512, 1024], "training.seed": [0, 1]}]
TRAINING = {"batch": 8, "decay": "wsd", "decay_share": 0.25}
TUNE = {"at": SIZES[0], "factors": [1, 2], "images": 64}
HELD_OUT = [{"model.name": "DiT-160x5/8", "training.images": 4096}]


@pytest.fixture
def read(tmp_path):
    def of(model: dict[str, Any] | None = None, **stages: Any) -> ladders.Ladder:
        config = {"tasks": {"depth": {}}, "training": TRAINING, "model": model or {}}
        told = {"out": str(tmp_path / "out"), "config": config, "held_out": HELD_OUT}
        file = tmp_path / "ladder.yaml"
        file.write_text(yaml.safe_dump(told | {"stages": stages}, sort_keys=False))
        return read_ladder(file)

    return of


def test_rungs_that_differ_in_images_alone_branch_off_the_longest(read):
    ladder = read(train={"grid": GRID})
    rungs = ladders.rungs(ladder.stages[0])
    trunks = [rung for rung in rungs if not rung.trunk]
    assert [rung.name for rung in trunks] == [
        f"train/{size.replace('/', '-')}_images-1024_seed-{seed}"
        for size in SIZES
        for seed in (0, 1)
    ]
    assert all(rung.config["training"]["keep_at"] == [192, 384] for rung in trunks)
    branch = rungs[0]
    assert branch.trunk == "train/DiT-32x2-8_images-1024_seed-0"
    assert "keep_at" not in branch.config["training"]
    assert [ladders.own_images(rung) for rung in (branch, trunks[0])] == [64, 1024]
    (job,) = launch.prepare(ladder, [branch])
    assert job.needs == (branch.trunk,)
    assert job.command[-2:] == ("--branch-from", str(ladder.out / branch.trunk))
    launch.write_status(ladder, branch, JobOutcome(branch.name, "done"))
    assert launch.read_status(ladder.out)[branch.name]["trunk"] == branch.trunk


def test_other_decays_and_runs_alone_have_no_branches(read, monkeypatch):
    alone = ladders.rungs(read(train={"grid": [{"model.name": SIZES}]}).stages[0])
    monkeypatch.setitem(TRAINING, "decay", "cosine")
    cosine = ladders.rungs(read(train={"grid": GRID}).stages[0])
    assert not any(rung.trunk or "keep_at" in rung.config["training"] for rung in alone + cosine)


def test_stages_branch_a_parent_each(read):
    fine = {"grid": [{"training.images": [128, 64]}]}
    first, second = read(pre={"grid": [{"model.name": SIZES}]}, fine=fine).stages
    rungs = ladders.rungs(second, ladders.rungs(first))
    assert [(rung.parent, rung.trunk) for rung in rungs] == [
        ("pre/DiT-32x2-8", ""),
        ("pre/DiT-32x2-8", "fine/DiT-32x2-8+images-128"),
        ("pre/DiT-64x3-8", ""),
        ("pre/DiT-64x3-8", "fine/DiT-64x3-8+images-128"),
    ]


def test_under_mup_one_size_tunes_all(read):
    ladder = read({"parametrisation": "mup"}, train={"grid": GRID, "tune": TUNE})
    (stage,) = ladder.stages
    short = tuning.tuning_rungs(stage)
    assert [rung.name for rung in short] == [f"tune-train/DiT-32x2-8-x{n}" for n in (1, 2)]
    factors = tuning.best_factors(stage, {short[0].name: 0.3, short[1].name: 0.2})
    assert factors == dict.fromkeys(SIZES, 2.0)
    (target,) = tuning.held_out(ladder, None, factors)
    assert target.factor == 2 == ladders.rungs(stage, None, factors)[-1].factor
    assert tuning.untuned(stage, tuning.best_factors(stage, {})) == SIZES


def test_a_stage_upcycles_what_it_starts_from(read):
    fine = {"upcycle": {"experts": 4, "active": 2}, "grid": [{"training.images": 64}]}
    ladder = read(pre={"grid": [{"model.name": SIZES[0]}]}, fine=fine)
    first, second = ladder.stages
    parents = ladders.rungs(first)
    assert ladders.upcycled(first, None) is None
    (mixed,) = ladders.upcycled(second, parents) or [parents[0]]
    (rung,) = ladders.rungs(second, [mixed])
    assert mixed.name == "upcycle-fine/DiT-32x2-8" and mixed.parent == "pre/DiT-32x2-8"
    assert rung.config["model"]["name"] == "DiT-32x2/8-4E2A" and rung.parent == mixed.name
    (job,) = launch.prepare(ladder, [mixed])
    told = job.command[job.command.index("convert") :]
    assert told == (
        *("convert", "upcycle", "--out", str(ladder.out / mixed.name)),
        *("--checkpoint", str(ladder.out / mixed.parent), "--experts", "4", "--top-k", "2"),
    )
    assert not job.done
    (job.folder / "checkpoints").mkdir(parents=True)
    assert job.done


@pytest.mark.parametrize(
    ("model", "stage", "message"),
    [
        ({}, {"tune": TUNE}, "tune.at: .* model.parametrisation mup alone"),
        ({"parametrisation": "mup"}, {"tune": TUNE | {"at": "DiT-8x1/8"}}, "has no model.name"),
        ({}, {"upcycle": {"experts": 2, "active": 1}}, "first stage upcycles nothing"),
        ({}, {"upcycle": {"experts": 2, "active": 3}}, "how many of them are active"),
    ],
)
def test_what_cannot_be_is_refused(read, model, stage, message):
    with pytest.raises(UserError, match=message):
        read(model, train={"grid": GRID} | stage)
