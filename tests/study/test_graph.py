"""What a study's file says: stages, what they need, the miniature, and what is refused."""

from __future__ import annotations

from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepsight.errors import UserError
from stepsight.study.graph import KINDS, Start, read_study
from tests.study.conftest import STUDY

PAPER = "configs/paper/study.yaml"
SMALL = Fraction(1, 100)


def test_a_block_is_a_stage_for_each_value_and_needs_what_it_names(study_file):
    study = read_study("study.yaml")
    names = [stage.name for stage in study.stages]
    assert names == ["cache", "pre-32x1", "pre-64x1", "depth", "mixed", "sweep", "laws"]
    large = study.stage("pre-64x1")
    assert large.settings == {"model.name": "DiT-64x1/2", "training.latents": "runs/study/cache"}
    assert large.needs == ("cache",) and large.labels["size"] == "64x1"
    assert study.stage("pre-32x1").settings["training.seed"] == 1
    assert study.stage("depth").starts == (Start("pre-32x1", share=0.5),)
    assert study.stage("laws").needs == ("pre-32x1", "pre-64x1")


def test_the_miniature_is_laid_over_the_study(study_file):
    study = read_study("study.yaml", SMALL)
    assert study.out == Path("runs/study-1-100") and study.lengths == 1
    assert study.stages[0].name == "vae"
    small = study.stage("pre-64x1")
    assert small.files == ("pre.yaml", "small.yaml") and set(small.needs) == {"cache", "vae"}
    assert small.settings["codec.path"] == "runs/study-1-100/vae/vae"
    assert study.stage("mixed").options == {"experts": 4, "top-k": 1}
    assert study.stage("depth") == read_study("study.yaml", out="runs/study-1-100").stage("depth")


@pytest.mark.parametrize(
    ("scale", "stages", "lengths"),
    [("1/2", 7, "1/2"), ("1/10", 8, "10"), ("1/200", 8, "1/2")],
)
def test_a_scale_is_of_the_study_or_near_the_miniature_of_that(study_file, scale, stages, lengths):
    study, lengths = read_study("study.yaml", Fraction(scale)), Fraction(lengths)
    assert len(study.stages) == stages and study.lengths == lengths


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("out",), "", "lacks 'out'"),
        (("stages", "depth", "kind"), "fit", "no such kind. Choose from"),
        (("stages", "depth", "form"), "pre", "'form' is unknown. Did you mean 'from'"),
        (("stages", "depth", "from"), "pre-32x2", "no stage pre-32x2. Did you mean 'pre-32x1'"),
        (("stages", "depth", "from"), ["pre-*"], "starts from one stage"),
        (("stages", "depth", "from"), "pre-32x1@2", "above 0, at most 1"),
        (("stages", "mixed", "from"), [], "starts from one stage"),
        (("stages", "depth", "set"), {"model.name": "{sise}"}, "'{sise}' is no stage"),
        (("stages", "pre", "each"), {"size": "32x1"}, "give a list of values"),
        (("stages", "depth", "set"), ["a"], "depth.set: expected a table, found list"),
        (("stages", "depth", "options"), 3, "depth.options: expected a table, found int"),
        (("stages", "sweep", "set"), {"seed": 1}, "kind sweep has no 'set'"),
        (("stages", "sweep", "config"), "pre.yaml", "kind sweep has no 'config'"),
        (("stages", "cache", "from"), "laws", "kind latents has no 'from'"),
        (("stages", "laws", "from"), "mixed@0.5", "mixed is no training"),
        (("stages", "laws", "needs"), "./mixed", "needs: there is no stage ./mixed"),
        (("stages", "pre", "each"), {"size": ["{size}"]}, "no folder of a stage can be named"),
        (("out",), "{out}/x", "is filled without end"),
        (("stages", "pre", "each"), {"size": ["a/b"]}, "no folder of a stage can be named"),
        (("stages", "pre", "each"), {"size": ["a", "a"]}, "two stages are named pre-a"),
        (("stages", "logs"), {"kind": "latents"}, "no folder of a stage can be named 'logs'"),
        (("stages", "cache", "needs"), "laws", "needs"),
        (("miniature", "scale"), 7, "above 0, at most 1"),
        (("at_once",), 0, "give a positive number"),
        (("stages",), ["train"], "expected a table, found list"),
    ],
)
def test_what_no_study_has_is_refused(study_file, path, value, message):
    told: dict[str, Any] = deepcopy(STUDY)
    node = told
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    study_file.write_text(yaml.safe_dump(told))
    with pytest.raises(UserError, match="study.yaml.*" + message.replace("{", r"\{")):
        read_study("study.yaml", SMALL if path[0] == "miniature" else Fraction(1))


def test_stages_that_need_each_other_are_named(study_file):
    told = deepcopy(STUDY)
    told["stages"]["cache"]["needs"] = "laws"
    study_file.write_text(yaml.safe_dump(told))
    with pytest.raises(UserError, match="cache needs laws needs pre-.* needs cache"):
        read_study("study.yaml")


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(1, 1000)])
def test_the_shipped_study_has_every_kind_and_every_figure(scale):
    study = read_study(PAPER, scale)
    assert {stage.kind for stage in study.stages} == {*KINDS}
    compared = {one for stage in study.stages for one in stage.labels.get("of", [])}
    wanted = {"pretraining", "model size", "pretraining amount", "noise schedule", "experts"}
    assert wanted | {"generalist", "task", "test time", "laws"} <= compared
    sizes = {stage.labels["size"] for stage in study.stages if stage.name.startswith("pretrain-")}
    assert len(sizes) >= 3
