"""Upcycling (Komatsuzaki et al. 2023): a dense DiT as a mixture of experts that starts from it.

Every expert starts as a copy of the MLP it replaces; the router starts at random. Two rules for the
weights of the chosen experts:

* "softmax", the paper's: the router's probabilities as they are. Those of k of E experts sum to
  less than one (to k / E for an undecided router), so the MLPs' share shrinks at the moment of
  upcycling, and training has to win it back.
* "renormalised": divided by their sum. As all experts are equal, the output is the dense model's.

With S shared experts, which every token passes at weight one, all last layers are divided by 1 + S,
so that the sum keeps its size.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import torch
from einops import repeat
from torch import Tensor

from stepsight.checkpoint import Checkpoint
from stepsight.conversion.write import Converted, copied
from stepsight.errors import UserError
from stepsight.models.config import DiTSize, parse
from stepsight.models.parametrisation import router_scale
from stepsight.seeding import generator

MLP = re.compile(r"(?P<block>blocks\.\d+\.)mlp\.(?P<rest>fc[12]\.(?:weight|bias))")


def upcycle(
    saved: Checkpoint,
    experts: int,
    active: int,
    weights: Literal["softmax", "renormalised"] = "renormalised",
    shared: int = 0,
) -> Converted:
    """A dense DiT checkpoint with every MLP replaced by `experts` copies, `active` per token.

    Raises UserError for a model that is no dense DiT, or numbers that cannot be.
    """
    model = saved.config.model
    size = parse(model.name)
    if not isinstance(size, DiTSize) or size.experts:
        raise UserError(f"{saved.path} holds {model.name}: only a dense DiT can be upcycled.")
    if experts < 2 or not 1 <= active <= experts or shared < 0:
        raise UserError(
            f"--experts {experts} --top-k {active} --shared {shared}: needs two experts or more, "
            f"of which 1 to all are chosen, and no negative number of shared ones."
        )
    name = f"{model.name}-{experts}E{active}A"
    dense = copied(saved)
    mixed: dict[str, Tensor] = {}
    for key, value in dense.weights.items():
        mixed |= _copies(key, value, experts, shared)
    scale = router_scale(model, size.width)
    for block in range(size.depth):
        mixed[f"blocks.{block}.moe.gate.weight"] = _gate(block, experts, size.width, scale)
    settings = replace(model, name=name, expert_weights=weights, shared_experts=shared)
    config = replace(saved.config, model=settings)
    notes = [f"{model.name} -> {name}, expert weights {weights}, {shared} shared"]
    if weights == "softmax":
        notes.append(
            f"the chosen weights sum to about {active}/{experts}: the output is not the dense "
            f"model's until it is trained (renormalised keeps it)"
        )
    return replace(dense, config=config, weights=mixed, notes=notes)


def _copies(key: str, value: Tensor, experts: int, shared: int) -> dict[str, Tensor]:
    """A tensor of the dense model under the names it has in the mixture."""
    match = MLP.fullmatch(key)
    if match is None:
        return {key: value}
    block, rest = match.groups()
    if rest.startswith("fc2"):
        value = value / (1 + shared)
    copies = {"experts": experts, "shared": shared} if shared else {"experts": experts}
    return {
        f"{block}moe.{kind}.{rest}": repeat(value, "... -> e ...", e=count).clone()
        for kind, count in copies.items()
    }


def _gate(block: int, experts: int, width: int, scale: float) -> Tensor:
    """A router as a new one starts: uniform within 1 / scale; the same every time."""
    draw = generator("upcycle", block, experts)
    return (torch.rand(experts, width, generator=draw) * 2 - 1) / scale
