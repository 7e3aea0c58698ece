"""A condition embedded once answers as the published networks, which read it beside the target."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stepsight.models.config import ModelSettings
from stepsight.models.dit import DiT
from stepsight.models.factory import build
from stepsight.models.layers import RoutedConv2d, SplitConv2d, position_table
from stepsight.models.unet import ClassUNet, TextUNet

TARGET, COND, LABELS, FEATURES, ROWS, SIZE = 3, 6, 4, 9, 5, (8, 16)
BOUNDS = {torch.float32: 1e-6, torch.float64: 1e-12}  # of the error, relative to the answer
TEXT = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "cross_attention_dim": 6,
    "conv_in_kernel": 5,
}


class Case(NamedTuple):
    """A backbone, its channels of condition and features, and what reading the condition costs."""

    name: str
    settings: dict[str, Any]
    cond: int
    features: int
    share: int  # multiply-adds a condition channel and sample

    def make(self, dtype: torch.dtype = torch.float64) -> Any:
        torch.manual_seed(0)
        net = build(
            ModelSettings(name=self.name, **self.settings),
            target_channels=TARGET,
            cond_channels=self.cond,
            labels=LABELS,
            feature_channels=self.features,
        )
        for p in net.parameters():  # no weight at zero, so that everything has an effect
            p.data += 0.05 * torch.randn_like(p)
        return net.to(dtype).eval().requires_grad_(False)

    def inputs(self, dtype: torch.dtype = torch.float64) -> Inputs:
        draw = torch.Generator().manual_seed(7)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw).to(dtype)

        volume = noise(ROWS, self.features, SIZE[0] // 2, SIZE[1] // 2) if self.features else None
        x, cond, time = noise(ROWS, TARGET, *SIZE), noise(ROWS, self.cond, *SIZE), noise(ROWS).abs()
        return Inputs(x, cond, time, torch.arange(ROWS), volume)


class Inputs(NamedTuple):
    """What a backbone is called with; the last row's label is the null row."""

    x: Tensor
    cond: Tensor
    time: Tensor
    label: Tensor
    features: Tensor | None


