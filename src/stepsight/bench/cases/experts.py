"""A mixture of experts in training, beside the loop over experts and a dense MLP of equal FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from stepsight.bench.peers.masked_loop import masked_loop
from stepsight.bench.protocol import Contest, Row, Setup, Work, assert_close
from stepsight.execution.precision import computing
from stepsight.models.moe import MoE

PROTOCOL = """Forward and backward pass of one mixture; E is the experts there are, A those that a
token passes. The loop picks each expert's tokens with a boolean mask, as published code does, and
has the same weights: outputs agree to 1e-5 in float32, 2e-2 in bf16. The dense MLP has the FLOPs
of the experts that are active. bf16 is autocast over float32 weights. Weights count as changed
after every pass, as an optimizer would have it, so that nothing that was cast before can be used
again. Outputs, gradients of tokens, router and experts are compared."""

Shape = tuple[int, int, int, int]  # width, experts, active, tokens
SHAPES: tuple[Shape, ...] = (
    (384, 8, 2, 2048),
    (384, 64, 2, 1024),
    (384, 64, 2, 2048),
    (1152, 8, 2, 1024),
)
ON_GPU: tuple[Shape, ...] = ((384, 8, 2, 16384), (384, 64, 2, 16384), (1152, 64, 2, 1024))
ON_GPU += ((1152, 8, 2, 16384),)
FAST = 1.8  # of bf16 over the float32 loop, where experts are few


def run(setup: Setup) -> Iterator[Row]:
    tiny: tuple[Shape, ...] = ((32, 4, 2, 64),)
    for shape in setup.pick(tiny, SHAPES, ON_GPU):
        yield from setup.timed(contest(shape, setup.device))


def contest(shape: Shape, device: str) -> Contest:
    width, experts, active, tokens = shape
    torch.manual_seed(0)
    hidden = 4 * width * active
    with torch.device(device):
        moe = MoE(width, experts, active)
        dense = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width))
        x = torch.randn(1, tokens, width, requires_grad=True)
    answers: dict[str, Callable[[], Tensor]] = {
        "loop": lambda: masked_loop(moe, x),
        "dense": lambda: dense(x),
        "ours": lambda: moe(x),
    }
    check(moe, x, answers, device)
    sides: dict[str, Work] = {
        f"{name}, {precision}": passes(answer, precision, device, [x, *net.parameters()])
        for precision in ("float32", "bf16")
        for (name, answer), net in zip(answers.items(), (moe, dense, moe))
    }
    references = {"ours, float32": 1.0} | ({"ours, bf16": FAST} if experts <= 8 else {})
    case = f"{width} wide, {experts}E{active}A, {tokens} tokens"
    return Contest(case, sides, "loop, float32", references)


def check(moe: MoE, x: Tensor, answers: dict[str, Callable[[], Tensor]], device: str) -> None:
    inputs = [x, *moe.parameters()]
    for precision, tolerance in (("float32", 1e-5), ("bf16", 2e-2)):
        with computing(device, precision):
            found, wanted = answers["ours"]().float(), answers["loop"]().float()
        assert_close(found, wanted, tolerance, f"the mixture in {precision}")
        pairs = zip(*(torch.autograd.grad(y.square().mean(), inputs) for y in (found, wanted)))
        for number, (ours, theirs) in enumerate(pairs):
            assert_close(ours, theirs, 4 * tolerance, f"gradient {number} in {precision}")


def passes(answer: Callable[[], Tensor], precision: str, device: str, inputs: list[Tensor]) -> Work:
    """One forward and one backward pass."""

    def work() -> None:
        with computing(device, precision):
            y = answer()
        y.float().square().mean().backward()
        for value in inputs:
            value.grad = None
            torch.autograd.graph.increment_version(value)

    return work
