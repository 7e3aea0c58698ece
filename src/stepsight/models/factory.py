"""From a name to a network, and what is known of it before it is built.

`build` is the one place that knows which class a row of the size table needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stepsight.errors import UserError
from stepsight.models.config import AddedModel, DiTSize, ModelSettings, SplitSize, UNetSize, parse
from stepsight.models.parametrisation import base_of, parametrise


def build(
    settings: ModelSettings,
    *,
    target_channels: int,
    cond_channels: int,
    labels: int,
    feature_channels: int = 0,
    looked_channels: int = 0,
    picture_channels: int = 3,
    used: Sequence[int] = (),
) -> nn.Module:
    """The backbone of `settings`: (x, cond, time, label, features) -> "b c h w".

    target_channels: channels of the noisy target and of the output.
    cond_channels: channels of the condition images, concatenated.
    labels: task rows; a null row is added.
    looked_channels, picture_channels, used: of backbones that look again at every call, that read
    the picture apart, and that leave the channels of other tasks aside (`models.split`).
    Raises UserError for an unknown name.
    """
    size = parse(settings.name)
    _check_options(settings, size, feature_channels)
    channels: dict[str, Any] = dict(
        target_channels=target_channels,
        cond_channels=cond_channels,
        labels=labels,
        feature_channels=feature_channels,
    )
    further: dict[str, Any] = dict(
        looked_channels=looked_channels, picture_channels=picture_channels, used=used
    )
    if isinstance(size, AddedModel):
        net = size.build(settings, **channels, **further)
        return net if hasattr(net, "encode") else Plain(net)
    if size is None or isinstance(size, UNetSize):
        from stepsight.models.unet import build_unet  # diffusers: only when a U-Net is chosen

        return build_unet(settings, size, target_channels, cond_channels, labels)
    net = _transformer(settings, size, channels, further)
    if settings.parametrisation == "mup":
        with torch.device("meta"):
            base = _transformer(settings, base_of(size), channels, further)
        parametrise(net, base)
    return net


def _transformer(
    settings: ModelSettings,
    size: DiTSize | SplitSize,
    channels: dict[str, Any],
    further: dict[str, Any],
) -> nn.Module:
    if isinstance(size, SplitSize):
        from stepsight.models.split import Split

        return Split(size, gate_init=settings.gate_init, **channels, **further)
    from stepsight.models.dit import DiT  # timm: only when a DiT is chosen

    return DiT(
        size,
        routed=settings.input == "per_task",
        gate_init=settings.gate_init,
        qk_norm=settings.qk_norm,
        learned_variance=settings.learned_variance,
        expert_weights=settings.expert_weights,
        shared_experts=settings.shared_experts,
        position_grid=settings.position_grid,
        **channels,
    )


class Plain(nn.Module):
    """A network that reads its condition anew at each call, with the `encode` of the others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.stride = net, net.stride

    def encode(self, cond: Tensor, label: Tensor, *_: Tensor | None) -> tuple[Tensor, ...]:
        return (cond,)

    def forward(
        self,
        x: Tensor,
        cond: Tensor | tuple[Tensor, ...],
        time: Tensor,
        label: Tensor,
        *args: Any,
        **more: Any,
    ) -> Tensor:
        images = cond[0] if isinstance(cond, tuple) else cond
        return self.net(x, images, time.expand(len(x)), label.expand(len(x)), *args, **more)


def repeated_blocks(net: nn.Module) -> list[nn.Module]:
    """The blocks that a backbone or a VAE repeats, outermost first: members of the module lists
    that lie in no other. They are what sharding gathers, and recomputation reruns, at a time."""
    blocks: list[nn.Module] = []
    for module in net.children():
        inner = list(module) if isinstance(module, nn.ModuleList) else repeated_blocks(module)
        blocks += [one for one in inner if one is not None]  # diffusers leaves gaps
    return blocks


