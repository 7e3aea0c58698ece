"""A scene is the same bits in any company, at any size, and nearly so in any precision."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from frames import Frames, frames_in, frames_of
from torch import Tensor

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.levels import LEVELS
from stepsight.data.scenes.parameters import draw_world
from stepsight.data.scenes.render import Rendering
from stepsight.data.scenes.source import Scenes

STANDARD = LEVELS["standard"]
GOLDEN = {
    ("standard", 0, "train", 0): "71a5308d553af13c",
    ("standard", 0, "eval", 511): "227eaddbaac99b1e",
    ("hard", 3, "train", 12345): "abe5f1650b7f8146",
    ("shifted", 1, "eval", 7): "b3deeb2f0787b452",
}


@pytest.mark.parametrize("level, seed, split, index", GOLDEN)
def test_parameters_are_golden(level: str, seed: int, split: str, index: int) -> None:
    world = draw_world(LEVELS[level], seed, split, [index])
    assert world.digest()[:16] == GOLDEN[level, seed, split, index]


def test_parameters_do_not_depend_on_the_company() -> None:
    together = draw_world(STANDARD, 0, "train", [3, 1, 4])
    alone = draw_world(STANDARD, 0, "train", [4])
    assert (together.objects.centre[2] == alone.objects.centre[0]).all()
    assert (together.surfaces.colours[2] == alone.surfaces.colours[0]).all()


def render(indices: range, size: tuple[int, int]) -> Frames:
    return frames_in(Scenes(ScenesSettings(size=size), "eval"), indices)


def assert_same(frames: Frames, i: int, others: Frames, j: int) -> None:
    for field in fields(frames):
        assert torch.equal(getattr(frames, field.name)[i], getattr(others, field.name)[j]), field


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (5, 7), (1, 3)])
def test_rendering_is_bit_identical_in_any_batch_and_order(size: tuple[int, int]) -> None:
    batch, reverse = render(range(32), size), render(range(31, -1, -1), size)
    for i in range(32):
        assert_same(batch, i, reverse, 31 - i)
    for i in (0, 13, 31):
        assert_same(batch, i, render(range(i, i + 1), size), 0)


def test_rendering_is_bit_identical_with_two_threads() -> None:
    size = (260, 130)  # large enough for torch to share out the work
    before, one = torch.get_num_threads(), render(range(1), size)
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        other = render(range(1), size)
    finally:
        torch.set_num_threads(before)
    assert_same(one, 0, other, 0)


def away_from_edges(frames: Frames) -> Tensor:
    """bool "b 1 h w": the 5 x 5 neighbourhood shows one surface with a smooth normal."""
    part = torch.cat([frames.instance[:, None], frames.labels[:, None]], dim=1).double()
    part = torch.cat([part, 10 * frames.normals.double()], dim=1)
    high = torch.nn.functional.max_pool2d(part, 5, 1, 2)
    low = -torch.nn.functional.max_pool2d(-part, 5, 1, 2)
    return ((high - low)[:, :2].sum(1, keepdim=True) == 0) & (
        (high - low)[:, 2:].amax(1, keepdim=True) < 4
    )


def assert_close(frames: Frames, reference: Frames) -> None:
    """Within 1e-4 (of the metre or pixel, at least relatively) away from the edges of objects."""
    inner = away_from_edges(reference)
    assert inner.float().mean() > 0.5
    assert torch.equal(frames.labels[inner[:, 0]], reference.labels[inner[:, 0]])
    for name in ("depth", "flow", "normals"):
        found, wanted = (getattr(f, name).double() for f in (frames, reference))
        error = (found - wanted).abs() / wanted.abs().clamp_min(1)
        assert (error * inner).max() < 1e-4, name
    change = (frames.rgb.int() - reference.rgb.int()).abs() * inner
    assert (change > 1).float().mean() < 1e-4  # the rims of shadows


def test_single_precision_is_close_to_double() -> None:
    world = draw_world(STANDARD, 0, "eval", range(16))
    single = frames_of(Rendering(world, (64, 64)))
    double = frames_of(Rendering(world, (64, 64), dtype=torch.float64))
    assert_close(single, double)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_renders_the_same_worlds() -> None:
    world = draw_world(STANDARD, 0, "eval", range(16))
    there = frames_of(Rendering(world, (64, 64), device="cuda")).to("cpu")
    assert_close(there, frames_of(Rendering(world, (64, 64))))


def test_splits_and_seeds_are_different_worlds() -> None:
    digests = {
        draw_world(STANDARD, seed, split, [index]).digest()
        for seed in (0, 1)
        for split in ("train", "eval")
        for index in (0, 1)
    }
    assert len(digests) == 8


def test_levels_are_distinct() -> None:
    digests = {draw_world(level, 0, "eval", range(4)).digest() for level in LEVELS.values()}
    assert len(digests) == len(LEVELS)
    assert len({replace(level, objects=5.0) for level in LEVELS.values()}) == len(LEVELS)
