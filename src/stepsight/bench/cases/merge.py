"""Merging depth maps known up to scale and shift."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.bench.peers.marigold import marigold
from stepsight.bench.protocol import Contest, Row, Setup, assert_close
from stepsight.ensemble import merge_affine

PROTOCOL = """Maps of a smooth truth with 5 % of noise, each with a scale and a shift of its own.
diffusers: MarigoldDepthPipeline.ensemble_depth with its own settings. The published rule is
Marigold's as this package states it, and agrees with diffusers to 1e-4. The closed form has
another answer, by design: its error against the truth, after the best scale and shift, is at most
theirs and 5 %. CPU and GPU: 512 x 512, 3 and 10 maps."""

NOISE = 0.05  # of the members, of the range of the truth
REFERENCES = {"ours": 8.0, "ours, published rule": 1.0}


def run(setup: Setup) -> Iterator[Row]:
    size = setup.pick(32, 512, 512)
    for count in setup.pick((3,), (3, 10), (3, 10)):
        truth, maps = (x.to(setup.device) for x in members(count, size))
        sides = {
            "diffusers": partial(marigold().ensemble_depth, maps[:, None]),
            "ours, published rule": partial(merge_affine, maps, "published"),
            "ours": partial(merge_affine, maps),
        }
        check(truth, maps)
        case = f"{count} maps of {size} x {size}"
        yield from setup.timed(Contest(case, sides, "diffusers", REFERENCES, rounds=3))


def members(count: int, size: int) -> tuple[Tensor, Tensor]:
    """A truth "h w" in [0, 1] and members "e h w" of it, float32."""
    source = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 9, 9, generator=source)
    truth = F.interpolate(coarse, size=(size, size), mode="bilinear")[0, 0]
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    maps = truth + NOISE * torch.randn(count, size, size, generator=source)
    scale = 0.3 + 2 * torch.rand(count, 1, 1, generator=source)
    return truth, scale * maps + torch.randn(count, 1, 1, generator=source)


def check(truth: Tensor, maps: Tensor) -> None:
    theirs = marigold().ensemble_depth(maps[:, None])[0][0, 0]
    assert_close(merge_affine(maps, "published")[0], theirs, 1e-4, "the published rule")
    ours, published = error(merge_affine(maps)[0], truth), error(theirs, truth)
    assert ours <= 1.05 * published, f"the closed form errs by {ours:.4f}, theirs {published:.4f}"


def error(merged: Tensor, truth: Tensor) -> float:
    """Mean absolute error after the best scale and shift."""
    x, y = merged.flatten().double(), truth.flatten().double()
    x, y = x - x.mean(), y - y.mean()
    return float((x * (x @ y) / (x @ x) - y).abs().mean())
