"""DiT against closed forms for its size and cost, and a transformer block written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.models.activations import activation_bytes
from stepsight.models.config import DIT, DiTSize, ModelSettings, SplitSize, parse
from stepsight.models.dit import DiT, DiTBlock
from stepsight.models.factory import build, count_flops, parameter_groups
from stepsight.models.layers import position_table
from stepsight.models.moe import balance_loss, expert_usage
from stepsight.scaling.flops import DiTShape, forward_flops, parameters

TARGET, COND, LABELS, FEATURES = 3, 6, 4, 9


def make(name: str = "DiT-Ti/2", features: int = 0, **settings) -> DiT:
    torch.manual_seed(0)
    net = build(
        ModelSettings(name=name, **settings),
        target_channels=TARGET,
        cond_channels=COND,
        labels=LABELS,
        feature_channels=features,
    )
    assert isinstance(net, DiT)
    return net


def shape_of(name: str) -> DiTShape:
    size = parse(name)
    assert isinstance(size, DiTSize)
    return DiTShape(
        *(size.width, size.depth, size.patch, TARGET + COND, TARGET, LABELS + 1),
        experts=size.experts,
        active=size.active,
    )


def inputs(rows: int, height: int, width: int, features: int = 0) -> tuple[Tensor | None, ...]:
    draw = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    volume = noise(rows, features, height // 2, width // 2) if features else None
    label = torch.arange(rows) % (LABELS + 1)
    x, cond = noise(rows, TARGET, height, width), noise(rows, COND, height, width)
    return x, cond, torch.rand(rows, generator=draw), label, volume


def stirred(net: torch.nn.Module) -> torch.nn.Module:
    """The network with no weight at zero, so that everything has an effect."""
    draw = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=draw)
    return net.eval()


@pytest.mark.parametrize("name", [*(f"{base}/2" for base in DIT), "DiT-XL/2-8E2A", "DiT-Ti/4-5E1A"])
def test_parameters_follow_the_closed_form(name):
    with torch.device("meta"):
        net = make(name)
    groups = parameter_groups(net)
    total = sum(p.numel() for p in net.parameters())
    assert total == sum(groups.values()) == parameters(shape_of(name))
    assert groups["blocks"] > 0.8 * total or total < 1e6


@pytest.mark.parametrize(
    "name", ["DiT-Ti/2", "DiT-Mi/8", "DiT-S/2", "DiT-B/2", "DiT-XL/2", "DiT-S/2-8E2A"]
)
@pytest.mark.parametrize("grid", [(32, 32), (16, 48)])
def test_torch_counts_the_flops_of_the_closed_form(name, grid):
    counted = count_flops(lambda: make(name), inputs(1, *grid))
    assert counted == forward_flops(shape_of(name), *grid)


def test_the_published_size_of_dit_xl():
    """675 M parameters (Peebles & Xie 2023, table 1): 1000 classes, 4 channels in and 8 out. The
    released model counts its fixed table of 16 x 16 positions among them."""
    size = parse("DiT-XL/2")
    assert isinstance(size, DiTSize)
    with torch.device("meta"):
        net = DiT(size, target_channels=8, cond_channels=-4, labels=1000)
    assert sum(p.numel() for p in net.parameters()) + 16 * 16 * size.width == 675_129_632


def test_the_largest_size_is_described_without_building_it():
    """A generalist on four tasks: 12 channels in, 4 and their variance out, a route a task."""
    size = parse("DiT-XL/2-8E2A")
    assert isinstance(size, DiTSize)
    shape = DiTShape(size.width, size.depth, 2, 12, 8, 5, experts=8, active=2, shared=1, routes=4)

    def factory() -> DiT:
        options = dict(routed=True, learned_variance=True, shared_experts=1)
        return DiT(size, target_channels=4, cond_channels=8, labels=4, **options)

    with torch.device("meta"):
        net = factory()
        example = (torch.empty(2, 4, 64, 64), torch.empty(2, 8, 64, 64), torch.empty(2))
        example = (*example, torch.empty(2, dtype=torch.long), None)
    assert sum(p.numel() for p in net.parameters()) == parameters(shape)
    assert count_flops(factory, example) == 2 * forward_flops(shape, 64, 64)
    slots = 2 * 1024 * (2 + 1)  # rows of the experts: their hidden layer alone is kept twice
    assert activation_bytes(factory, example) > size.depth * slots * 2 * 4 * size.width * 4


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_any_grid_of_whole_patches_works(patch):
    net = stirred(make(f"DiT-Ti/{patch}", FEATURES))
    for height, width in ((patch, 3 * patch), (16, 24), (40, 16)):
        out = net(*inputs(2, height, width, FEATURES))
        assert out.shape == (2, TARGET, height, width) and out.isfinite().all()


def test_it_starts_by_predicting_zero():
    assert not make(features=FEATURES)(*inputs(3, 8, 8, FEATURES)).any()


@pytest.mark.parametrize("gate", [0.0, 0.7])
def test_blocks_start_with_the_given_gates(gate):
    block = DiTBlock(DiTSize(16, 1, 2), gate, qk_norm=False)
    shift1, scale1, gate1, shift2, scale2, gate2 = block.adaLN_modulation(torch.randn(3, 16)).chunk(
        6, dim=1
    )
    assert not torch.cat([shift1, scale1, shift2, scale2]).any()
    assert (torch.cat([gate1, gate2]) == gate).all()
    x = torch.randn(3, 5, 16)
    assert torch.equal(block(x, torch.randn(3, 16)), x) == (gate == 0)


def attention(x: Tensor, block: DiTBlock, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, a head and a row at a time."""
    rows = []
    for tokens in x:
        q, k, v = block.attn.qkv(tokens).chunk(3, dim=-1)
        split = [part.chunk(heads, dim=-1) for part in (q, k, v)]
        found = [
            (one_q @ one_k.T / math.sqrt(one_q.shape[-1])).softmax(dim=-1) @ one_v
            for one_q, one_k, one_v in zip(*split)
        ]
        rows.append(block.attn.proj(torch.cat(found, dim=-1)))
    return torch.stack(rows)


