"""From a name to a network: the size table, what is refused, and the codec of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepsight import models
from stepsight.errors import UserError
from stepsight.models.activations import activation_bytes
from stepsight.models.codec import Pixels
from stepsight.models.config import (
    CUSTOM_UNET,
    DIT,
    NAMES,
    PATCHES,
    SPLIT,
    UNET,
    DiTSize,
    ModelSettings,
    SplitSize,
    UNetSize,
    parse,
)
from stepsight.models.factory import build, check_size, count_flops

CHANNELS = dict(target_channels=2, cond_channels=6, labels=3)


def test_every_name_is_a_row():
    dense = [f"{base}/{patch}" for base in DIT for patch in PATCHES]
    assert set(NAMES) >= {*SPLIT, *UNET, *dense, CUSTOM_UNET}
    assert len(NAMES) == len(set(NAMES))
    kinds = dict.fromkeys(SPLIT, SplitSize) | dict.fromkeys(UNET, UNetSize)
    for name in set(NAMES) - {CUSTOM_UNET}:
        assert isinstance(parse(name), kinds.get(name, DiTSize)), name
    assert parse(CUSTOM_UNET) is None  # its row is a diffusers configuration
    assert parse("DiT-S/4") == DiTSize(384, 12, 6, patch=4)


def test_experts_are_part_of_the_name():
    assert parse("DiT-S/4-8E2A") == DiTSize(384, 12, 6, patch=4, experts=8, active=2)
    assert parse("DiT-Ti/8-16E16A") == DiTSize(64, 3, 2, patch=8, experts=16, active=16)
    for name in ("DiT-S/4-8E9A", "DiT-S/4-8E0A"):
        with pytest.raises(UserError, match="experts cannot be active"):
            parse(name)
    with pytest.raises(UserError, match="is unknown"):
        parse("split-32-8E2A")


@pytest.mark.parametrize("name", [*SPLIT, *UNET, "DiT-Ti/2", "DiT-a6/8", "DiT-Ti/8-4E2A"])
def test_every_row_builds(name):
    with torch.device("meta"):
        net = build(ModelSettings(name=name), **CHANNELS)
    assert next(net.parameters()).is_meta and int(net.stride) >= 1  # type: ignore[arg-type]


def test_a_backbone_of_earlier_versions_is_named_as_such():
    with pytest.raises(UserError, match="no hourglass backbone any more. Train split-32 in its"):
        build(ModelSettings(name="hourglass-64"), **CHANNELS)
    build(ModelSettings(name="split-32"), **CHANNELS)  # as it is advised


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("splitt-32", "split-32"),
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


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("split-32", {"qk_norm": True}, "model.qk_norm is for DiT"),
        ("split-32", {"learned_variance": True}, "model.learned_variance is for DiT"),
        ("unet-tiny", {"position_grid": (4, 4)}, "model.position_grid is for DiT"),
        ("unet", {"shared_experts": 1, "unet": "{}"}, "model.shared_experts needs a mixture"),
        ("DiT-S/2", {"shared_experts": 1}, "needs a mixture of experts, such as DiT-XL/2-8E2A"),
        ("unet-tiny", {"input": "per_task"}, "per_task is for DiT backbones, not 'unet-tiny'"),
        ("split-32", {"input": "per_task"}, "per_task is for DiT backbones, not 'split-32'"),
        ("DiT-S/2", {"unet": "{}"}, "model.unet describes model.name 'unet', not 'DiT-S/2'"),
    ],
)
def test_a_setting_that_means_nothing_for_a_backbone_is_refused(name, options, said):
    with pytest.raises(UserError, match=said):
        build(ModelSettings(name=name, **options), **CHANNELS)


def test_a_unet_takes_no_features():
    with pytest.raises(UserError, match="set tasks.flow.cost_volume to False"):
        build(ModelSettings(name="unet-tiny"), **CHANNELS, feature_channels=9)


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
    net = build(ModelSettings(name="split-8"), **CHANNELS)
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
    assert codec.encode(x) is x
    assert torch.equal(codec.decode(x, 3), x) and torch.equal(codec.decode(x, 2), x[:, :2])
    assert codec.channels(5) == 5 and codec.downsample == 1
    valid = x[:, :1] > 0
    assert codec.mask(valid) is valid


# ---------------------------------------------------------------------------- outside a run


def public(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, **options)


def test_the_published_dit_has_its_published_size():
    """DiT-XL/2 at 256 x 256, of which 256 positions are a fixed table there and none is here."""
    net = public("DiT-XL/2", in_channels=4, out_channels=8, input_size=32, labels=1000)
    own = sum(p.numel() for p in net.parameters())
    assert own + 256 * 1152 == 675_129_632
    assert net.final_layer.linear.out_features == 2 * 2 * 8  # type: ignore[union-attr]


def test_channels_beyond_the_target_are_the_condition():
    net = models.build("DiT-Ti/4", in_channels=7, out_channels=1, input_size=(8, 16), labels=2)
    x, time = torch.randn(2, 1, 8, 16), torch.tensor([0.1, 0.9])
    out = net(x, torch.randn(2, 6, 8, 16), time, torch.tensor([0, 2]))  # row 2 is the null row
    assert out.shape == (2, 1, 8, 16)


@pytest.mark.parametrize(
    ("channels", "options", "target"),
    [((4, 8), {}, 4), ((8, 4), {}, 4), ((8, 8), {"learned_variance": True}, 4), ((4, 4), {}, 4)],
)
def test_outputs_may_hold_a_variance(channels, options, target):
    inputs, outputs = channels
    net = public("DiT-Ti/2", in_channels=inputs, out_channels=outputs, input_size=8, **options)
    parts = [torch.empty(1, one, 8, 8, device="meta") for one in (target, inputs - target)]
    label = torch.zeros(1, dtype=torch.long, device="meta")
    assert net(*parts, torch.empty(1, device="meta"), label).shape == (1, outputs, 8, 8)


@pytest.mark.parametrize(
    ("inputs", "outputs", "options"),
    [(4, 0, {}), (4, 10, {}), (0, 1, {}), (3, 5, {"learned_variance": False})],
)
def test_impossible_channels_are_refused(inputs, outputs, options):
    with pytest.raises(UserError, match=f"in_channels={inputs}, out_channels={outputs}: no such"):
        public("DiT-Ti/2", in_channels=inputs, out_channels=outputs, input_size=8, **options)


def test_an_odd_number_of_outputs_with_a_variance_is_refused():
    with pytest.raises(UserError, match="in_channels=4, out_channels=7"):
        public("DiT-Ti/2", in_channels=4, out_channels=7, input_size=8)


@pytest.mark.parametrize(("size", "said"), [(30, "H=30 .* 28 or 32"), ((32, 33), "W=33")])
def test_impossible_sizes_are_refused(size, said):
    with pytest.raises(UserError, match=f"input_size of DiT-Ti/4: {said}"):
        public("DiT-Ti/4", in_channels=4, out_channels=4, input_size=size)


def test_further_settings_reach_the_backbone():
    net = public(
        "DiT-Ti/2-4E2A", in_channels=8, out_channels=4, input_size=8, labels=3, input="per_task"
    )
    names = {name for name, _ in net.named_parameters()}
    assert "blocks.0.moe.gate.weight" in names
    assert net.x_embedder.proj.weight.shape[0] == 3  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="unexpected keyword"):
        public("DiT-Ti/2", in_channels=4, out_channels=4, input_size=8, depth=3)
