"""Mixture of experts: many MLPs in the place of one, of which a router gives each token a few.

Router and load-balance loss are those of "Scaling Properties of Diffusion Models for Perceptual
Tasks" (after GShard, arXiv:2006.16668, and Switch, arXiv:2101.03961). No token is dropped: the
chosen (token, expert) slots are sorted by expert, so nothing is padded and nothing of size tokens x
experts x width exists. On a GPU they pass through one grouped matrix product a layer, and the host
never waits; on a CPU expert after expert takes its rows (`models.expert_loop`).

Shapes: b batch, n tokens, d width, e experts, k active experts, r rows (slots, n k of them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from stepsight.models.expert_loop import expert_loop

GROUPED_DEVICES = ("cuda", "meta")  # where one grouped matrix product is faster than many


def _grouped_flops(a: Sequence[int], b: Sequence[int], *_: object, **__: object) -> int:
    """ "r i, e i o -> r o" forward and for the rows, "o r, r i -> e o i" for the weights."""
    return 2 * a[-2] * a[-1] * b[-1]


if torch.ops.aten._grouped_mm not in flop_registry:  # torch (2.15) counts none for it
    register_flop_formula(torch.ops.aten._grouped_mm)(_grouped_flops)


def grouped_linear(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """rows "r i", weight "e o i" -> "r o": row by row the map of its group; not in float64.

    ends: int32 "e", increasing; group e is the rows from ends[e - 1] up to ends[e].
    """
    return F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)


class StackedLinear(nn.Module):
    """`count` linear maps of one shape: weight "e o i", bias "e o"."""

    casts = True  # its weights to the precision of the rows

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (inputs + outputs))  # Xavier uniform, an expert at a time
        self.weight = nn.Parameter(torch.empty(count, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, outputs))

    def forward(self, rows: Tensor, expert: Tensor, ends: Tensor) -> Tensor:
        """rows "r i", sorted by their `expert` "r" -> "r o"."""
        out = grouped_linear(rows, self.weight.to(rows.dtype), ends)
        # An embedding, since its gradient is summed without atomics; in the bias's own precision,
        # since on a CPU it would be summed in bfloat16.
        return out + F.embedding(expert, self.bias).to(rows.dtype)


class Experts(nn.Module):
    """`count` MLPs of DiT (tanh GELU, 4 d wide), stacked so that each always has a gradient."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.fc1 = StackedLinear(count, width, 4 * width)
        self.fc2 = StackedLinear(count, 4 * width, width)


class RoutedExperts(Experts):
    """Each row passes one expert."""

    def forward(self, rows: Tensor, expert: Tensor, ends: Tensor) -> Tensor:
        """rows "r d", sorted by their `expert` "r" -> "r d", in the precision of autocast."""
        rows = rows.to(_compute_dtype(rows))
        if rows.device.type in GROUPED_DEVICES and rows.dtype != torch.float64:
            hidden = F.gelu(self.fc1(rows, expert, ends), approximate="tanh")
            return self.fc2(hidden, expert, ends)
        fc1, fc2 = self.fc1, self.fc2
        return expert_loop(rows, (fc1.weight, fc1.bias), (fc2.weight, fc2.bias), ends)


