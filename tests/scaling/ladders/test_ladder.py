"""Ladders: what a file multiplies out to, learning rates, and files that are no ladders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stepsight.errors import UserError
from stepsight.scaling.ladders import ladder as ladders
from stepsight.scaling.ladders import tuning
from stepsight.scaling.ladders.file import read_ladder
from stepsight.training.config import TrainingSettings

CONFIGS = Path(__file__).parents[3] / "configs"
GRID = [
    {"model.name": ["DiT-32x2/8", "DiT-64x3/8"], "training.images": [4096, 8192]},
    {"model.name": "DiT-96x4/8", "training.images": 8192},
]
TUNE = {"by": "model.name", "factors": [0.5, 1, 2], "images": 1024}
TOLD = {
    "out": "runs/here",
    "config": {"tasks": {"depth": {}}, "training": {"lr": 1e-3, "batch": 8}},
    "stages": {"train": {"grid": GRID}},
}


@pytest.fixture
def read(tmp_path):
    def of(**changed: Any) -> ladders.Ladder:
        file = tmp_path / "ladder.yaml"
        file.write_text(yaml.safe_dump(TOLD | changed, sort_keys=False))
        return read_ladder(file)

    return of


def test_the_grid_is_multiplied_out_block_by_block(read):
    (stage,) = read().stages
    rungs = ladders.rungs(stage)
    assert [rung.name for rung in rungs] == [
        "train/DiT-32x2-8_images-4096",
        "train/DiT-32x2-8_images-8192",
        "train/DiT-64x3-8_images-4096",
        "train/DiT-64x3-8_images-8192",
        "train/DiT-96x4-8_images-8192",
    ]
    last = rungs[-1].config
    assert last["model"] == {"name": "DiT-96x4/8"} and last["tasks"] == {"depth": {}}
    quiet = {"first_validation": 0, "validate_every": 0}  # the end alone is judged
    assert last["training"] == {"lr": 1e-3, "batch": 8, "images": 8192} | quiet
    assert ladders.images_of(last) == 8192


def test_a_stage_starts_from_every_rung_of_the_one_before(read):
    tune = {"config": {"training": {"batch": 16}}, "grid": [{"data.scenes.count": [16, 64]}]}
    first, second = read(stages={"pre": {"grid": GRID[1:]}, "fine": tune}).stages
    parents = ladders.rungs(first)
    rungs = ladders.rungs(second, parents)
    assert [(rung.name, rung.parent) for rung in rungs] == [
        ("fine/DiT-96x4-8_images-8192+count-16", "pre/DiT-96x4-8_images-8192"),
        ("fine/DiT-96x4-8_images-8192+count-64", "pre/DiT-96x4-8_images-8192"),
    ]
    assert rungs[0].config["model"] == {"name": "DiT-96x4/8"}  # that of what it starts from
    assert rungs[0].config["training"]["batch"] == 16
    assert rungs[0].config["data"] == {"scenes": {"count": 16}}


def test_tuned_factors_multiply_the_learning_rates(read):
    ladder = read(
        stages={"train": {"grid": GRID, "tune": TUNE}},
        held_out=[{"model.name": "DiT-160x5/8", "training.images": 16384}],
    )
    (stage,) = ladder.stages
    short = tuning.tuning_rungs(stage)
    assert len(short) == 3 * 3 and len({one.name for one in short}) == 9
    assert all(one.config["training"]["images"] == 1024 for one in short)
    assert not any(one.config["training"]["evaluate"] for one in short)
    losses = {one.name: 0.3 - 0.01 * one.factor for one in short if "DiT-32x2" in one.name}
    losses |= {one.name: 0.3 + 0.01 * one.factor for one in short if "DiT-64x3" in one.name}
    factors = tuning.best_factors(stage, losses)  # runs of the third size failed
    assert tuning.untuned(stage, factors) == ["DiT-96x4/8"]
    assert factors == {"DiT-32x2/8": 2.0, "DiT-64x3/8": 0.5}
    ends = [tuning.at_an_end(stage, factor) for factor in (0.5, 1.0, 2.0)]
    assert ends == ["at an end of the factors tried: widen them", "", ends[0]]
    rungs = ladders.rungs(stage, None, factors)
    usual = TrainingSettings()
    assert rungs[0].config["training"]["lr"] == pytest.approx(2e-3)
    assert rungs[0].config["training"]["muon_lr"] == pytest.approx(2 * usual.muon_lr)
    assert rungs[2].config["training"]["lr"] == pytest.approx(0.5e-3)
    assert "muon_lr" not in rungs[-1].config["training"]
    (held,) = tuning.held_out(ladder, None, factors)
    assert held.name == "held-out/DiT-160x5-8_images-16384" and held.factor == 0.5


def test_a_first_stage_may_start_from_runs_that_are_there(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fine = {"from": ["runs/other/*"], "grid": [{"data.scenes.count": [16, 64]}]}
    (stage,) = read(stages={"fine": fine}).stages
    with pytest.raises(UserError, match="stages.fine.from: there is no run runs/other/"):
        ladders.rungs(stage)
    for name in ("a", "b"):
        run = tmp_path / "runs" / "other" / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("model: {name: DiT-64x4/8, gate_init: 0.5}")
    (tmp_path / "runs/other/logs").mkdir()  # no run
    rungs = ladders.rungs(stage)
    assert [rung.name for rung in rungs] == [
        "fine/a+count-16",
        "fine/a+count-64",
        "fine/b+count-16",
        "fine/b+count-64",
    ]
    assert rungs[0].parent == str(tmp_path / "runs/other/a")
    assert rungs[0].config["model"] == {"name": "DiT-64x4/8", "gate_init": 0.5}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"outt": "x"}, "'outt' is unknown.*'out'"),
        ({"out": ""}, "lacks 'out'"),
        ({"stages": {}}, "lacks 'stages'"),
        ({"stages": {"train": {"grdi": []}}}, "stages.train: 'grdi' is unknown.*'grid'"),
        ({"stages": {"train": {"grid": {"a": 1}}}}, "grid: give a list of blocks"),
        ({"stages": {"train": {"grid": [*GRID, GRID[1]]}}}, "DiT-96x4-8_images-8192 comes twice"),
        ({"stages": {"train": {"grid": GRID, "tune": {"by": "x"}}}}, "tune: lacks factors, images"),
        (
            {"stages": {"t": {"grid": GRID, "tune": {"by": "x", "factors": [1], "images": 9}}}},
            "x is not varied by every block",
        ),
        ({"stages": {"t": {"from": "runs/a"}}}, "from: give a list of run folders"),
        ({"stages": {"t": {}, "u": {"from": ["runs/a"]}}}, "only the first stage starts 'from'"),
        ({"config": [1]}, "config: expected a table"),
        (
            {"stages": {"t": {"grid": GRID, "tune": TUNE | {"factors": [1, "2"]}}}},
            "tune.factors: .*give a list",
        ),
        (
            {"stages": {"t": {"grid": GRID, "tune": TUNE | {"factors": [1, 1]}}}},
            "tune.factors: .*give a list",
        ),
        (
            {"stages": {"t": {"grid": GRID, "tune": TUNE | {"images": "many"}}}},
            "tune.images: many: give a number",
        ),
        (
            {"stages": {"t": {"grid": GRID}, "u": {"grid": GRID, "tune": TUNE}}},
            "'tune' is for stages that train from scratch",
        ),
        (
            {"stages": {"t": {"grid": GRID, "tune": TUNE | {"by": ["model.name"]}}}},
            "tune.by: .*give one name",
        ),
        ({"stages": {"t": {"grid": [{1: 2}]}}}, "grid: 1 is no text"),
        ({"stages": {"t": {"config": {1: 2}}}}, "stages.t.config: 1 is no text"),
        ({"config": {"training": [1]}}, "config.training: expected a table, found list"),
        (
            {"config": {"model": "DiT"}, "stages": {"t": {"tune": TUNE | {"at": "DiT"}}}},
            "config.model: expected a table, found str",
        ),
        ({"at_once": 0}, "at_once 0: give a positive number"),
        ({"slurm": [1]}, "slurm: expected a table"),
    ],
)
def test_what_no_ladder_has_is_refused(read, changed, message):
    with pytest.raises(UserError, match=message):
        read(**changed)


def test_what_would_score_an_earlier_checkpoint_or_train_at_no_rate_is_refused(read):
    early = {"config": {"training": {"validate_every": 800}}, "grid": GRID}
    with pytest.raises(UserError, match="training.validate_every 800: a rung is validated at its"):
        ladders.rungs(read(stages={"train": early}).stages[0])
    text = {"config": {"training": {"lr": "1e-3"}}, "grid": GRID, "tune": TUNE}  # as YAML reads it
    rung = tuning.tuning_rungs(read(stages={"train": text}).stages[0])[0]
    assert rung.config["training"]["lr"] == pytest.approx(0.5e-3)
    text["config"] = {"training": {"lr": "fast"}}
    with pytest.raises(UserError, match="training.lr fast: give a number"):
        tuning.tuning_rungs(read(stages={"train": text}).stages[0])


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"images": "1e4"}, "'training.images': Value '1e4' of type 'str'"),
        ({"images": "4k"}, "'training.images': Value '4k' of type 'str'"),
        ({"batch": 0}, "training.batch=0: must be at least 1"),
        ({"decay_share": "1/5"}, "'training.decay_share': Value '1/5' of type 'str'"),
    ],
)
def test_lengths_that_no_run_has_are_refused(read, training, message):
    stage = {"config": {"training": training}, "grid": [{"model.name": "DiT-32x2/8"}]}
    with pytest.raises(UserError, match=message) as refused:
        ladders.rungs(read(stages={"train": stage}).stages[0])
    assert "train/DiT-32x2-8" in str(refused.value)


def test_a_number_in_quotes_is_one(read):
    stage = {"config": {"training": {"batch": "8"}}, "grid": GRID}
    (first, *_) = ladders.rungs(read(stages={"train": stage}).stages[0])
    assert ladders.images_of(first.config) == 4096


def test_without_survivors_a_stage_has_no_rungs(read):
    fine = {"grid": [{"data.scenes.count": [16, 64]}]}
    first, second = read(stages={"pre": {"grid": GRID[1:]}, "fine": fine}).stages
    assert ladders.rungs(second, []) == []  # and not from scratch
    twins = ladders.rungs(first)
    with pytest.raises(UserError, match="two rungs would be called fine/DiT-96x4-8"):
        ladders.rungs(second, twins * 2)


def test_a_file_that_is_not_there_or_not_yaml(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_ladder(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("out: [")
    with pytest.raises(UserError, match="not YAML"):
        read_ladder(tmp_path / "bad.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("ladder-*.yaml")), ids=lambda path: path.stem)
def test_every_ladder_of_the_project_is_one(path, tmp_path, monkeypatch):
    from stepsight.config import from_dict

    monkeypatch.chdir(tmp_path)
    ladder = read_ladder(path)
    for run in (tmp_path / start for stage in ladder.stages for start in stage.start):
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("model: {name: DiT-64x4/8}")
    parents: list[ladders.Rung] = []
    for stage in ladder.stages:
        parents = ladders.rungs(stage, parents or None)
        for rung in parents:
            from_dict(rung.config, rung.name)
    assert len({rung.name for rung in parents}) == len(parents) > 10
