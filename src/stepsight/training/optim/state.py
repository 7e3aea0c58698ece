"""The state of optimizers as named tensors of a checkpoint, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from stepsight import checkpoint
from stepsight.checkpoint import Checkpoint, CheckpointError


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
