"""The shared parts of the backbones against formulas written out and torch's own layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stepsight.models.layers import (
    FREQUENCIES,
    LabelEmbedder,
    RoutedConv2d,
    SplitConv2d,
    TimestepEmbedder,
    modulate,
    position_table,
    sinusoid,
)


def test_the_sinusoid_is_dits():
    """cos before sin, frequencies exp(-ln 10000 j / half)."""
    times = torch.tensor([0.0, 0.37, 1.0, 999.0])
    table = sinusoid(times, 8)
    for row, t in enumerate(times.tolist()):
        angles = [t * 10000 ** (-j / 4) for j in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        torch.testing.assert_close(table[row], torch.tensor(expected), atol=1e-4, rtol=0)
    assert sinusoid(times).shape == (4, FREQUENCIES)


def test_the_sinusoid_of_low_precision_times_is_computed_in_full():
    assert sinusoid(torch.tensor([0.5], dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(("height", "width", "dim"), [(1, 1, 4), (3, 5, 8), (4, 2, 16)])
def test_the_position_table_is_dits(height, width, dim):
    """Channels: sin x, cos x, sin y, cos y, at frequencies 10000^(-j / (dim / 4)); rows first."""
    table = position_table(height, width, dim)
    quarter = dim // 4
    assert table.shape == (1, height * width, dim) and table.dtype == torch.float32
    for y in range(height):
        for x in range(width):
            expected = []
            for place in (x, y):
                angles = [place / 10000 ** (j / quarter) for j in range(quarter)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            found = table[0, y * width + x]
            torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_modulation_scales_around_one_and_shifts():
    x = torch.arange(12.0).reshape(2, 3, 2)
    shift, scale = torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[0.0, 1], [-1, 0]])
    out = modulate(x, shift, scale)
    torch.testing.assert_close(out[0], x[0] * torch.tensor([1.0, 2]) + torch.tensor([1.0, 0]))
    torch.testing.assert_close(out[1], x[1] * torch.tensor([0.0, 1]))


def test_the_null_label_has_a_row_of_its_own():
    embed = LabelEmbedder(3, 8)
    assert embed(torch.tensor([0, 1, 2, 3])).unique(dim=0).shape == (4, 8)
    with pytest.raises(IndexError):
        embed(torch.tensor([4]))


def test_nearby_times_have_nearby_but_different_embeddings():
    embed = TimestepEmbedder(16)
    near, far = embed(torch.tensor([0.5, 0.501, 1.0])).diff(dim=0).norm(dim=1).tolist()
    assert 0 < near < far


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (2, 2), (4, 4)])
def test_a_routed_convolution_is_one_convolution_a_task(kernel, stride):
    torch.manual_seed(0)
    routed = RoutedConv2d(3, 5, 7, kernel, stride)
    nn.init.normal_(routed.bias)
    x, label = torch.randn(6, 5, 8, 12), torch.tensor([0, 2, 1, 3, 2, 0])
    out = routed(x, label)
    assert out.shape == (6, 7, 8 // stride, 12 // stride)
    for row, task in enumerate(label.tolist()):
        if task == 3:  # the null label
            assert not out[row].any()
            continue
        plain = nn.Conv2d(5, 7, kernel, stride, padding=(kernel - stride) // 2)
        plain.load_state_dict(
            {"weight": routed.weight[task].reshape(7, 5, kernel, kernel), "bias": routed.bias[task]}
        )
        torch.testing.assert_close(out[row], plain(x[row]), atol=1e-5, rtol=1e-5)


def test_routing_trains_only_the_convolutions_that_were_used():
    routed = RoutedConv2d(3, 2, 4, kernel=3, stride=1)
    routed(torch.randn(2, 2, 4, 4), torch.tensor([1, 3])).square().sum().backward()
    assert routed.weight.grad is not None and routed.bias.grad is not None
    assert routed.weight.grad.flatten(1).any(dim=1).tolist() == [False, True, False]
    assert routed.bias.grad.any(dim=1).tolist() == [False, True, False]


def test_routed_weights_start_in_the_range_of_torchs_convolution():
    routed, plain = RoutedConv2d(40, 6, 9, 3, 1), nn.Conv2d(6, 9, 3)
    drawn = routed.weight.detach()
    assert float(drawn.abs().max()) == pytest.approx(1 / math.sqrt(6 * 9), rel=0.01)
    assert float(drawn.std()) == pytest.approx(float(plain.weight.detach().std()), rel=0.1)


def test_a_split_convolution_is_torchs_own_and_starts_as_it():
    torch.manual_seed(0)
    split, x = SplitConv2d(5, 7, 3, stride=2, padding=1), torch.randn(2, 5, 8, 12)
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, stride=2, padding=1)
    assert all(map(torch.equal, split.parameters(), plain.parameters()))
    assert torch.equal(split(x), plain(x))


@pytest.mark.parametrize("bias_of", [0, 1, 2])
@pytest.mark.parametrize("routed", [False, True])
def test_the_answers_to_parts_of_the_channels_add_up(bias_of: int, routed: bool):
    """One part may be empty; the bias goes with any of them, and the null label has none."""
    torch.manual_seed(0)
    net = RoutedConv2d(2, 5, 7, 3, 1) if routed else SplitConv2d(5, 7, 3, padding=1)
    nn.init.normal_(net.bias)  # type: ignore[arg-type]
    x, label = torch.randn(4, 5, 8, 12), torch.tensor([1, 0, 2, 1])
    told = (label,) if routed else ()
    parts = zip((0, 2, 2), x.split([2, 0, 3], dim=1))
    answers = [
        net.part(part, *told, first=first, bias=place == bias_of)
        for place, (first, part) in enumerate(parts)
    ]
    assert answers[1].shape == (4, 7, 1, 1) and answers[2].shape == (4, 7, 8, 12)
    torch.testing.assert_close(sum(answers), net(x, *told), atol=1e-5, rtol=1e-5)
