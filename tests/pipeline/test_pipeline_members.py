"""Members: the noise each starts from, the condition they share, and starts that are no noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from drawn import member_noise
from torch import Tensor

from stepsight.errors import UserError
from stepsight.execution.noise import normal
from stepsight.models.codec import Pixels
from stepsight.pipeline import members as pipeline_module
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.seeding import generator
from stepsight.types import Batch

SIZE = (24, 32)
Keys = tuple[int | str, ...]


def batch_of(names: list[str], size: tuple[int, int] = SIZE) -> Batch:
    """Images that follow from their names."""

    def draw(*what: str) -> Tensor:
        rows = [torch.rand(3, *size, generator=generator(*what, name)) for name in names]
        return 2 * torch.stack(rows) - 1

    modal = draw("modal")[:, :1] > 0
    return Batch(draw("first"), names, ["toys"] * len(names), second=draw("second"), modal=modal)


def key_of(name: str) -> int:
    """What seeds the noise of the image of that name."""
    return content_keys(batch_of([name]).image).item()


@pytest.fixture
def drawn(monkeypatch) -> dict[Keys, Tensor]:
    """All noise that is drawn while a test lasts, by its address; each is drawn once at most."""
    found: dict[Keys, Tensor] = {}

    def spy(stream, rows, shape) -> Tensor:
        noise = normal(stream, rows, shape)
        for address, row in zip(rows.tolist(), noise, strict=True):
            key = (*stream, *address)
            assert key not in found, f"{key} drawn twice"
            found[key] = row
        return noise

    monkeypatch.setattr(pipeline_module, "normal", spy)
    return found


def inputs_of(pipeline: DensePipeline, run: Callable[[], Any]) -> list[tuple[Tensor, ...]]:
    """The arguments x, encoded condition, time and label of every call of the network."""
    seen: list[tuple[Tensor, ...]] = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    run()
    hook.remove()
    return seen


# ---------------------------------------------------------------------------- noise

CALLS = [
    (["a", "b", "c"], 4, 0, 64),
    (["a", "b", "c"], 4, 0, 5),
    (["c", "a"], 4, 0, 3),
    (["b"], 2, 1, 64),  # members 1 and 2
    (["a", "b", "c", "d"], 7, 0, 1),
]


@pytest.mark.parametrize(("sampler", "draws"), [("ddim", 1), ("ancestral", 3)])
def test_the_noise_of_a_member_is_its_own_to_the_bit(sampler, draws, make, drawn):
    """Whatever the batch, its order, the number of members, the first of them, the forward pass."""
    pipeline = make(sampler, tasks=("depth",))
    known: dict[Keys, Tensor] = {}
    for names, members, first, chunk_size in CALLS:
        drawn.clear()
        pipeline.sample(
            batch_of(names),
            "depth",
            nfe=3,
            members=members,
            first=first,
            chunk_size=chunk_size,
            seed=5,
        )
        assert drawn.keys() == {
            ("sample", 5, key_of(name), member, step)
            for name in names
            for member in range(first, first + members)
            for step in range(draws)
        }
        assert all(torch.equal(known.setdefault(key, row), row) for key, row in drawn.items())
    assert len({row.sum().item() for row in known.values()}) == len(known)


def test_the_network_starts_from_exactly_that_noise(pipeline):
    (call,) = inputs_of(
        pipeline,
        lambda: pipeline.sample(batch_of(["a", "b"]), "depth", nfe=1, members=3, first=2),
    )
    own = member_noise((1, *SIZE), torch.tensor([key_of(name) for name in "ab"]), (2, 3, 4))
    assert torch.equal(call[0][:, :1], own) and not call[0][:, 1:].any()


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic"])
def test_later_members_are_those_of_a_larger_ensemble(task, pipeline):
    batch = batch_of(["a", "b"])
    many = pipeline.sample(batch, task, nfe=2, members=6)
    later = pipeline.sample(batch, task, nfe=2, members=3, first=2, chunk_size=4)
    torch.testing.assert_close(later, many[2:5], atol=1e-5, rtol=0)
    alone = pipeline.sample(batch_of(["b"]), task, nfe=2, members=1, first=5)
    torch.testing.assert_close(alone[0], many[5, 1:], atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------- the condition


class Counting(Pixels):
    """Pixels, with the images seen by the encoder."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, x: Tensor) -> Tensor:
        self.encoded.append(len(x))
        return x


