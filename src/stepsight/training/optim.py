"""Optimisation: Muon for matrices, AdamW for the rest, learning rate by images seen, EMA.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by
the nearest semi-orthogonal matrix, found by five Newton-Schulz steps, batched over matrices of
equal shape. Their products are in what the network computes in: bfloat16 in a run of lower
precision, float32 in one of float32, where bfloat16 would amplify a difference of 1e-7 between two
processes and one to about 1e-4.

Neither optimizer makes the host wait: `found_inf`, a tensor that is 1 where an update is not to be
made, is looked at on the device (torch's own protocol for scaled losses).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.averages import decay_at
from stepsight.checkpoint import Checkpoint, CheckpointError
from stepsight.training.config import TrainingSettings
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
        params: Iterable[nn.Parameter],
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


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: inner matrices and kernels; not embeddings, inputs or outputs."""
    edges = ("label", "time", "input", "output", "y_embedder", "t_embedder", "x_embedder", "final")
    edges += ("conv_in", "conv_out", "class")  # of a U-Net, whose names are those of diffusers
    other = name.removeprefix("unet.").startswith(edges) or name.endswith(("bias", "gate.weight"))
    modulation = "modulation" in name or "adaLN" in name
    return parameter.ndim in (2, 4) and not other and not modulation


def build_optimizers(
    net: nn.Module, settings: TrainingSettings, precision: str = "float32"
) -> list[torch.optim.Optimizer]:
    """The optimizers of a run; their learning rates are set anew before each step. precision: what
    the network computes in."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if settings.optimizer == "muon" and is_matrix(name, p)]
    chosen = {id(p) for p in matrices}
    rest = [(name, p) for name, p in named if id(p) not in chosen]
    plain = [p for name, p in rest if p.ndim <= 1 or name.endswith("bias")]  # also stacked biases
    decay = [p for name, p in rest if p.ndim > 1 and not name.endswith("bias")]
    groups = [
        {"params": decay, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)
    if not matrices:
        return [adamw]
    how = settings.muon_lr, settings.muon_momentum, settings.weight_decay
    low = torch.float32 if precision == "float32" else torch.bfloat16  # which has float32's range
    return [adamw, Muon(matrices, *how, dtype=low)]


def rate(settings: TrainingSettings, images: int) -> float:
    """The factor on every learning rate after `images` images: warm-up, then decay."""
    warm = min(1.0, (images + settings.batch) / settings.warmup) if settings.warmup else 1.0
    done = min(1.0, images / settings.images)
    floor = settings.final_lr
    if settings.decay == "cosine":
        return warm * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
    if settings.decay == "exponential":
        return warm * floor**done
    return warm


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * factor


class EMA:
    """Exponential moving average of the parameters, in a dictionary by name.

    The decay warms up (`averages.decay_at`): an early average is one of weights that were trained.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, net: nn.Module, updates: int) -> None:
        current, averages = local(p.detach() for p in net.parameters()), local(self.values.values())
        decay = decay_at(self.decay, updates)
        torch._foreach_lerp_(averages, current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def load(self, weights: dict[str, Tensor], device: torch.device) -> None:
        """Take averaged weights from a checkpoint."""
        for name, value in self.values.items():
            value.copy_(like(weights[name].to(device), value))

    @torch.no_grad()
    def swap(self, net: nn.Module) -> None:
        """Exchange the network's parameters with the average: call it twice to come back."""
        for name, p in net.named_parameters():
            held = self.values[name].clone()
            self.values[name].copy_(p)
            p.copy_(held)


def pack_optimizers(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Optimizer state as named tensors `<optimizer>.<parameter>.<slot>`."""
    return {
        f"{which}.{index}.{slot}": torch.as_tensor(value)
        for which, optimizer in enumerate(optimizers)
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def load_optimizers(optimizers: list[torch.optim.Optimizer], saved: Checkpoint) -> None:
    """The optimizer state of a checkpoint, of which a process reads what its parameters need."""
    tensors = {
        name: _room(optimizers, name, shape)
        for name, shape in saved.shapes(checkpoint.OPTIMIZER).items()
    }
    if tensors:
        checkpoint.load_into(tensors, saved.path / checkpoint.OPTIMIZER)
    unpack_optimizers(optimizers, tensors, saved.path)


def _room(optimizers: list[torch.optim.Optimizer], name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor for a slot, sharded as its parameter is where it has its shape."""
    which, index, _ = name.split(".")
    params = [p for group in optimizers[int(which)].param_groups for p in group["params"]]
    fits = int(index) < len(params) and tuple(params[int(index)].shape) == shape
    return torch.empty_like(params[int(index)]) if fits else torch.empty(shape)


def unpack_optimizers(
    optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor], where: str | Path
) -> None:
    """The inverse of `pack_optimizers`. Raises CheckpointError for the state of other optimizers.

    A parameter that no batch has touched yet has no state, here as there. State is laid out in
    memory as its parameter is: fused optimizers walk through both without looking at strides.
    """
    for which, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            owner, index, slot = name.split(".")
            if int(owner) == which:
                state.setdefault(int(index), {})[slot] = value
        params = [p for group in optimizer.param_groups for p in group["params"]]
        if not state or not all(_fits(params, *entry) for entry in state.items()):
            raise CheckpointError(
                f"{where}/{checkpoint.OPTIMIZER} holds the state of other optimizers. "
                f"Continue with the optimizer it was trained with, or use --init-from."
            )
        for index, slots in state.items():
            state[index] = {slot: _laid_out(value, params[index]) for slot, value in slots.items()}
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def _fits(params: list[Tensor], index: int, slots: dict[str, Tensor]) -> bool:
    """Whether slots (shaped as their parameter, or a count of steps) belong to a parameter."""
    shapes = {(), tuple(params[index].shape)} if index < len(params) else set()
    return all(tuple(value.shape) in shapes for value in slots.values())


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    """`value` with the strides of `like` where it has its shape."""
    return torch.empty_like(like).copy_(value) if value.shape == like.shape else value
