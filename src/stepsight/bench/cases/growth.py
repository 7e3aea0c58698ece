"""How time grows with the size of the work: exponents fitted in logarithms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from stepsight.bench.protocol import Contest, Row, Setup, Work
from stepsight.coding import Layout
from stepsight.config import from_dict
from stepsight.evaluation.records import cost_of
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

PROTOCOL = """Wholly a matter of ours: time of depth in float32 over sizes, the sizes in turns. The
exponent is the slope of a line through the logarithms in each round, the figure the median over
rounds; the reference is that of the FLOPs that torch counts at the same sizes. Exponents below it
are of small work that does not fill the machine; those above it are a fault. Tokens: forward pass
of DiT-S/2 on pixels; the others split-32: forward passes over pixels and over pictures a batch at
64 x 64; samples of one picture over members (2 calls) and calls (2 members)."""

Sizes = Sequence[int]


def run(setup: Setup) -> Iterator[Row]:
    dit, split = setup.pick(("DiT-32x2/2", "split-8"), *[("DiT-S/2", "split-32")] * 2)
    sides = setup.pick((8, 16), (16, 24, 32, 48), (32, 64, 96, 128))
    few = setup.pick((1, 2), (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32))
    grid = setup.pick(16, 64, 64)
    yield grown(setup, f"{dit}, tokens", {s * s // 4: passes(dit, s, 1, setup) for s in sides})
    sides = [2 * side for side in sides]
    yield grown(setup, f"{split}, pixels", {s * s: passes(split, s, 1, setup) for s in sides})
    yield grown(setup, f"{split}, pictures", {b: passes(split, grid, b, setup) for b in few})
    members = {e: sampled(split, grid, 2, e, setup) for e in few}
    yield grown(setup, f"{split}, members", members)
    calls = {n: sampled(split, grid, n, 2, setup) for n in few}
    yield grown(setup, f"{split}, calls", calls)


def grown(setup: Setup, case: str, work: Mapping[int, tuple[Work, float]]) -> Row:
    """The exponent of time over sizes; `work` and its FLOPs by size."""
    sides = {str(size): one for size, (one, _) in work.items()}
    took = setup.seconds(Contest(case, sides, peer=next(iter(sides))))
    rounds = zip(*took.values())
    low, middle, high = np.quantile([exponent([*work], one) for one in rounds], [0.25, 0.5, 0.75])
    wanted = exponent([*work], [flops for _, flops in work.values()])
    spread = float(high - low) / max(abs(float(middle)), 0.1)
    over = f"{min(work)} to {max(work)} {case.split()[-1]}"
    return Row(case, "ours", over, float(middle), spread, "exponent", wanted)


def exponent(sizes: Sizes, costs: Sequence[float]) -> float:
    """Slope of log cost over log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def passes(model: str, side: int, batch: int, setup: Setup) -> tuple[Work, float]:
    """A forward pass, the picture read anew, and its FLOPs."""
    pipeline = untrained(model, side, setup.device)
    layout = pipeline.layout
    x, cond = (
        torch.randn(batch, channels, side, side, device=setup.device)
        for channels in (layout.target, layout.cond)
    )
    time, label = torch.rand(batch, device=setup.device), torch.zeros(batch, dtype=torch.long)
    cost = cost_of(pipeline, "depth")
    arguments = x, cond, time, label.to(setup.device)
    return partial(_forward, pipeline.net, *arguments), batch * (cost.encode + cost.call)


@torch.inference_mode()
def _forward(net: nn.Module, *arguments: torch.Tensor) -> None:
    net(*arguments)


def sampled(model: str, side: int, calls: int, members: int, setup: Setup) -> tuple[Work, float]:
    """Members of one picture, and their FLOPs."""
    pipeline = untrained(model, side, setup.device)
    batch = Batch(torch.rand(1, 3, side, side, device=setup.device), keys=["a"], sources=["bench"])
    cost = cost_of(pipeline, "depth")
    work = partial(pipeline.sample, batch, "depth", nfe=calls, members=members)
    return work, cost.encode + members * calls * cost.call


def untrained(model: str, side: int, device: str) -> DensePipeline:
    """A pipeline for depth in pixels that starts from noise, in float32."""
    config = from_dict(
        {
            "model": {"name": model},
            "tasks": {"depth": {}},
            "data": {"scenes": {}},
            "training": {"precision": "float32"},
        }
    )
    tasks = build_tasks(config.tasks)
    net = Layout.of(tasks, Pixels()).build(config.model).to(device).eval()
    pipeline = DensePipeline(net, tasks, config, {"depth": (side, side)})
    return pipeline.sampling(temperature=1.0, views="none")
