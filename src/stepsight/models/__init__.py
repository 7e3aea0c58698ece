"""Backbones and codecs: plain maps that know channels and an integer label, never a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def build(
    name: str,
    *,
    in_channels: int,
    out_channels: int,
    input_size: int | tuple[int, int],
    labels: int = 1000,
    **settings: Any,
) -> nn.Module:
    """The backbone called `name`, for use outside a run: (x, cond, time, label) -> "b c h w".

    in_channels: channels of the noisy target and the condition together.
    out_channels: channels of the output; the condition has the remaining in_channels. More than
        in_channels, or with learned_variance=True, half of them are a learned variance.
    input_size: side, or height and width, of the grid it is meant for; any other that is a multiple
        of its stride works as well.
    labels: task or class rows, besides the null row.
    settings: further fields of `ModelSettings`, such as input="per_task".
    Raises UserError for an unknown name or an impossible size.
    """
    from stepsight.errors import UserError
    from stepsight.models.config import ModelSettings
    from stepsight.models.factory import build as build_from
    from stepsight.models.factory import check_size

    learned = settings.setdefault("learned_variance", out_channels > in_channels)
    target = out_channels // 2 if learned else out_channels
    if not 0 < target <= in_channels or (learned and out_channels % 2):
        raise UserError(
            f"in_channels={in_channels}, out_channels={out_channels}: no such backbone."
        )
    net = build_from(
        ModelSettings(name=name, **settings),
        target_channels=target,
        cond_channels=in_channels - target,
        labels=labels,
    )
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    check_size(net, size, f"input_size of {name}")
    return net