def _check_options(settings: ModelSettings, size: object, feature_channels: int) -> None:
    """Refuse an option that the chosen backbone would not read."""
    if not isinstance(size, DiTSize):
        for option in ("qk_norm", "learned_variance", "position_grid"):
            if getattr(settings, option) not in (False, 0, (0, 0)):
                raise UserError(f"model.{option} is for DiT backbones, not '{settings.name}'.")
    for option in ("shared_experts", "expert_weights"):
        usual = getattr(ModelSettings, option)
        if getattr(settings, option) != usual and not getattr(size, "experts", 0):
            raise UserError(f"model.{option} needs a mixture of experts, such as DiT-XL/2-8E2A.")
    if not isinstance(size, DiTSize) and settings.input == "per_task":
        raise UserError(f"model.input=per_task is for DiT backbones, not '{settings.name}'.")
    if settings.parametrisation == "mup" and not isinstance(size, DiTSize | SplitSize):
        raise UserError(
            f"model.parametrisation=mup is for DiT and split backbones: '{settings.name}' has no "
            "base model of the same shape, in units of which its rates could be. Use standard."
        )
    if feature_channels and (size is None or isinstance(size, UNetSize)):
        raise UserError(f"{settings.name} takes no features: set tasks.flow.cost_volume to False.")
    if settings.unet and size is not None:
        raise UserError(f"model.unet describes model.name 'unet', not '{settings.name}'.")


def check_size(net: nn.Module, size: tuple[int, int], where: str, downsample: int = 1) -> None:
    """Raise UserError unless both sides of `size` are positive multiples of the net's stride.

    downsample: pixels per working cell, where `size` counts pixels and a codec precedes the net.
    """
    stride = int(net.stride) * downsample  # type: ignore[arg-type]
    for name, value in zip("HW", size):
        if value % stride or value < 1:
            low = max(value // stride, 1) * stride
            of = "the backbone's stride" if downsample == 1 else "the backbone's and codec's stride"
            raise UserError(
                f"{where}: {name}={value} is not a multiple of {stride}, {of}. "
                f"Use {low} or {low + stride}."
            )


def parameter_groups(net: nn.Module) -> dict[str, int]:
    """Parameters by first component of their name; the values sum to the total."""
    groups: Counter[str] = Counter()
    for name, parameter in net.named_parameters():
        groups[name.split(".")[0]] += parameter.numel()
    return dict(groups)


def active_parameters(net: nn.Module) -> int:
    """Parameters that one sample passes: of routed experts, only those that are active."""
    idle = sum(getattr(module, "idle_parameters", 0) for module in net.modules())
    return sum(p.numel() for p in net.parameters()) - idle


def count_flops(factory: Callable[[], nn.Module], example: tuple[Any, ...]) -> int:
    """FLOPs (2 x MAC) of one forward pass, counted by torch on the meta device.

    Nothing is computed and no weight is allocated: the network is built anew without memory.
    """
    return sum(flops_by_group(factory, example).values())


def flops_by_group(factory: Callable[[], nn.Module], example: tuple[Any, ...]) -> dict[str, int]:
    """`count_flops` by first component of the module's name; what is in none is "other"."""
    with torch.device("meta"):
        net = factory()
    arguments = _on_meta(example)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*arguments)
    root = f"{type(net).__name__}."
    counts = {
        name.removeprefix(root): sum(operations.values())
        for name, operations in counter.get_flop_counts().items()
        if name.startswith(root)
    }
    groups: Counter[str] = Counter()
    for name, count in counts.items():
        parents = name.split(".")[:-1]
        if not any(".".join(parents[: i + 1]) in counts for i in range(len(parents))):
            groups[name.split(".")[0]] += count  # its parents have no count that holds it
    groups["other"] = counter.get_total_flops() - sum(groups.values())
    return {name: count for name, count in groups.items() if count}


def _on_meta(part: Any) -> Any:
    """A tensor without its memory; of a tuple, all that are in it."""
    if isinstance(part, tuple):
        return tuple(map(_on_meta, part))
    return None if part is None else part.to("meta")
