"""Muon: the momentum of a matrix, orthogonalised.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by
the nearest semi-orthogonal matrix, found by five Newton-Schulz steps, batched over matrices of
equal shape. Their products are in what the network computes in: bfloat16 in a run of lower
precision, float32 in one of float32, where bfloat16 would amplify a difference of 1e-7 between two
processes and one to about 1e-4.

The host does not wait: `found_inf`, a tensor that is 1 where an update is not to be made, is looked
at on the device (torch's own protocol for scaled losses).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stepsight.training.sharding import full, like, local

Shape = tuple[int, int]  # rows, columns of a matrix
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration
STEPS = (3, 2)  # of it, between which the Gram matrix is made anew


def orthogonalise(matrices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The semi-orthogonal matrices nearest to "n r c", roughly (singular values .7 to 1.2).

    dtype: of the products; None: that of the matrices.

    A step is x <- p x with p = a + b g + c g g and g = x x'. Since p and g commute, the next g is
    p g p, and x is multiplied once, by the product of all p: where a matrix is much wider than high
    that is half the work. Rounding of small singular values, which are squared in g, would be
    amplified from step to step: so g is made of x again after three, and the answer is as exact as
    that of the plain iteration.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)).to(dtype or matrices.dtype)
    a, b, c = NEWTON_SCHULZ
    for steps in STEPS:
        gram, product = x @ x.mT, None
        for left in reversed(range(steps)):
            p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            p.diagonal(dim1=-2, dim2=-1).add_(a)
            product = p if product is None else p @ product
            gram = p @ gram @ p if left else gram
        assert product is not None
        x = product @ x
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised; a convolution kernel counts as a matrix (outputs, the rest).

    dtype: of the products of `orthogonalise`. Gradients are used up by a step.
    """

    found_inf: Tensor | None = None  # float, 1 where the step is not to be made

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(params, defaults)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        made = 1.0 if self.found_inf is None else 1 - self.found_inf
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            self._look_ahead(params, group["momentum"])
            alike: dict[Shape, list[nn.Parameter]] = defaultdict(list)
            for p in params:
                alike[(p.shape[0], p[0].numel())].append(p)
            looks = {
                shape: torch.stack([full(_grad(p)).reshape(shape) for p in some])
                for shape, some in alike.items()
            }
            updates, lr = shared_out(looks, self.dtype), group["lr"]
            torch._foreach_mul_(local(params), 1 - lr * group["weight_decay"] * made)  # pyright: ignore[reportPrivateImportUsage]
            for shape, some in alike.items():
                rate = lr * math.sqrt(max(1.0, shape[0] / shape[1]))
                update = updates[shape].mul_(-rate * made)
                parts = [like(one.reshape(p.shape), p) for p, one in zip(some, update)]
                torch._foreach_add_(local(some), local(parts))  # pyright: ignore[reportPrivateImportUsage]

    def _look_ahead(self, params: list[nn.Parameter], momentum: float) -> None:
        """Turn gradients into Nesterov's momentum, in place."""
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        grads = local(p.grad for p in params if p.grad is not None)
        buffers = local(self.state[p]["momentum_buffer"] for p in params)
        if self.found_inf is not None:  # then the momentum stays what it is: numbers
            for grad, buffer in zip(grads, buffers):
                torch.where(self.found_inf.bool(), buffer, grad, out=grad)
        torch._foreach_lerp_(buffers, grads, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_lerp_(grads, buffers, momentum)  # pyright: ignore[reportPrivateImportUsage]


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def shared_out(
    looks: Mapping[Shape, Tensor], dtype: torch.dtype = torch.float32
) -> dict[Shape, Tensor]:
    """Every stack "n r c" orthogonalised; with several processes each does a share of the work.

    A stack is done whole by one of them, so that the numbers are those of a single process.
    """
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    if world == 1:
        return {shape: orthogonalise(stack, dtype) for shape, stack in looks.items()}
    work = {shape: stack.numel() * min(shape) for shape, stack in looks.items()}  # ~ its products
    load, owner = [0] * world, {}
    for shape in sorted(looks, key=lambda one: (-work[one], one)):
        owner[shape] = load.index(min(load))
        load[owner[shape]] += work[shape]
    parts = [
        orthogonalise(stack, dtype) if owner[shape] == rank else torch.zeros_like(stack)
        for shape, stack in looks.items()
    ]
    whole = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(whole)
    each = whole.split([stack.numel() for stack in looks.values()])
    return {shape: one.view_as(stack) for (shape, stack), one in zip(looks.items(), each)}
