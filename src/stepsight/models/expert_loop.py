"""Experts one after the other, as one operator: the way of a CPU.

An expert's rows stay in the cache between its two products, its weights are cast just before they
are used, and its gradients are written to their place in those of the stack. Left to autograd, a
loop over `weight.unbind()` keeps all casts, and casts, stacks and copies all gradients, which takes
as long as the products where experts are many. As an operator it is counted, compiled and traced
without data like any other, although the host reads how many rows each expert has.

Shapes: r rows, d width, h hidden width, e experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

Layer = tuple[Tensor, Tensor]  # weights "e out in", biases "e out"


def expert_loop(rows: Tensor, fc1: Layer, fc2: Layer, ends: Tensor) -> Tensor:
    """rows "r d" -> "r d": row by row the MLP (tanh GELU) of its expert, in the rows' precision.

    ends: int "e", increasing; expert e has the rows from ends[e - 1] up to ends[e], all of them
    together every row. Gradients have no gradients of their own.
    """
    given = (rows, *fc1, *fc2)
    keep = torch.is_grad_enabled() and any(one.requires_grad for one in given)
    return _forward(*given, ends, keep)[0]


@torch.library.custom_op("stepsight::expert_loop", mutates_args=())
def _forward(
    rows: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, ends: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer "r d" and, to `keep` for the backward pass, what goes into the GELU and what comes
    out of it: "r h" each, else without rows."""
    out, groups = torch.empty_like(rows), list(_groups(ends))
    room = len(rows) if keep else max(group.stop - group.start for group in groups)
    before, after = (rows.new_empty(room, w1.shape[1]) for _ in range(2))
    b1, b2 = b1.to(rows.dtype), b2.to(rows.dtype)
    for e, group in enumerate(groups):
        if group.start == group.stop:
            continue
        place = group if keep else slice(group.stop - group.start)
        torch.addmm(b1[e], rows[group], w1[e].to(rows.dtype).T, out=before[place])
        torch.ops.aten.gelu.out(before[place], approximate="tanh", out=after[place])
        torch.addmm(b2[e], after[place], w2[e].to(rows.dtype).T, out=out[group])
    return (out, before, after) if keep else (out, rows.new_empty(0, 1), rows.new_empty(0, 1))


@torch.library.custom_op("stepsight::expert_loop_backward", mutates_args=())
def _backward(
    grad: Tensor, rows: Tensor, before: Tensor, after: Tensor, w1: Tensor, w2: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of rows, w1, b1, w2 and b2; those of an expert without rows are zero."""
    to_rows, to_w1, to_w2 = torch.empty_like(rows), torch.empty_like(w1), torch.empty_like(w2)
    to_b1, to_b2 = w1.new_empty(w1.shape[:2]), w2.new_empty(w2.shape[:2])
    for e, group in enumerate(_groups(ends)):
        g = grad[group]
        _layer_gradients(g, after[group], to_w2[e], to_b2[e])
        g = g @ w2[e].to(g.dtype)
        g = torch.ops.aten.gelu_backward(g, before[group], approximate="tanh")
        _layer_gradients(g, rows[group], to_w1[e], to_b1[e])
        torch.mm(g, w1[e].to(g.dtype), out=to_rows[group])
    return to_rows, to_w1, to_b1, to_w2, to_b2


def _layer_gradients(g: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Set those of a layer that was given x "r i" and whose answer has the gradient g "r o"; rows
    are summed in the bias's own precision."""
    torch.sum(g, dim=0, dtype=bias.dtype, out=bias)
    if g.dtype == weight.dtype:
        torch.mm(g.T, x, out=weight)
    else:
        weight.copy_(g.T @ x)


def _groups(ends: Tensor) -> Iterator[slice]:
    """The rows of each expert."""
    start = 0
    for end in ends.tolist():
        yield slice(start, end)
        start = end


@_forward.register_fake
def _(rows, w1, b1, w2, b2, ends, keep):
    shape = (len(rows), w1.shape[1]) if keep else (0, 1)
    return torch.empty_like(rows), rows.new_empty(shape), rows.new_empty(shape)


@_backward.register_fake
def _(grad, rows, before, after, w1, w2, ends):
    to_b1, to_b2 = (w.new_empty(w.shape[:2]) for w in (w1, w2))
    return torch.empty_like(rows), torch.empty_like(w1), to_b1, torch.empty_like(w2), to_b2


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, w1, _, w2, _, ends, _ = inputs
    ctx.set_materialize_grads(False)  # what is kept has none
    ctx.save_for_backward(rows, *output[1:], w1, w2, ends)


def _gradients(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    found = (None,) * 5 if grad is None else _backward(grad, *ctx.saved_tensors)
    return *found, None, None


_forward.register_autograd(_gradients, setup_context=_set_up)


OPERATOR: Any = torch.ops.stepsight.expert_loop.default


@register_flop_formula(torch.ops.stepsight.expert_loop)
def _flops(rows: Sequence[int], w1: Sequence[int], *_: object, **__: object) -> int:
    """Two products, "r d, d h" and "r h, h d"."""
    return 4 * rows[0] * rows[1] * w1[1]


@register_flop_formula(torch.ops.stepsight.expert_loop_backward)
def _backward_flops(grad: Sequence[int], *args: Sequence[int], **_: object) -> int:
    """Of each product two."""
    return 8 * grad[0] * grad[1] * args[3][1]
