"""Maximal-update parametrisation (muP): one set of learning rates for all widths and depths.

Rates that are best for a small model are best for a large one if the size of what each layer adds
to its answer in a step does not depend on width or depth (Yang et al. 2022, arXiv:2203.03466; for
DiT, Zheng et al. 2025, arXiv:2505.15270; as a condition on spectral norms, Yang et al. 2023,
arXiv:2310.17813; in depth, Dey et al. 2025, arXiv:2505.01618, CompleteP with alpha = 1).

Every tensor is held against its namesake in a base model, of which the rules change nothing:
DiT-64x4 for DiTs of all shapes, split-32 for split backbones. With r and q the fan-in and fan-out
in units of the base's, and l the blocks of its stack in units of the base's:

    tensor                              deviation at the start   rate of AdamW  rate of Muon
    input-like (r = 1), embeddings      as standard              1              a sqrt(q)
    hidden (r and q grow)               ~ fan-in^(-1/2)          1 / r          a sqrt(q / r)
    router of experts (q = 1)           ~ fan-in^(-1)            1 / r
    output (q = 1)                      zero                     1 / r
    vectors: biases, gates, norms       independent of width     1
    end of a residual branch            the above / l            the above / l  the above / l

which is table 3 of arXiv:2203.03466, and table 1 of arXiv:2505.01618. Muon's updates are
orthogonal matrices times sqrt(max(1, rows / columns)), which meet the spectral condition at every
width; a corrects what the maximum hides where the shape changes, and is 1 where all sides grow
alike. A router is an output (arXiv:2508.09752). Modulations (adaLN) are hidden and start at zero.

No forward pass knows of this. A constant factor m before a tensor is, to Adam and to Muon, the same
as m times its initial values and m times its rate (arXiv:2203.03466, lemma J.1), so factors are
moved there: 1 / l of residual branches to the layers that end them, and attention scaled by 1 / d
in place of 1 / sqrt(d), for heads d wide, to queries, keys and values, s = (32 / d)^(1/4) each,
while the projection takes 1 / s for the values. A checkpoint is an ordinary network.

Decay is decoupled: rate x decay is the same for every tensor, at every width and depth
(arXiv:2505.01618, table 1). AdamW's epsilon is left at 1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from stepsight.models.config import SPLIT, DiTSize, ModelSettings, SplitSize

BASE_WIDTH, BASE_DEPTH, BASE_HEAD = 64, 4, 32  # of DiTs
BASE_SPLIT = "split-32"
ENDS = (".proj", ".fc2", ".conv2")  # layers that end a residual branch


@dataclass(frozen=True)
class TensorRule:
    """What a tensor has in units of what standard parametrisation gives it."""

    initial: float  # values at the start
    adamw: float  # learning rate, by either optimizer
    muon: float

    def __mul__(self, factor: float) -> TensorRule:
        return TensorRule(self.initial * factor, self.adamw * factor, self.muon * factor)


def base_of(size: DiTSize | SplitSize) -> DiTSize | SplitSize:
    """The size of the same family of which the rules change nothing."""
    if isinstance(size, SplitSize):
        return SPLIT[BASE_SPLIT]
    return replace(size, width=BASE_WIDTH, depth=BASE_DEPTH, heads=BASE_WIDTH // BASE_HEAD)


def router_scale(settings: ModelSettings, width: int) -> float:
    """One over what the weights of a new router are uniform within."""
    above = math.sqrt(width / BASE_WIDTH) if settings.parametrisation == "mup" else 1.0
    return math.sqrt(width) * above


@torch.no_grad()
def parametrise(net: nn.Module, base: nn.Module) -> None:
    """Bring a new network from standard parametrisation to muP: its initial values, and `rules` by
    parameter, for `training.optim.build_optimizers`. base: on any device, such as "meta"."""
    rules = rules_of(net, base)
    for name, parameter in net.named_parameters():
        parameter *= rules[name].initial
    net.rules = rules  # type: ignore[assignment]


def rules_of(net: nn.Module, base: nn.Module) -> dict[str, TensorRule]:
    """The rule of every parameter by name."""
    stacks = [name for name, one in net.named_modules() if isinstance(one, nn.ModuleList)]
    found: dict[str, TensorRule] = {}
    for name, module in net.named_modules():
        stack = next((one for one in stacks if name.startswith(f"{one}.")), "")
        alike, deep = base.get_submodule(_namesake(name, stack)), 1.0
        if stack and name.endswith(ENDS):
            deep = _depth(net, stack) / _depth(base, stack)
        for own, _ in module.named_parameters(recurse=False):
            rule = _rule(f"{name}.{own}", module, alike) * (1 / deep)
            found[f"{name}.{own}".removeprefix(".")] = rule
    for name, factor in _softer(net):
        found[name] *= factor
    return found


def _namesake(name: str, stack: str) -> str:
    """The module of the base that a module stands for: of the first block, where it has fewer."""
    if not stack or name == stack:
        return name
    _, dot, rest = name.removeprefix(f"{stack}.").partition(".")
    return f"{stack}.0{dot}{rest}"


def _depth(net: nn.Module, stack: str) -> int:
    return len(net.get_submodule(stack))  # type: ignore[arg-type]


def _rule(name: str, module: nn.Module, base: nn.Module) -> TensorRule:
    """Of one parameter, but for depth and attention. As standard parametrisation starts them,
    matrices have a deviation in fan-in^(-1/2) but for the second layer of the time's embedding,
    where it is constant, and biases of convolutions have one in fan-in^(-1/2) too."""
    ratios = _ratios(module, base)
    if ratios is None or not name.endswith(("weight", "bias")):
        return TensorRule(1.0, 1.0, 1.0)
    r, q = ratios
    if name.endswith("bias"):
        return TensorRule(
            1.0 if "adaLN" in name else math.sqrt(r), 1.0, 1.0
        )  # which holds the gates
    above = name.endswith(("moe.gate.weight", "mlp.2.weight"))
    reach, other = (_reach(one.weight) for one in (module, base))  # type: ignore[arg-type]
    return TensorRule(1 / math.sqrt(r) if above else 1.0, 1 / r, math.sqrt(q / r) * other / reach)


def _ratios(module: nn.Module, base: nn.Module) -> tuple[float, float] | None:
    """Fan-in and fan-out of a layer in units of the base's; None where it holds vectors alone. An
    embedding is a map of one-hot rows."""
    weight, other = getattr(module, "weight", None), getattr(base, "weight", None)
    if weight is None or other is None or weight.ndim < 2:
        return None
    if isinstance(module, nn.Embedding):
        return 1.0, weight.shape[1] / other.shape[1]
    inputs, outputs = (-1, -2) if weight.ndim == 3 else (1, 0)  # 3: a stack of matrices
    return weight.shape[inputs] / other.shape[inputs], weight.shape[outputs] / other.shape[outputs]


def _reach(weight: torch.Tensor) -> float:
    """The spectral norm of Muon's update at a rate of 1 (`training.optim.muon`)."""
    return math.sqrt(max(1.0, weight.shape[0] / weight[0].numel()))


def _softer(net: nn.Module) -> Iterator[tuple[str, float]]:
    """Factors by which attention counts its products by the width of a head, not by its root."""
    for name, module in net.named_modules():
        if not isinstance(qkv := getattr(module, "qkv", None), nn.Linear):
            continue
        heads = getattr(module, "num_heads", None) or module.heads
        factor = (BASE_HEAD * int(heads) / qkv.in_features) ** 0.25  # type: ignore[arg-type]
        normed = [f"{part}.{one}" for part in ("q_norm", "k_norm") for one in ("weight", "bias")]
        if isinstance(getattr(module, "q_norm", None), nn.LayerNorm):
            yield from ((f"{name}.{one}", factor) for one in normed)
        else:
            yield from ((f"{name}.qkv.{one}", factor) for one in ("weight", "bias"))
            yield f"{name}.proj.weight", 1 / factor