def test_a_block_is_the_adaln_zero_block_written_out():
    torch.manual_seed(0)
    block = DiTBlock(DiTSize(24, 1, 3), 0.7, qk_norm=False)
    stirred(block)
    x, embedding = torch.randn(2, 5, 24), torch.randn(2, 24)
    linear = block.adaLN_modulation[1]
    s1, m1, g1, s2, m2, g2 = F.linear(F.silu(embedding), linear.weight, linear.bias).chunk(6, 1)

    def norm(y: Tensor) -> Tensor:
        return (y - y.mean(-1, keepdim=True)) / (
            y.var(-1, keepdim=True, correction=0) + 1e-6
        ).sqrt()

    expected = x + g1[:, None] * attention(norm(x) * (1 + m1[:, None]) + s1[:, None], block, 3)
    hidden = block.mlp.fc1(norm(expected) * (1 + m2[:, None]) + s2[:, None])
    expected = expected + g2[:, None] * block.mlp.fc2(F.gelu(hidden, approximate="tanh"))
    torch.testing.assert_close(block(x, embedding), expected, atol=1e-5, rtol=1e-5)


def test_a_block_with_one_renormalised_expert_is_the_dense_block():
    torch.manual_seed(0)
    dense = DiTBlock(DiTSize(16, 1, 2), 0.7, qk_norm=False)
    mixed = DiTBlock(DiTSize(16, 1, 2, experts=1, active=1), 0.7, False, "renormalised")
    weights = stirred(dense).state_dict()
    for name in [name for name in weights if name.startswith("mlp.")]:
        weights[name.replace("mlp.", "moe.experts.")] = weights.pop(name)[None]
    missing, unexpected = mixed.load_state_dict(weights, strict=False)
    assert missing == ["moe.gate.weight"] and not unexpected
    x, embedding = torch.randn(2, 5, 16), torch.randn(2, 16)
    torch.testing.assert_close(mixed(x, embedding), dense(x, embedding), atol=1e-5, rtol=1e-5)


def test_a_network_of_experts_trains_all_of_its_parameters():
    net = make("DiT-Ti/2-4E1A", shared_experts=1)
    stirred(net).train()
    batch = inputs(2, 8, 8)
    out = net(*batch)
    usage = expert_usage(net)
    assert usage is not None and usage.shape == (3, 2, 4) and (usage.sum(dim=2) == 16).all()
    (out.square().mean() + 0.01 * balance_loss(net)).backward()
    assert all(p.grad is not None for p in net.parameters())
    assert all(block.moe.gate.weight.grad.any() for block in net.blocks)
    assert out.shape == batch[0].shape and "blocks.2.moe.shared.fc2.bias" in net.state_dict()
    assert not any("mlp" in name for name in net.blocks.state_dict())


