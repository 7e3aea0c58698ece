"""Each verifier prefers the member that it should, and asks for no more than it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.models.codec import Pixels
from stepsight.testtime.verifiers import VERIFIERS, Candidates, edges, verifiers_for
from stepsight.types import Batch

ALWAYS = {
    "depth": {"flow_edges", "semantic_edges"},
    "flow": {"photometric", "forward_backward", "depth_edges", "semantic_edges"},
    "amodal": {"visible_mask", "code_round_trip"},
    "semantic": {"code_round_trip", "depth_edges", "flow_edges"},
}


class Coarse:
    """A codec that keeps the mean of 2 x 2 pixels."""

    def encode(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    def decode(self, z: Tensor, channels: int) -> Tensor:
        return F.interpolate(z, scale_factor=2)[:, :channels]


class Told:
    """A pipeline whose samples are given, by task, and which remembers what it was asked for."""

    codec: Any = Pixels()

    def __init__(self, tasks, answers: dict[str, Tensor]) -> None:
        self.tasks, self.answers, self.asked = tasks, answers, []

    def task(self, name: str):
        return self.tasks[name]

    def sample(self, batch: Batch, task: str, *, nfe, members, seed, chunk_size) -> Tensor:
        self.asked.append((task, batch, nfe * members))
        return self.answers[task].expand(members, *self.answers[task].shape)


@pytest.fixture
def tasks(lab):
    return lab.pipeline(statistics=False).tasks


def doubts(
    name: str, pipeline, task: str, members: list[Tensor], batch: Batch
) -> list[list[float]]:
    found = Candidates(pipeline, pipeline.tasks[task], batch, torch.stack(members), nfe=3)
    verifier = VERIFIERS.get(name) or edges(name.removesuffix("_edges"))
    return verifier.disagreement(found).tolist()


def seen(**fields: Tensor) -> Batch:
    first = next(iter(fields.values()))
    image = fields.pop("image", torch.zeros(len(first), 3, *first.shape[-2:]))
    return Batch(image, [f"key-{i}" for i in range(len(image))], ["here"] * len(image), **fields)


@pytest.fixture
def moving(tasks):
    """Two textured frames, the second moved by 2 pixels right and 1 down, and the true target."""
    draw = torch.Generator().manual_seed(0)
    texture = F.interpolate(torch.rand(2, 3, 6, 6, generator=draw), size=(24, 24), mode="bilinear")
    second = texture.roll((1, 2), dims=(-2, -1))
    flow = torch.tensor([2.0, 1.0])[None, :, None, None].expand(2, 2, 24, 24)
    return seen(image=texture, second=second), flow / tasks["flow"].scale


def test_the_warped_frame_tells_the_true_flow(tasks, moving):
    batch, true = moving
    found = doubts("photometric", Told(tasks, {}), "flow", [0 * true, true, -true], batch)
    for still, right, wrong in zip(*found):
        assert right < still < wrong


def test_the_way_back_tells_the_true_flow(tasks, moving):
    batch, true = moving
    pipeline = Told(tasks, {"flow": -true})
    found = doubts("forward_backward", pipeline, "flow", [0.5 * true, true], batch)
    assert found[1] == pytest.approx([0.0, 0.0], abs=1e-5)
    assert found[0] == pytest.approx([0.5 * 5**0.5] * 2, rel=1e-4)
    ((_, asked, calls),) = pipeline.asked
    assert torch.equal(asked.image, batch.second) and torch.equal(asked.second, batch.image)
    assert calls == 2 * 3


def test_the_whole_holds_the_visible_part(tasks):
    modal = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    modal[..., :4, :4] = True
    whole, part = torch.full((2, 1, 1, 8, 8), -1.0)
    whole[..., :6, :6] = 1.0
    part[..., :2, :] = 1.0
    members = [part, whole, -torch.ones_like(part)]
    found = doubts("visible_mask", Told(tasks, {}), "amodal", members, seen(modal=modal))
    assert found == [[0.5], [0.0], [1.0]]


@pytest.mark.parametrize("task", ["amodal", "semantic"])
def test_a_decided_answer_is_its_own_code(lab, tasks, task):
    batch = collate([lab.held[0], lab.held[1]])
    batch.labels = torch.randint(7, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    code = tasks[task].encode(batch).x
    members = [0.4 * code, code, 0.8 * code]
    vague, exact, near = doubts("code_round_trip", Told(tasks, {}), task, members, batch)
    assert exact == [0.0, 0.0]
    assert vague == pytest.approx([0.6, 0.6], rel=1e-5) and near == pytest.approx([0.2, 0.2])


def test_what_the_codec_loses_is_distrusted(tasks):
    pipeline = Told(tasks, {})
    pipeline.codec = Coarse()
    checks = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2 - 1.0)[None, None]
    flat = torch.full_like(checks, 0.3)
    found = doubts("codec_round_trip", pipeline, "depth", [checks, flat], seen(image=checks))
    assert found == [[1.0], [0.0]]


@pytest.mark.parametrize("task", ["depth", "flow", "semantic"])
def test_a_vae_takes_targets_of_any_channels(tasks, vae_of, task):
    pipeline = Told(tasks, {})
    pipeline.codec = vae_of(0)
    draw = torch.Generator().manual_seed(0)
    members = list(torch.rand(2, 3, tasks[task].channels, 16, 16, generator=draw) * 2 - 1)
    batch = seen(image=torch.zeros(3, 3, 16, 16))
    with torch.no_grad():
        found = torch.tensor(doubts("codec_round_trip", pipeline, task, members, batch))
        back = pipeline.codec.decode(pipeline.codec.encode(members[0]), tasks[task].channels)
    assert found.shape == (2, 3) and (found > 0).all()
    expected = (back - members[0]).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_edges_of_another_task_tell_where_they_are(tasks):
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[..., 8:] = 3
    codes = tasks["semantic"].encode(seen(image=torch.zeros(1, 3, 16, 16), labels=labels)).x
    step = torch.where(torch.arange(16) < 8, -0.5, 0.5).expand(1, 1, 16, 16)
    noise = 0.3 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    pipeline = Told(tasks, {"semantic": codes + noise})  # which decodes to the same labels
    members = [step.roll(4, dims=-1), step, -step]
    found = doubts(
        "semantic_edges", pipeline, "depth", members, seen(image=step.expand(1, 3, 16, 16))
    )
    assert found[1] == pytest.approx([0.0], abs=1e-6) == found[2]
    assert found[0][0] > 0.5
    assert [(task, calls) for task, _, calls in pipeline.asked] == [("semantic", 9)]


@pytest.mark.parametrize("task", list(ALWAYS))
def test_each_task_has_its_verifiers(lab, task):
    pipeline = lab.pipeline(statistics=False)
    batch = pipeline.working(collate([lab.held[0]]), task)
    batch = replace(batch, second=batch.image)
    assert verifiers_for(pipeline, pipeline.task(task), batch).keys() == ALWAYS[task]
    pipeline.codec = Coarse()
    assert "codec_round_trip" in verifiers_for(pipeline, pipeline.task(task), batch)


def test_what_is_missing_gives_no_evidence(lab):
    pipeline = lab.pipeline(lab.config(tasks=("depth", "flow")), statistics=False)
    alone = replace(pipeline.working(collate([lab.held[0]]), "depth"), second=None)
    assert verifiers_for(pipeline, pipeline.task("depth"), alone) == {}


@pytest.mark.parametrize("task", list(ALWAYS))
def test_all_of_them_judge_every_member_of_every_image(lab, task):
    pipeline = lab.pipeline(statistics=False)
    batch = collate(lab.held.samples(range(3)))
    inputs = pipeline.working(batch, task)
    members = pipeline.sample(inputs, task, nfe=1, members=2)
    found = Candidates(pipeline, pipeline.task(task), inputs, members, nfe=1)
    for name, one in verifiers_for(pipeline, pipeline.task(task), inputs).items():
        doubt = one.disagreement(found)
        assert doubt.shape == (2, 3) and doubt.isfinite().all(), name
        assert (doubt[0] != doubt[1]).any(), name