CELLS, WIDTH = SIZE[0] * SIZE[1], 64
ROUTED = {"input": "per_task"}
CASES = {
    "dit": Case("DiT-Ti/2", {}, COND, 0, WIDTH * CELLS),
    "dit of 4": Case("DiT-Ti/4", {"position_grid": (3, 3)}, COND, 0, WIDTH * CELLS),
    "dit, features": Case("DiT-Ti/2", {}, COND, FEATURES, WIDTH * CELLS),
    "dit, routed": Case("DiT-Ti/2", ROUTED, COND, 0, WIDTH * CELLS),
    "dit, routed, features": Case("DiT-Ti/2", ROUTED, COND, FEATURES, WIDTH * CELLS),
    "dit, variance": Case("DiT-Ti/2", {"learned_variance": True}, COND, 0, WIDTH * CELLS),
    "dit, no condition": Case("DiT-Ti/2", {}, 0, 0, 0),
    "dit, routed, no condition": Case("DiT-Ti/2", ROUTED, 0, 0, 0),
    "experts": Case("DiT-Ti/2-4E2A", {"shared_experts": 1}, COND, 0, WIDTH * CELLS),
    "unet, text": Case("unet", {"unet": json.dumps(TEXT)}, COND, 0, 0),
    "unet, text, no condition": Case("unet", {"unet": json.dumps(TEXT)}, 0, 0, 0),
    "unet, classes": Case("unet-tiny", {}, COND, 0, 0),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FEATURED = {name: case for name, case in CASES.items() if case.features}


def concatenated(net: nn.Module, given: Inputs) -> Tensor:
    """The published forward pass: one convolution over target and condition together."""
    if isinstance(net, DiT):
        return _dit(net, given)
    assert isinstance(net, (TextUNet, ClassUNet))
    kind: Any = type(net.unet)
    peer = kind(**{k: v for k, v in net.unet.config.items() if not k.startswith("_")})
    peer.load_state_dict(net.unet.state_dict())
    told = net.prompt[given.label] if isinstance(net, TextUNet) else given.label
    images = torch.cat([given.cond, given.x], dim=1)
    with torch.no_grad():
        return peer.to(given.x.dtype)(images, given.time, told, return_dict=False)[0]


def _dit(net: DiT, given: Inputs) -> Tensor:
    proj, images = net.x_embedder.proj, torch.cat([given.x, given.cond], dim=1)
    if isinstance(proj, RoutedConv2d):
        tokens = proj(images, given.label)
    else:
        tokens = F.conv2d(images, proj.weight, proj.bias, stride=net.stride)
    height, width = tokens.shape[-2:]
    if given.features is not None and net.features is not None:
        tokens = tokens + net.features(F.adaptive_avg_pool2d(given.features, (height, width)))
    tokens = rearrange(tokens, "b d h w -> b (h w) d")
    places = position_table(height, width, tokens.shape[-1], grid=net.position_grid)
    tokens = tokens + places.to(tokens.dtype)
    embedding = net.t_embedder(given.time) + net.y_embedder(given.label)
    for block in net.blocks:
        tokens = block(tokens, embedding)
    out, p = net.final_layer(tokens, embedding), net.stride
    return rearrange(out, "b (h w) (p q c) -> b c (h p) (w q)", h=height, p=p, q=p)


def distance(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return float((found - expected).norm() / expected.norm())


def call(net: Any, given: Inputs, encoded: tuple[Tensor, ...]) -> Tensor:
    return net(given.x, encoded, given.time, given.label)


@every_case
@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_answer_is_that_of_the_images_side_by_side(case: Case, dtype: torch.dtype):
    net, given = case.make(dtype), case.inputs(dtype)
    expected = concatenated(net, given)
    encoded = net.encode(given.cond, given.label, given.features)
    for found in (net(*given), call(net, given, encoded)):
        assert distance(found, expected) < BOUNDS[dtype]
    if case.cond:
        other = concatenated(net, given._replace(cond=given.cond.roll(1, dims=0)))
        assert distance(other, expected) > 1e-3


@every_case
def test_rows_picked_from_an_encoding_answer_for_several_members(case: Case):
    net, given = case.make(), case.inputs()
    encoded = net.encode(given.cond, given.label, given.features)
    assert all(len(part) == ROWS for part in encoded)
    picks = torch.tensor([3, 0, 0, 4, 3, 0])  # members of three of the samples, in any order
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(len(picks), TARGET, *SIZE, generator=draw).double()
    time = torch.rand(len(picks), generator=draw).double()
    picked = [part if part is None else part[picks] for part in (given.cond, given.features)]
    found = net(x, tuple(part[picks] for part in encoded), time, given.label[picks])
    expected = net(x, picked[0], time, given.label[picks], features=picked[1])
    assert distance(found, expected) < 1e-12


@pytest.mark.parametrize("case", FEATURED.values(), ids=FEATURED)
@pytest.mark.parametrize("rows", [[3, 1], [2], []])
def test_features_go_to_the_rows_they_belong_to(case: Case, rows: list[int]):
    net, given = case.make(), case.inputs()
    assert given.features is not None
    some = torch.tensor(rows, dtype=torch.long)
    encoded = net.encode(given.cond, given.label, given.features[some], some)
    found = call(net, given, encoded)
    expected = concatenated(net, given._replace(features=None))
    expected[some] = concatenated(net, given)[some]
    assert distance(found, expected) < 1e-12


@every_case
def test_the_condition_is_convolved_once_for_all_calls(case: Case, monkeypatch):
    """But in U-Nets, which answer as diffusers' do to the last digit."""
    read = []
    for kind in (SplitConv2d, RoutedConv2d):

        def part(self: Any, x: Tensor, *args: Any, own: Any = kind.part, **named: Any) -> Tensor:
            read.append(x.shape[1])
            return own(self, x, *args, **named)

        monkeypatch.setattr(kind, "part", part)
    net, given = case.make(), case.inputs()
    encoded = net.encode(given.cond, given.label, given.features)
    for _ in range(3):
        call(net, given, encoded)
    whole = isinstance(net, (TextUNet, ClassUNet))
    assert read == ([] if whole else [case.cond, TARGET, TARGET, TARGET])


@every_case
def test_a_further_call_costs_less_by_the_share_of_the_condition(case: Case):
    """By torch's counter; a projection of features is part of the share."""
    net, given = case.make(), case.inputs()
    encoded = net.encode(given.cond, given.label, given.features)

    def flops(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    first, further = flops(lambda: net(*given)), flops(lambda: call(net, given, encoded))
    projection = WIDTH * FEATURES * CELLS // 4 if case.features else 0
    share = 2 * ROWS * (case.cond * case.share + projection)
    assert first - further == share
    assert flops(lambda: net.encode(given.cond, given.label, given.features)) == share
    assert first == flops(lambda: concatenated(net, given))


@every_case
def test_training_reaches_the_same_gradients_through_an_encoding(case: Case):
    given = case.inputs()

    def gradients(encode: bool) -> dict[str, Tensor]:
        net = case.make().requires_grad_(True)
        encoded = net.encode(given.cond, given.label, given.features) if encode else given.cond
        features = None if encode else given.features
        total = sum(
            net(step * given.x, encoded, given.time, given.label, features=features).square().mean()
            for step in (1.0, 0.5)
        )
        assert isinstance(total, Tensor)
        total.backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    found, expected = gradients(True), gradients(False)
    assert found.keys() == expected.keys() and len(found) > 10
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@every_case
@pytest.mark.parametrize("inside", [True, False])
def test_an_encoding_serves_calls_in_low_precision(case: Case, inside: bool):
    """Made under autocast or before it."""
    net, given = case.make(torch.float32), case.inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=inside):
        encoded = net.encode(given.cond, given.label, given.features)
    with torch.autocast("cpu", torch.bfloat16):
        rough = call(net, given, encoded)
    assert rough.dtype == torch.bfloat16
    exact = net(*given)
    assert 0 < (rough.float() - exact).norm() < 0.05 * exact.norm()