class SharedExperts(Experts):
    """Each token passes every expert; the sum of their outputs is that of one wide MLP."""

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens "n d" -> "n d"."""
        hidden = F.linear(tokens, self.fc1.weight.flatten(0, 1), self.fc1.bias.flatten())
        weight = rearrange(self.fc2.weight, "e d h -> d (e h)")
        return F.linear(F.gelu(hidden, approximate="tanh"), weight, self.fc2.bias.sum(dim=0))


class MoE(nn.Module):
    """x "b n d" -> "b n d": the weighted sum of the `active` likeliest of the experts, per token.

    renormalise: divide the weights of the chosen experts by their sum. The paper does not.
    shared: experts that every token passes besides, unweighted.

    After a forward pass `usage` (int "b e") holds the slots of each sample that each expert served
    and `mass` (float "e"), with gradient, the slots that it would have served in expectation: the
    sum of its probabilities, times the experts active per token.
    """

    def __init__(
        self, width: int, experts: int, active: int, shared: int = 0, renormalise: bool = False
    ) -> None:
        super().__init__()
        assert 1 <= active <= experts and width % 8 == 0, "rows of 16 bytes, also in bfloat16"
        self.active, self.renormalise = active, renormalise
        # torch's default start, U(-1, 1) / sqrt(d), as published: on normalised tokens the logits
        # have a deviation of 1 / sqrt(3) at any width, so models of all sizes start as undecided.
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = RoutedExperts(experts, width)
        self.shared = SharedExperts(shared, width) if shared else None
        self.mass: Tensor | None = None
        self.usage: Tensor | None = None

    @property
    def balance(self) -> Tensor | None:
        """The load-balance loss of the latest forward pass in training: a scalar, 1 when even."""
        if self.mass is None or self.usage is None:
            return None
        served = self.usage.sum(dim=0)
        return balance_of(self.mass[None, None], served[None, None])

    @property
    def idle_parameters(self) -> int:
        """Parameters that a token does not pass: those of the experts not chosen for it."""
        count = self.gate.out_features
        every = sum(p.numel() for p in self.experts.parameters())
        return every // count * (count - self.active)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        probability = self._probability(tokens)
        weight, expert = probability.topk(self.active, dim=-1)
        if self.renormalise:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        self._note(probability, expert.view(len(x), -1))
        expert, slot = expert.flatten().sort(stable=True)
        number = torch.arange(probability.shape[1], device=x.device)
        ends = torch.searchsorted(expert, number, right=True, out_int32=True)
        token = slot // self.active
        rows = self.experts(tokens.index_select(0, token), expert, ends)
        rows = rows * weight.flatten().index_select(0, slot)[:, None]
        y = torch.zeros_like(tokens, dtype=rows.dtype).index_add(0, token, rows).to(x.dtype)
        return (y if self.shared is None else y + self.shared(tokens)).view_as(x)

    def _probability(self, tokens: Tensor) -> Tensor:
        """Softmax over the experts, "n e"; at least float32, as bfloat16 swaps close experts."""
        dtype = torch.promote_types(tokens.dtype, torch.float32)
        with _without_autocast(tokens.device.type):
            return F.linear(tokens.to(dtype), self.gate.weight.to(dtype)).softmax(dim=-1)

    def _note(self, probability: Tensor, expert: Tensor) -> None:
        """From probabilities "n e" and the chosen experts "b slots" set `usage` and `mass`."""
        served = expert.new_zeros(len(expert), probability.shape[1])
        self.usage = served.scatter_add_(1, expert, torch.ones_like(expert))
        self.mass = self.active * probability.sum(dim=0) if self.training else None


def balance_of(mass: Tensor, served: Tensor) -> Tensor:
    """The part that some tokens have in the load-balance loss of a batch, summed over the layers.

    mass: of those tokens, with gradient; served: slots that each expert served, of all tokens of
    the batch in all processes; both "calls layers e". Per call and layer e times the sum of mean
    probability x share of slots (Switch, equations 4 to 6, without their coefficient; the share has
    no gradient), averaged over calls by their slots: the parts of a batch's tokens add up to what
    the batch would have in one piece.
    """
    served = served.float()
    slots = served.sum(dim=-1, keepdim=True)
    every = slots.sum(dim=0).clamp_min(1)
    return mass.shape[-1] * (mass * served / (slots.clamp_min(1) * every)).sum()


def routing(net: nn.Module) -> tuple[Tensor, Tensor] | None:
    """`mass` and slots served of the latest forward pass in training, both "layers e", first block
    first; None for a network without experts."""
    layers = [moe for moe in _layers(net) if moe.mass is not None and moe.usage is not None]
    if not layers:
        return None
    mass, usage = zip(*((moe.mass, moe.usage.sum(dim=0)) for moe in layers))  # type: ignore[union-attr]
    return torch.stack(mass), torch.stack(usage)


def balance_loss(net: nn.Module) -> Tensor:
    """The load-balance losses of the latest forward pass in training, summed over the blocks.

    A scalar; zero for a network without experts, or in evaluation.
    """
    return sum((moe.balance for moe in _layers(net) if moe.balance is not None), torch.zeros(()))


def expert_usage(net: nn.Module) -> Tensor | None:
    """Slots of each sample that each expert served in the latest forward pass, int "layers b e",
    first block first.

    None for a network without experts, or before its first pass. Added up by the samples' task they
    show which experts a task uses.
    """
    usage = [moe.usage for moe in _layers(net) if moe.usage is not None]
    return torch.stack(usage) if usage else None


def _layers(net: nn.Module) -> Iterator[MoE]:
    return (module for module in net.modules() if isinstance(module, MoE))


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What autocast would compute in: grouped products, unlike linear maps, are not in its list."""
    kind = x.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if autocast else x.dtype


def _without_autocast(kind: str) -> AbstractContextManager[object]:
    """Autocast switched off on a device of this `kind`, if it (unlike "meta") has any."""
    available = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if available else nullcontext()