def test_a_learned_variance_doubles_the_channels_behind_the_prediction():
    """Channel fastest within a patch (DiT's order): the bias of the last layer is "p q c"."""
    net = make(learned_variance=True)
    with torch.no_grad():
        net.final_layer.linear.bias.copy_(torch.arange(4.0 * 2 * TARGET))
        out = net(*inputs(2, 8, 6))
    assert out.shape == (2, 2 * TARGET, 8, 6)
    prediction, variance = out.chunk(2, dim=1)
    for p, q, c in ((0, 0, 0), (0, 1, 2), (1, 0, 1)):
        first = (2 * p + q) * 2 * TARGET + c
        assert (prediction[:, c, p::2, q::2] == first).all()
        assert (variance[:, c, p::2, q::2] == first + TARGET).all()


@pytest.mark.parametrize("routed", [False, True])
def test_a_condition_is_optional(routed):
    net = DiT(DiTSize(16, 1, 2), TARGET, 0, LABELS, routed=routed)
    x, cond, time, label, _ = inputs(2, 8, 8)
    assert cond is not None
    assert stirred(net)(x, cond[:, :0], time, label, None).shape == x.shape


def test_patches_are_put_back_where_they_were_taken():
    """With an identity between them, the last layer undoes the patch embedding."""
    size = DiTSize(4 * TARGET, 0, 1)
    net = DiT(size, TARGET, 0, 1)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.x_embedder.proj.weight.view(4 * TARGET, -1).copy_(torch.eye(4 * TARGET))  # "c p q"
    tokens = []
    net.final_layer.register_forward_pre_hook(lambda _, args: tokens.append(args[0]))
    x = torch.randn(1, TARGET, 4, 6)
    net(x, x[:, :0], torch.zeros(1), torch.zeros(1, dtype=torch.long))
    patch = tokens[0] - position_table(2, 3, 4 * TARGET)
    torch.testing.assert_close(patch[0, 4].reshape(TARGET, 2, 2), x[0, :, 2:4, 2:4])  # row 1, col 1
    with torch.no_grad():  # channel c of the output shows token position (p, q): bias (p q c)
        net.final_layer.linear.bias.copy_(torch.arange(4.0 * TARGET))
    out = net(x, x[:, :0], torch.zeros(1), torch.zeros(1, dtype=torch.long))[0]
    for p in range(2):
        for q in range(2):
            for c in range(TARGET):
                assert (out[c, p::2, q::2] == (2 * p + q) * TARGET + c).all()


@pytest.mark.parametrize("route", ["shared", "per_task"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_row_does_not_depend_on_its_neighbours(route, qk_norm):
    net = stirred(make(features=FEATURES, input=route, qk_norm=qk_norm))
    batch = inputs(5, 8, 12, FEATURES)
    with torch.no_grad():
        together = net(*batch)
        for row in range(5):
            alone = net(*[part[row : row + 1] for part in batch if part is not None])
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_everything_it_is_given_matters():
    net = stirred(make(features=FEATURES))
    batch = inputs(2, 8, 8, FEATURES)
    with torch.no_grad():
        out = net(*batch)
        for place, part in enumerate(batch):
            assert part is not None
            changed = list(batch)
            changed[place] = (part + 1) % LABELS if part.dtype == torch.long else part + 0.5
            assert (net(*changed) - out).abs().max() > 1e-4, place


def test_features_are_optional():
    net = stirred(make(features=FEATURES))
    x, cond, time, label, volume = inputs(2, 8, 8, FEATURES)
    assert volume is not None
    with torch.no_grad():
        without, zeros = net(x, cond, time, label), net(x, cond, time, label, 0 * volume)
        bias = net.features.bias.abs().max()  # type: ignore[union-attr]
    assert without.isfinite().all() and bias > 0 and not torch.equal(without, zeros)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_features_of_any_resolution_are_pooled_to_the_tokens(stride):
    net = stirred(make("DiT-Ti/4", FEATURES))
    x, cond, time, label, _ = inputs(2, 16, 24)
    volume = torch.full((2, FEATURES, 16 // stride, 24 // stride), 0.3)
    reference = torch.full((2, FEATURES, 4, 6), 0.3)
    with torch.no_grad():
        torch.testing.assert_close(
            net(x, cond, time, label, volume), net(x, cond, time, label, reference)
        )


def test_it_runs_under_bfloat16_autocast():
    net = stirred(make(features=FEATURES))
    batch = inputs(2, 8, 8, FEATURES)
    with torch.no_grad():
        exact = net(*batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(*batch)
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_no_row_of_the_size_table_is_out_of_shape():
    for name, (width, depth, heads) in DIT.items():
        assert width % heads == 0 and width % 4 == 0 and depth > 0, name
    assert not isinstance(parse("DiT-S/2"), SplitSize)