@pytest.mark.parametrize(("task", "images"), [("depth", 1), ("flow", 2), ("amodal", 2)])
def test_the_condition_is_encoded_once_for_all_members_and_steps(task, images, make, monkeypatch):
    pipeline, asked = make(), []
    pipeline.codec = codec = Counting()
    kind = type(pipeline.tasks[task])
    condition = kind.condition

    def counted(self, batch):
        asked.append(len(batch))
        return condition(self, batch)

    monkeypatch.setattr(kind, "condition", counted)
    encode = pipeline.net.encode
    embedded = []
    monkeypatch.setattr(
        pipeline.net,
        "encode",
        lambda cond, *more: embedded.append(len(cond)) or encode(cond, *more),
    )
    calls = inputs_of(
        pipeline,
        lambda: pipeline.sample(batch_of(["a", "b"]), task, nfe=3, members=5, chunk_size=4),
    )
    assert len(calls) == 3 * 3 and sum(len(x) for x, *_ in calls) == 3 * 5 * 2
    assert asked == [2] and codec.encoded == [2] * images and embedded == [2]
    for _, encoded, *_ in calls:  # and all of them see it
        for part, first in zip(encoded, calls[0][1], strict=True):
            assert torch.equal(part, first[: len(part)])


# ---------------------------------------------------------------------------- starts


def test_members_set_out_from_the_start_with_their_own_noise(pipeline):
    start = torch.rand(2, 1, *SIZE, generator=generator("start"))
    calls = inputs_of(
        pipeline,
        lambda: pipeline.sample(
            batch_of(["a", "b"]), "depth", nfe=2, members=3, start=start, strength=0.25
        ),
    )
    x, _, time, _ = calls[0]
    keys = torch.tensor([key_of(name) for name in "ab"])
    clean, noise = torch.zeros(2, 6, 7, *SIZE)
    clean[:, :1] = start.repeat(3, 1, 1, 1)
    noise[:, :1] = member_noise((1, *SIZE), keys, range(3))
    quarter = torch.full((1,), 0.25)
    expected = pipeline.diffusion.corrupt(clean, noise, quarter)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(
        time, pipeline.diffusion.schedule.condition(quarter), check_dtype=False
    )
    assert len(calls) == 2


def test_a_weak_start_is_kept_and_a_full_one_forgotten(pipeline):
    """At a strength of 1 rectified flow starts from noise alone."""
    batch = batch_of(["a", "b"])
    start = torch.rand(2, 2, *SIZE, generator=generator("start"))
    cold = pipeline.sample(batch, "flow", nfe=2, members=2)
    full = pipeline.sample(batch, "flow", nfe=2, members=2, start=start)
    torch.testing.assert_close(full, cold, atol=1e-5, rtol=0)
    warm = pipeline.sample(batch, "flow", nfe=2, members=2, start=start, strength=0.5)
    assert (warm - cold).abs().max() > 1e-3


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_a_start_of_two_passes_reaches_the_pass_it_belongs_to(chunk_size, make):
    pipeline = make(tasks={"flow": {"components": "separate", "cost_volume": False}})
    start = torch.rand(2, 2, *SIZE, generator=generator("start"))
    options = {"nfe": 1, "members": 2, "start": start, "strength": 0.5, "chunk_size": chunk_size}
    calls = inputs_of(pipeline, lambda: pipeline.sample(batch_of(["a", "b"]), "flow", **options))
    x, labels = (torch.cat([call[place] for call in calls]) for place in (0, 3))
    keys = torch.tensor([key_of(name) for name in "ab"])
    clean = torch.cat([start[:, :1], start[:, 1:]]).repeat(2, 1, 1, 1)
    noise = member_noise((1, *SIZE), keys, range(2), runs=2)
    torch.testing.assert_close(x, pipeline.diffusion.corrupt(clean, noise, torch.full((8,), 0.5)))
    assert labels.tolist() == [0, 0, 1, 1] * 2


def test_a_start_is_encoded_by_the_codec(make):
    pipeline = make()
    pipeline.codec = codec = Counting()
    start = torch.zeros(2, 1, *SIZE)
    pipeline.sample(batch_of(["a", "b"]), "depth", nfe=2, members=4, start=start, strength=0.5)
    assert codec.encoded == [2, 2]  # the image, the start


@pytest.mark.parametrize(
    ("start", "strength", "message"),
    [
        (torch.zeros(2, 1, 12, 16), 0.5, r"\(2, 1, 12, 16\): depth .* \(2, 1, 24, 32\)"),
        (torch.zeros(1, 1, *SIZE), 0.5, r"\(1, 1, 24, 32\): depth .* \(2, 1, 24, 32\)"),
        (torch.zeros(2, 2, *SIZE), 0.5, r"\(2, 2, 24, 32\): depth .* \(2, 1, 24, 32\)"),
        (None, 0.5, "strength 0.5: give a start"),
        (torch.zeros(2, 1, *SIZE), 0.0, "strength 0"),
        (torch.zeros(2, 1, *SIZE), 1.5, "strength 1.5"),
    ],
)
def test_starts_that_fit_nowhere_are_refused(start, strength, message, pipeline):
    with pytest.raises(UserError, match=message):
        pipeline.sample(
            batch_of(["a", "b"]), "depth", nfe=2, members=1, start=start, strength=strength
        )
