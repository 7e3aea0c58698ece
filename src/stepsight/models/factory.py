"""From a name to a network, and what can be said of it before it is built.

`build` is the one place that knows which class a row of the size table needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stepsight.errors import UserError
from stepsight.models.config import DiTSize, ModelSettings, parse


def build(
    settings: ModelSettings,
    *,
    target_channels: int,
    cond_channels: int,
    labels: int,
    feature_channels: int = 0,
) -> nn.Module:
    """The backbone of `settings`: (x, cond, time, label, features) -> "b c h w".

    target_channels: channels of the noisy target and of the output.
    cond_channels: channels of the condition images, concatenated.
    labels: task rows; a null row is added.
    Raises UserError for an unknown name.
    """
    size = parse(settings.name)
    shared = dict(
        target_channels=target_channels,
        cond_channels=cond_channels,
        labels=labels,
        feature_channels=feature_channels,
        routed=settings.input == "per_task",
        gate_init=settings.gate_init,
    )
    if isinstance(size, DiTSize):
        from stepsight.models.dit import DiT  # timm: only when a DiT is chosen

        return DiT(size, qk_norm=settings.qk_norm, **shared)  # type: ignore[arg-type]
    from stepsight.models.hourglass import Hourglass

    if settings.qk_norm:
        raise UserError(f"model.qk_norm is for DiT backbones; '{settings.name}' has none.")
    return Hourglass(size, **shared)  # type: ignore[arg-type]


def check_size(net: nn.Module, size: tuple[int, int], where: str) -> None:
    """Raise UserError unless both sides of `size` are positive multiples of the net's stride."""
    stride = int(net.stride)  # type: ignore[arg-type]
    for name, value in zip("HW", size):
        if value % stride or value < 1:
            low = max(value // stride, 1) * stride
            raise UserError(
                f"{where}: {name}={value} is not a multiple of {stride}, the backbone's stride. "
                f"Use {low} or {low + stride}."
            )


def parameter_groups(net: nn.Module) -> dict[str, int]:
    """Parameters by first component of their name; the values sum to the total."""
    groups: Counter[str] = Counter()
    for name, parameter in net.named_parameters():
        groups[name.split(".")[0]] += parameter.numel()
    return dict(groups)


def count_flops(factory: Callable[[], nn.Module], example: tuple[Tensor | None, ...]) -> int:
    """FLOPs (2 x MAC) of one forward pass, counted by torch on the meta device.

    Nothing is computed and no weight is allocated: the network is built anew without memory.
    """
    with torch.device("meta"):
        net = factory()
    arguments = [None if part is None else part.to("meta") for part in example]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*arguments)
    return counter.get_total_flops()


def activation_bytes(factory: Callable[[], nn.Module], example: tuple[Tensor | None, ...]) -> int:
    """Bytes that one forward pass keeps for its backward pass, each storage counted once."""
    with torch.device("meta"):
        net = factory()
    arguments = [None if part is None else part.to("meta") for part in example]
    weights = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = net(*arguments)  # noqa: F841  keeps the storages alive, so that none is counted twice
    return sum(kept.values())
