"""What a run chooses for its tasks and fits of their uncertainty, and that its checkpoint keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.pipeline.dense import DensePipeline
from stepsight.training.dense import tuning
from stepsight.training.dense.tuning import ENOUGH, best_setting, candidates, tuned
from stepsight.types import Sample


def evaluating(config: Any, **changes: Any) -> Any:
    return replace(config, evaluation=replace(config.evaluation, **changes))


# ---------------------------------------------------------------------------- planted models

SHIFT = 4.0  # of the sampler's times


class Risen:
    """Pictures whose flow is upwards, by their brightness: a function of what a network sees."""

    def __init__(self, source: Any) -> None:
        self.source, self.name, self.quantities = source, source.name, source.quantities

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        bright = sample.image.float().mean(dim=0, keepdim=True) / 127.5 - 1
        sample.flow = torch.cat([torch.zeros_like(bright), 3 * bright])  # 3 pixels are 1 in target
        sample.flow_valid = torch.ones_like(bright, dtype=torch.bool)
        return sample

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        return [self[index] for index in indices]


class Planted(nn.Module):
    """A network that answers the flow of `Risen`, and errs as `kind` says."""

    stride = 1

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.weight = kind, nn.Parameter(torch.zeros(()))

    def encode(self, cond: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return (cond,)

    def forward(self, x: Tensor, encoded: Any, time: Tensor, label: Tensor, **_: Any) -> Tensor:
        bright = encoded[0][:, :3].mean(dim=1, keepdim=True)
        truth = torch.cat([torch.zeros_like(bright), bright], dim=1)
        upwards = torch.tensor([0.0, 1.0])[:, None, None]  # which a mirror does not turn round
        return truth + upwards * self.error(x, truth, time)

    def error(self, x: Tensor, truth: Tensor, time: Tensor) -> Tensor:
        t = (time / 1000)[:, None, None, None]
        if self.kind == "lopsided":
            return 0.2 * torch.linspace(-1, 1, x.shape[-1]).expand_as(x)
        left = (x - (1 - t) * truth).abs().mean(dim=(1, 2, 3), keepdim=True)
        if self.kind == "asks for noise":
            return 0.2 * (left < 0.3 * t).to(x)
        if self.kind == "slow":  # the first call is the worst of all
            return 0.2 * t.expand_as(x)
        return torch.full_like(x, 0.2)


def planted(lab, kind: str, **changes: Any) -> DensePipeline:
    settings = {"nfe": 4, "members": 1, "sweep_nfe": (1, 2, 4), "sweep_members": (1, 2)}
    settings |= {"views": "none", "sweep_views": ("none", "mirror")}
    config = evaluating(lab.config(("flow",)), **settings | changes)
    pipeline = lab.pipeline(config)
    pipeline.net = Planted(kind)
    return pipeline


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("lopsided", SamplingSetting(2, 1, 0.0, "mirror")),  # four calls are as good, and dearer
        ("asks for noise", SamplingSetting(1, 2, 1.0, "none")),
        ("slow", SamplingSetting(4, 1, 0.0, "none")),
        ("the same always", SamplingSetting(1, 1, 0.0, "none")),
    ],
)
def test_the_best_setting_of_a_planted_model_is_chosen(lab, kind, expected):
    pipeline = planted(lab, kind)
    found = best_setting(pipeline, "flow", Risen(lab.held), range(4))  # type: ignore[arg-type]
    assert SamplingSetting.of(pipeline.config.evaluation, found) == expected
    assert found["images"] == 4 and found["split"] == "tune"
    exact = {"lopsided": 0.0, "asks for noise": 0.0, "the same always": 0.2 * 3}
    if kind in exact:
        assert found["error"] == pytest.approx(exact[kind], abs=1e-5)


def made_up(errors: Mapping[SamplingSetting, float], usual: float) -> Any:
    """In place of what a way to sample errs at each number of calls."""

    def found(pipeline, task, source, picks, way, calls, bad) -> dict[int, float]:
        return {nfe: errors.get(replace(way, nfe=nfe), usual) for nfe in calls}

    return found


@pytest.mark.parametrize(("dearer", "taken"), [(0.5, False), (0.99, False), (1.5, True)])
def test_what_is_as_good_and_cheaper_is_taken(lab, monkeypatch, dearer, taken):
    """As good: within a fifth of a percent. `dearer` is what four calls gain, in that unit."""
    pipeline = planted(lab, "slow")

    best = {SamplingSetting(4, 1, 0.0, "mirror"): 1.0}
    monkeypatch.setattr(tuning, "_errors", made_up(best, 1 + dearer * ENOUGH))
    found = best_setting(pipeline, "flow", lab.held, range(2))
    assert (found["nfe"], found["views"]) == ((4, "mirror") if taken else (1, "none"))
    assert found["settings"] == len(
        set(candidates(pipeline)) | {SamplingSetting(4, 1, 0.0, "none")}
    )


def test_of_equal_cost_the_better_is_taken(lab, monkeypatch):
    pipeline = planted(lab, "slow")
    errors = {SamplingSetting(2, 1, 0.0, "none"): 1.0005, SamplingSetting(2, 1, 0.0, "mirror"): 1.0}
    errors[SamplingSetting(1, 2, 1.0, "none")] = 1.001
    monkeypatch.setattr(tuning, "_errors", made_up(errors, 2.0))
    found = best_setting(pipeline, "flow", lab.held, range(2))
    assert (found["nfe"], found["members"], found["views"]) == (2, 1, "mirror")


def test_settings_tried_together_err_as_each_does_alone(lab):
    pipeline = lab.pipeline(evaluating(lab.config(("flow",)), nfe=4, batch=4))
    for way in (SamplingSetting(0, 1, 0.0, "mirror"), SamplingSetting(0, 2, 1.0, "none")):
        together = tuning._errors(pipeline, "flow", lab.held, range(6), way, [4, 1, 2], None)
        for nfe, error in together.items():
            alone = tuning._errors(pipeline, "flow", lab.held, range(6), way, [nfe], None)
            assert alone == {nfe: error}


def test_candidates_spend_no_more_than_evaluation_and_what_the_sampler_can(lab):
    pipeline = planted(lab, "slow")
    every = list(candidates(pipeline))
    assert len(set(every)) == len(every) and {one.nfe for one in every} == {1, 2, 4}
    for one in every:
        assert one.nfe * one.members <= 4
        assert (one.temperature, one.views != "none") in {(0.0, False), (0.0, True), (1.0, False)}
        assert (one.members > 1) == (one.temperature > 0)
        assert one.views == "none" or one.nfe > 1  # one call sees one view
    midpoint = list(candidates(pipeline.sampling(sampler="midpoint")))
    assert {(one.nfe, one.views) for one in midpoint} == {(2, "none"), (4, "none")}


# ---------------------------------------------------------------------------- of a run


@pytest.fixture(scope="module")
def run(laboratory, tmp_path_factory):
    """A tiny run that was evaluated, to look at only."""
    config = laboratory().config(("depth", "flow", "amodal"), images=16, evaluate=True)
    folder = tmp_path_factory.mktemp("tuned") / "run"
    return laboratory().fit(evaluating(config, sweep=False), folder)


def test_the_checkpoint_says_what_was_chosen_and_fitted(run):
    saved = checkpoint.read(run)
    assert list(saved.meta["sampling"]) == ["depth", "flow", "amodal"]
    for found in saved.meta["sampling"].values():
        assert found.keys() == {
            "nfe", "members", "temperature", "views", "error", "settings", "images", "split",
        }  # fmt: skip
        assert found["nfe"] * found["members"] <= 4 and found["images"] == 3
    fitted = saved.meta["calibration"]
    assert list(fitted) == ["depth", "flow"]  # masks state probabilities, which need no scale
    for found in fitted.values():
        assert found["scale"] > 0 and found["temperature"] == 1 and found["members"] == 8


def test_the_model_answers_as_was_chosen_and_scales_what_was_fitted(run):
    meta, pipeline = checkpoint.read(run).meta, DensePipeline.from_pretrained(run)
    for task, found in meta["sampling"].items():
        usual = pipeline.default_setting(task)
        for name in ("nfe", "members", "temperature", "views"):
            assert getattr(usual, name) == found[name]
    assert pipeline.calibration == {
        task: found["scale"] for task, found in meta["calibration"].items()
    }


def test_the_evaluation_of_the_run_uses_it(run):
    meta = checkpoint.read(run).meta
    for row in json.loads((run / "eval" / "results.json").read_text()):
        found = meta["sampling"][row["task"]]
        told = (row["nfe"], row["members"], row["temperature"])
        assert told == (found["nfe"], found["members"], found["temperature"])


def test_who_wants_no_tuning_has_none(lab, tmp_path):
    config = evaluating(lab.config(("depth",), images=8, evaluate=True), sweep=False)
    run = lab.fit(evaluating(config, tuning_images=0), tmp_path / "run")
    assert not checkpoint.read(run).meta.keys() & {"sampling", "calibration"}
    pipeline = DensePipeline.from_pretrained(run)
    assert not pipeline.calibration and pipeline.default_setting("depth").nfe == 2


def test_pictures_are_neither_chosen_for_nor_are_answers_of_one_call(lab):
    """A generator goes from noise whatever one sample says; end to end there is one setting."""
    with lab.serving():
        config = lab.config(("image",), **lab.plain)
        found = tuned(lab.pipeline(config, statistics=False))
        assert found == {"sampling": {}, "calibration": {}}
        config = lab.config(("depth",))
        config = replace(config, diffusion=replace(config.diffusion, objective="end_to_end"))
        found = tuned(lab.pipeline(evaluating(config, nfe=1, members=1)))
    assert found["calibration"] == {} and found["sampling"]["depth"]["settings"] == 1
