"""A task that is added as docs/tasks.md says: one row, one module, and everything takes it."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight import config as configuration
from stepsight.cli import train
from stepsight.coding import build_network
from stepsight.config import from_dict
from stepsight.metrics import protocol
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.base import Task
from stepsight.tasks.config import TABLE, TaskSettings
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch, Prediction, Target

BATCH = Batch(
    image=torch.linspace(-1, 1, 3 * 3 * 16 * 24).reshape(3, 3, 16, 24),
    keys=["a", "b", "c"],
    sources=["toys"] * 3,
    second=torch.zeros(3, 3, 16, 24),
)


@dataclass(frozen=True)
class ShadingSettings(TaskSettings):
    """Brightness of the image, times a scale."""

    name: ClassVar[str] = "shading"
    implementation: ClassVar[str] = "shading_of_the_tests:Shading"
    headline: ClassVar[tuple[str, ...]] = ("abs_rel",)
    scale: float = 1.0


@dataclass(frozen=True)
class Shading(Task, ShadingSettings):
    """The whole of a task that learns nothing anybody needs."""

    target_field: ClassVar[str] = "depth"
    required_inputs: ClassVar[tuple[str, ...]] = ("second",)
    channels: ClassVar[int] = 1

    def encode(self, batch: Batch) -> Target:
        x = self.truth(batch) / self.scale
        return Target(x, torch.ones_like(x, dtype=torch.bool))

    def decode(self, x: Tensor) -> Prediction:
        return Prediction(self.name, x[:, :1], x[:, :1] * self.scale)

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        return (x[:, :1] - self.encode(batch).x).abs().mean(dim=(1, 2, 3))

    def merge(self, members: Tensor) -> Prediction:
        return self.decode(members.mean(dim=0))

    def score(self, prediction: Prediction, batch: Batch, protocol: str) -> dict[str, Tensor]:
        error = (prediction.values - self.truth(batch)).abs().mean(dim=(1, 2, 3))
        return {self.metric: error, "n": torch.ones_like(error)}

    def statistics(self, batch: Batch) -> Tensor:
        return self.truth(batch).sum(dim=0)

    def baselines(self, batch: Batch, statistics: Tensor | None) -> dict[str, Prediction]:
        return {"grey": self.decode(torch.zeros_like(batch.image))}

    def picture(self, values: Tensor, batch: Batch, like: Tensor | None = None) -> Tensor:
        return (values.clamp(0, 1) * 255).to(torch.uint8).expand(-1, 3, -1, -1)

    def truth(self, batch: Batch) -> Tensor:
        return batch.image.mean(dim=1, keepdim=True)


@pytest.fixture
def shading(monkeypatch) -> None:
    """What docs/tasks.md asks for: a row, a module, and a protocol."""
    module = types.ModuleType("shading_of_the_tests")
    module.Shading = Shading  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(TABLE, "shading", ShadingSettings)
    rule = replace(protocol.default_for("depth"), name="shading", task="shading")
    monkeypatch.setitem(protocol.PROTOCOLS, "shading", rule)


def test_a_row_and_a_module_make_a_task(shading):
    assert configuration.TABLES["tasks"]["shading"] is ShadingSettings
    flags = ["--tasks.shading.scale", "2", "--tasks.depth.weight", "3"]
    config = train.Args.parse(flags, "train.py").config
    assert config.tasks["shading"] == ShadingSettings(scale=2)
    assert from_dict(config.to_dict()) == config
    task = build_tasks(config.tasks)["shading"]
    target = task.encode(BATCH)
    torch.testing.assert_close(task.decode(target.x).values, task.truth(BATCH))
    assert target.valid.all()


def test_an_added_task_predicts_beside_the_others(shading):
    config = from_dict({"model": {"name": "split-8"}, "tasks": {"shading": {}, "flow": {}}})
    tasks = build_tasks(config.tasks)
    net = build_network(config, tasks, Pixels()).eval()
    pipeline = DensePipeline(net, tasks, config, {"shading": (16, 24), "flow": (16, 24)})
    coded = pipeline.code(BATCH, "shading", target=True)
    assert coded.x is not None and coded.valid is not None
    assert coded.x.shape == (3, 2, 16, 24) and coded.label.tolist() == [0, 0, 0]
    assert coded.valid[:, 0].all() and not coded.valid[:, 1].any()  # flow's second channel
    assert coded.look is None and pipeline.layout.looked == tasks["flow"].look_channels
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    prediction = pipeline(image, "shading", second=image, nfe=1, members=2)
    assert prediction.values.shape == (1, 1, 20, 30) and prediction.picture is not None
    both = [
        pipeline(image, "shading", second=image, nfe=2, members=1, views=views).values
        for views in ("none", "mirror")
    ]
    assert both[0].isfinite().all() and both[1].shape == both[0].shape


@pytest.mark.parametrize("loss", ["task", "squared"])
def test_an_added_task_is_learned_beside_the_others(shading, lab, tmp_path, loss):
    """By all kinds of rows; as brightness is given in the picture, it is learned in no time."""
    tasks = ("shading", "flow")
    lab.train(lab.config(tasks, images=160, loss=loss, log_every=40), tmp_path)
    first, *_, last = [row["loss/shading"] for row in lab.rows(tmp_path)]
    assert last < 0.7 * first


def test_the_errors_of_an_added_task_are_squared(shading):
    """`Task` has what it needs, as docs/tasks.md says."""
    task = build_tasks(from_dict({"tasks": {"shading": {}}}).tasks)["shading"]
    target = task.encode(BATCH)
    weight = (target.valid * task.importance(BATCH, None)).expand_as(target.x)
    assert torch.equal(weight, torch.ones_like(target.x))
    found = task.errors(target.x + 2, target.x, weight)
    torch.testing.assert_close(found, torch.full((3,), 4.0 * 16 * 24))
