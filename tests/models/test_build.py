"""From a name to a network: the size table, what is refused, and the codec of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepsight.errors import UserError
from stepsight.models.build import activation_bytes, build, check_size, count_flops
from stepsight.models.codec import Pixels
from stepsight.models.config import (
    DIT,
    HOURGLASS,
    NAMES,
    PATCHES,
    DiTSize,
    HourglassSize,
    ModelSettings,
    parse,
)

CHANNELS = dict(target_channels=2, cond_channels=6, labels=3)


def test_every_name_is_a_row():
    assert len(NAMES) == len(set(NAMES)) == len(HOURGLASS) + len(DIT) * len(PATCHES)
    for name in NAMES:
        kind = HourglassSize if name in HOURGLASS else DiTSize
        assert isinstance(parse(name), kind), name
    assert parse("DiT-S/4") == DiTSize(384, 12, 6, patch=4)


@pytest.mark.parametrize("name", [*HOURGLASS, "DiT-Ti/2", "DiT-a6/8"])
def test_every_row_builds(name):
    with torch.device("meta"):
        net = build(ModelSettings(name=name), **CHANNELS)
    assert next(net.parameters()).is_meta and int(net.stride) > 1  # type: ignore[arg-type]


def test_hourglass_rows_are_in_shape():
    for name, size in HOURGLASS.items():
        assert len(size.channels) == len(size.down) == len(size.up), name
        assert size.width % size.heads == 0 and size.width % 4 == 0, name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hourglas-64", "hourglass-64"),
        ("DiT-S", "DiT-S/"),
        ("DiT-S/02", "DiT-S/2"),
        ("DiT-S/²", "DiT-S/"),
        ("DiT-S/3", "DiT-S/"),
        ("DiT-XXL/2", "DiT-XL/2"),
        ("DiT-S/", "DiT-S/"),
        ("DiT-S/-2", "DiT-S/"),
        ("", "Choose from"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, meant):
    with pytest.raises(UserError, match=f"model.name '{name}' is unknown.*{meant}"):
        build(ModelSettings(name=name), **CHANNELS)


def test_a_setting_that_means_nothing_for_a_backbone_is_refused():
    with pytest.raises(UserError, match="model.qk_norm is for DiT"):
        build(ModelSettings(name="hourglass-32", qk_norm=True), **CHANNELS)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((16, 20), "W=20 .* multiple of 8.* Use 16 or 24"),
        ((63, 64), "H=63 .* Use 56 or 64"),
        ((3, 8), "H=3 .* Use 8 or 16"),
        ((0, 8), "H=0 .* Use 8 or 16"),
        ((8, -8), "W=-8 .* Use 8 or 16"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_both_neighbours(size, said):
    net = build(ModelSettings(name="hourglass-32"), **CHANNELS)
    with pytest.raises(UserError, match=f"data.x.size: {said}"):
        check_size(net, size, "data.x.size")
    check_size(net, (8, 24), "data.x.size")


def test_the_counters_on_a_network_counted_by_hand():
    """A map of 3 x 5 for 7 rows: 2 * 7 * 3 * 5 FLOPs, and it is kept for its square's gradient."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.map(x).square().sum()

    assert count_flops(Small, (torch.zeros(7, 3),)) == 210
    assert activation_bytes(Small, (torch.zeros(7, 3),)) == 4 * (7 * 3 + 7 * 5)


def test_pixels_are_coded_as_they_are():
    codec, x = Pixels(), torch.randn(2, 3, 4, 4)
    assert codec.decode(codec.encode(x)) is x
    assert codec.channels(5) == 5 and codec.downsample == 1
    valid = x[:, :1] > 0
    assert codec.mask(valid) is valid
