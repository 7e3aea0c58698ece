"""Procedural worlds rendered, in units of what this machine does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from stepsight.bench.protocol import Contest, Row, Setup, Work, assert_close
from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.source import QUANTITIES, Scenes

PROTOCOL = """A round of fresh worlds rendered, by kind: single frames as a run on depth, labels
and masks asks for them, and pairs with all that a run on all tasks asks for. The unit is fixed
work of the same sort on the same machine: elementwise functions of 2^20 floats, a sort of 2^16 and
ten products of 256 x 256 matrices; worlds that are rendered twice are equal. CPU time of one
thread, on any device: 128 worlds of 64 x 64, 8 of 256 x 256."""

KINDS = {"single": frozenset({"depth", "labels", "amodal"}), "pairs": QUANTITIES}


def run(setup: Setup) -> Iterator[Row]:
    on_cpu = Setup("cpu", setup.tiny, setup.rounds)
    picture, matrix = torch.rand(1 << 20), torch.rand(256, 256)
    for side, count in setup.pick([(32, 2)], [(64, 128), (256, 8)], [(64, 128), (256, 8)]):
        sides: dict[str, Work] = {"unit": partial(unit, picture, matrix)}
        for kind, quantities in KINDS.items():
            source = Scenes(ScenesSettings(size=(side, side), count=count), "train", quantities)
            once, again = (source.samples(range(2))[1].image for _ in range(2))
            assert_close(again, once, 0, "worlds")
            sides[f"ours, {kind}"] = partial(source.samples, range(count))
        yield from on_cpu.timed(Contest(f"{count} worlds of {side} x {side}", sides, "unit"))


def unit(x: torch.Tensor, y: torch.Tensor) -> None:
    """Some 15 ms on a core of 2024."""
    (x * x + 1).sqrt().sin().clamp_(0, 0.5).sum()
    x[: 1 << 16].sort()
    for _ in range(10):
        y = y @ y / 256
