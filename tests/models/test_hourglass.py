"""The hourglass: what it is at the start, that all of it learns, and its block against DiT's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepsight.models.config import HOURGLASS, DiTSize, ModelSettings
from stepsight.models.dit import DiTBlock
from stepsight.models.factory import activation_bytes, build, count_flops, parameter_groups
from stepsight.models.hourglass import Block, Hourglass, ResidualConv, group_norm

TARGET, COND, LABELS, FEATURES = 3, 6, 4, 9


def make(name: str = "hourglass-32", features: int = FEATURES, **settings) -> Hourglass:
    torch.manual_seed(0)
    net = build(
        ModelSettings(name=name, **settings),
        target_channels=TARGET,
        cond_channels=COND,
        labels=LABELS,
        feature_channels=features,
    )
    assert isinstance(net, Hourglass)
    return net


def inputs(rows: int, height: int, width: int, features: int = FEATURES):
    draw = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    volume = noise(rows, features, height // 2, width // 2) if features else None
    label = torch.arange(rows) % (LABELS + 1)
    x, cond = noise(rows, TARGET, height, width), noise(rows, COND, height, width)
    return x, cond, torch.rand(rows, generator=draw), label, volume


def stirred(net: nn.Module) -> nn.Module:
    """The network with no weight at zero, so that everything has an effect."""
    draw = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=draw)
    return net.eval()


def test_it_starts_by_predicting_zero():
    assert not make()(*inputs(5, 16, 24)).any()


@pytest.mark.parametrize("name", HOURGLASS)
def test_any_grid_of_whole_strides_works(name):
    net = stirred(make(name))
    side = int(net.stride)  # type: ignore[arg-type]
    assert side == 2 ** len(HOURGLASS[name].channels)
    for height, width in ((side, side), (side, 3 * side), (2 * side, side)):
        with torch.no_grad():
            out = net(*inputs(2, height, width))
        assert out.shape == (2, TARGET, height, width) and out.isfinite().all()


@pytest.mark.parametrize("route", ["shared", "per_task"])
@pytest.mark.parametrize("gate", [0.0, 0.7])
def test_after_a_few_steps_every_parameter_has_learned(route, gate):
    """Zeros at the start hold gradients back for a step or two, and for no longer."""
    net = make(input=route, gate_init=gate).train()
    batch = inputs(4, 16, 16)
    goal = torch.randn(4, TARGET, 16, 16, generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    seen = {name: torch.zeros(()) for name, _ in net.named_parameters()}
    losses = []
    for _ in range(5):
        loss = (net(*batch) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for name, p in net.named_parameters():
            assert p.grad is not None, name
            seen[name] = torch.maximum(seen[name], p.grad.abs().max())
    assert [name for name, most in seen.items() if most == 0] == []
    assert losses[-1] < losses[0]


def test_only_the_features_convolution_sleeps_without_features():
    net = stirred(make()).train()
    net(*inputs(2, 8, 8)[:4]).square().sum().backward()
    sleeping = {name for name, p in net.named_parameters() if p.grad is None}
    assert sleeping == {"features.weight", "features.bias"}
    assert make(features=0).features is None


@pytest.mark.parametrize("route", ["shared", "per_task"])
def test_a_row_does_not_depend_on_its_neighbours(route):
    net = stirred(make(input=route))
    batch = inputs(5, 16, 24)
    with torch.no_grad():
        together = net(*batch)
        for row in range(5):
            alone = net(*[part[row : row + 1] for part in batch])
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_everything_it_is_given_matters():
    net = stirred(make())
    batch = inputs(2, 16, 16)
    with torch.no_grad():
        out = net(*batch)
        for place, part in enumerate(batch):
            changed = list(batch)
            changed[place] = (part + 1) % LABELS if part.dtype == torch.long else part + 0.5
            assert (net(*changed) - out).abs().max() > 1e-4, place


def test_every_pixel_sees_the_whole_image():
    """Attention reaches from one corner to the other; its positions tell the corners apart."""
    net = stirred(make())
    batch = inputs(1, 32, 32)
    x = batch[0].clone().requires_grad_()
    net(x, *batch[1:])[0, 0, 0, 0].backward()
    assert x.grad is not None and x.grad[0, :, -8:, -8:].any()
    flat = [torch.zeros_like(part) for part in batch]
    with torch.no_grad():
        out = net(*flat)[0, :, 8:24, 8:24]
    assert (out - out.mean(dim=(1, 2), keepdim=True)).abs().max() > 1e-4


def test_it_runs_under_bfloat16_autocast():
    net = stirred(make())
    batch = inputs(2, 16, 16)
    with torch.no_grad():
        exact = net(*batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(*batch)
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_memory_format_is_of_no_consequence():
    net, plain = stirred(make()), stirred(make())
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    batch = inputs(2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(*batch), plain(*batch), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------- its parts


def test_its_transformer_block_is_dits():
    """Equal weights, equal answers: DiT's applies SiLU to the embedding, the hourglass has."""
    torch.manual_seed(0)
    ours, dits = Block(24, 3, 0.7), DiTBlock(DiTSize(24, 1, 3), 0.7, qk_norm=False)
    stirred(ours)
    names = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    names["modulation"] = "adaLN_modulation.1"
    weights = {}
    for name, value in ours.state_dict().items():
        part, _, kind = name.rpartition(".")
        weights[f"{names[part]}.{kind}"] = value
    dits.load_state_dict(weights)
    x, embedding = torch.randn(2, 7, 24), torch.randn(2, 24)
    torch.testing.assert_close(ours(x, F.silu(embedding)), dits(x, embedding), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gate", [0.0, 0.7])
def test_gates_start_as_told_and_the_rest_of_the_modulation_at_zero(gate):
    block = Block(16, 2, gate)
    parts = block.modulation(torch.randn(3, 16)).chunk(6, dim=1)
    assert all((part == (gate if place in (2, 5) else 0)).all() for place, part in enumerate(parts))
    x, embedding = torch.randn(3, 5, 16), torch.randn(3, 16)
    assert torch.equal(block(x, embedding), x) == (gate == 0)


def test_a_residual_convolution_starts_blind_to_its_input_and_is_modulated():
    block = ResidualConv(8, 16)
    x, embedding = torch.randn(2, 8, 6, 10), torch.randn(2, 16)
    added = (block(x, embedding) - x).detach()
    torch.testing.assert_close(added, added[:1, :, :1, :1].expand_as(added), atol=1e-6, rtol=0)
    stirred(block)
    hidden = block.norm2(block.conv1(F.silu(block.norm1(x))))
    scale, shift = block.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
    expected = x + block.conv2(F.silu(hidden * (1 + scale) + shift))
    torch.testing.assert_close(block(x, embedding), expected)


@pytest.mark.parametrize("channels", [1, 7, 8, 12, 16, 24, 32, 48, 64, 128])
def test_group_sizes_divide_the_channels(channels):
    norm = group_norm(channels)
    assert channels % norm.num_groups == 0
    out = norm(torch.randn(2, channels, 4, 4) * 3 + 5)
    assert abs(float(out.detach().mean())) < 1e-5


# ---------------------------------------------------------------------------- what is said of it


@pytest.mark.parametrize("name", HOURGLASS)
def test_its_groups_of_parameters_add_up(name):
    with torch.device("meta"):
        net = make(name)
    groups = parameter_groups(net)
    assert sum(groups.values()) == sum(p.numel() for p in net.parameters())
    assert {"blocks", "time", "label", "input", "output", "features"} <= groups.keys()
    assert groups["features"] < groups["blocks"]


def test_flops_grow_with_the_pixels_and_are_counted_without_memory():
    small, large = (count_flops(make, inputs(1, side, side)) for side in (32, 64))
    assert 3.9 * small < large < 5 * small  # the trunk's attention is quadratic, the rest linear
    assert count_flops(make, inputs(4, 32, 32)) == pytest.approx(4 * small, rel=0.02)


def test_activations_grow_with_the_batch():
    one, four = (activation_bytes(make, inputs(rows, 32, 32)) for rows in (1, 4))
    assert 3.8 * one < four < 4.1 * one
    assert one > 32 * 32 * (TARGET + COND) * 4  # at least the input is kept
