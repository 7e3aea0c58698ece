"""The mixture of experts against the usual loop over experts and a dense MLP of equal FLOPs.

    OMP_NUM_THREADS=1 python benchmarks/moe.py [--width 384] [--experts 8] [--active 2]
        [--tokens 2048] [--device cpu]

One forward and backward pass, all sides on the same tokens and, but for the dense MLP, the same
weights, whose outputs are compared first. The loop picks each expert's slots with a boolean mask,
as published code does. The rounds of all sides take turns; figures are the median (and the best)
milliseconds, of CPU time on a CPU. bfloat16 means autocast over float32 weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepsight.models.moe import MoE

ROUNDS = 9


def loop(moe: MoE, x: Tensor) -> Tensor:
    """The same mixture with a mask an expert; autocast and gradients as torch has them."""
    tokens = x.flatten(0, 1)
    weight, expert = moe.gate(tokens.float()).float().softmax(dim=-1).topk(moe.active, dim=-1)
    rows, expert = tokens.repeat_interleave(moe.active, dim=0), expert.flatten()
    fc1, fc2 = moe.experts.fc1, moe.experts.fc2
    stacks = zip(*(p.unbind() for p in (fc1.weight, fc1.bias, fc2.weight, fc2.bias)))
    out = torch.empty_like(rows)
    for e, (w1, b1, w2, b2) in enumerate(stacks):
        mine = expert == e
        hidden = F.gelu(F.linear(rows[mine], w1, b1), approximate="tanh")
        out[mine] = F.linear(hidden, w2, b2).to(out.dtype)
    return (out.view(*weight.shape, -1) * weight[..., None]).sum(dim=1).view_as(x)


def milliseconds(step: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e3 * (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds of one mixture of experts.")
    for name, default in (("width", 384), ("experts", 8), ("active", 2), ("tokens", 2048)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    door = parser.parse_args()
    torch.manual_seed(0)
    with torch.device(door.device):
        moe = MoE(door.width, door.experts, door.active)
        hidden = 4 * door.width * door.active
        dense = nn.Sequential(
            nn.Linear(door.width, hidden), nn.GELU("tanh"), nn.Linear(hidden, door.width)
        )
        x = torch.randn(1, door.tokens, door.width, requires_grad=True)
    torch.testing.assert_close(moe(x), loop(moe, x), atol=1e-5, rtol=1e-5)
    sides = {"grouped": lambda: moe(x), "loop": lambda: loop(moe, x), "dense": lambda: dense(x)}
    print(f"{vars(door)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for dtype in (torch.float32, torch.bfloat16):
        spent: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS + 1):
            for name, side in sides.items():
                with torch.autocast(door.device, torch.bfloat16, enabled=dtype != torch.float32):
                    step = lambda side=side: side().square().mean().backward()  # noqa: E731
                    spent[name].append(milliseconds(step, door.device))
        for name, rounds in spent.items():
            middle, best = statistics.median(rounds[1:]), min(rounds[1:])
            print(f"{str(dtype)[6:]:8s}  {name:8s} {middle:8.1f} ms, best {best:8.1f}")


if __name__ == "__main__":
    main()
