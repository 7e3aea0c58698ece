"""The split backbone: what it is at the start, that all of it learns, and what it reads when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stepsight.errors import UserError
from stepsight.models.activations import activation_bytes
from stepsight.models.config import SPLIT, ModelSettings
from stepsight.models.factory import (
    build,
    check_size,
    count_flops,
    parameter_groups,
)
from stepsight.models.split import Split
from stepsight.training.optim import is_matrix

TARGET, COND, LABELS, FEATURES, LOOKED = 3, 6, 4, 9, 5
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]


def make(
    name: str = "split-8",
    features: int = FEATURES,
    used: Sequence[int] = (),
    cond: int = COND,
    **settings: Any,
) -> Split:
    torch.manual_seed(0)
    net = build(
        ModelSettings(name=name, **settings),
        target_channels=TARGET,
        cond_channels=cond,
        labels=LABELS,
        feature_channels=features,
        looked_channels=LOOKED,
        used=used,
    )
    assert isinstance(net, Split)
    return net


def noise(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(rows: int, height: int, width: int, features: int = FEATURES) -> Inputs:
    volume = noise(rows, features, height // 2, width // 2) if features else None
    label = torch.arange(rows) % (LABELS + 1)
    x, cond = noise(rows, TARGET, height, width), noise(rows, COND, height, width, seed=8)
    return x, cond, noise(rows).abs(), label, volume


def looked(rows: int, height: int, width: int) -> Tensor:
    return noise(rows, LOOKED, height // 2, width // 2, seed=9)


def stirred(net: Split) -> Split:
    """The network with no weight at zero, so that everything has an effect."""
    draw = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=draw)
    return net.eval().requires_grad_(False)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_it_starts_by_predicting_zero():
    found = make()(*inputs(5, 16, 24), looked=(looked(5, 16, 24), None))
    assert found.shape == (5, TARGET, 16, 24) and not found.any()


@pytest.mark.parametrize("name", SPLIT)
def test_any_grid_of_whole_strides_works(name: str):
    net = stirred(make(name))
    for height, width in ((8, 8), (8, 40), (24, 16)):
        out = net(*inputs(2, height, width))
        assert out.shape == (2, TARGET, height, width) and out.isfinite().all()
    check_size(net, (8, 24), "data.x.size")
    with pytest.raises(UserError, match="data.x.size: W=20 .* multiple of 8.* Use 16 or 24"):
        check_size(net, (16, 20), "data.x.size")


@pytest.mark.parametrize("gate", [0.0, 0.7])
def test_after_a_few_steps_every_parameter_has_learned(gate: float):
    """Zeros at the start hold gradients back for a few steps, and for no longer."""
    net = make(gate_init=gate).train()
    x, cond, time, label, volume = inputs(4, 16, 16)
    assert volume is not None
    rows = torch.tensor([0, 2])  # the others have further images in place of features
    goal = noise(4, TARGET, 16, 16, seed=3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    seen = {name: torch.zeros(()) for name, _ in net.named_parameters()}
    losses = []
    for _ in range(6):
        encoded = net.encode(cond, label, volume[rows], rows)
        answer = net(x, encoded, time, label, looked=(looked(2, 16, 16), rows))
        loss = (answer - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for name, p in net.named_parameters():
            assert p.grad is not None, name
            seen[name] = torch.maximum(seen[name], p.grad.abs().max())
    assert [name for name, most in seen.items() if most == 0] == []
    assert losses[-1] < losses[0]


def test_a_row_does_not_depend_on_its_neighbours():
    net = stirred(make())
    batch, again = inputs(5, 16, 24), looked(5, 16, 24)
    together = net(*batch, looked=(again, None))
    for row in range(5):
        one = slice(row, row + 1)
        x, cond, time, label, volume = (part[one] for part in batch if part is not None)
        same(net(x, cond, time, label, volume, looked=(again[one], None))[0], together[row])


def test_everything_it_is_given_matters():
    """Without features and with: those stand for the further images of the condition."""
    net = stirred(make())
    plain, again = inputs(2, 16, 16), looked(2, 16, 16)
    for batch in (plain[:4], plain):
        out = net(*batch, looked=(again, None))
        assert (net(*batch, looked=(again + 0.5, None)) - out).abs().max() > 1e-4
        assert (net(*batch) - out).abs().max() > 1e-4
        for place, part in enumerate(batch):
            assert part is not None
            changed = list(batch)
            changed[place] = (part + 1) % LABELS if part.dtype == torch.long else part + 0.5
            assert (net(*changed, looked=(again, None)) - out).abs().max() > 1e-4, place


@pytest.mark.parametrize("with_features", [False, True])
def test_features_stand_for_the_further_images(with_features: bool):
    net = stirred(make())
    x, cond, time, label, volume = inputs(2, 16, 16)
    other = torch.cat([cond[:, :3], -cond[:, 3:]], dim=1)
    volume = volume if with_features else None
    found = (net(x, other, time, label, volume) - net(x, cond, time, label, volume)).abs().max()
    assert (found == 0) == with_features


def test_every_pixel_sees_the_whole_picture():
    """Attention reaches from one corner to the other; its positions tell the corners apart."""
    net = stirred(make())
    x, cond, *others = inputs(1, 32, 32)
    x, cond = x.requires_grad_(), cond.requires_grad_()
    net(x, cond, *others)[0, 0, 0, 0].backward()
    for grad in (x.grad, cond.grad):
        assert grad is not None and grad[0, :3, -8:, -8:].any()
    flat = [torch.zeros_like(part) for part in inputs(1, 32, 32) if part is not None]
    out = net(*flat)[0, :, 8:24, 8:24]
    assert (out - out.mean(dim=(1, 2), keepdim=True)).abs().max() > 1e-4


# ------------------------------------------------------------------ encoding once


@pytest.mark.parametrize("features", [0, FEATURES])
def test_an_encoding_serves_many_calls(features: int):
    net = stirred(make(features=features))
    x, cond, time, label, volume = inputs(3, 16, 24, features)
    encoded = net.encode(cond, label, volume)
    assert [part.shape[-2:] for part in encoded] == [(8, 12), (4, 6), (2, 3)]
    for scale in (1.0, -0.5):
        same(net(scale * x, encoded, time, label), net(scale * x, cond, time, label, volume))


@pytest.mark.parametrize("rows", [[3, 1], [2], []])
def test_features_go_to_the_rows_they_belong_to(rows: list[int]):
    net = stirred(make())
    x, cond, time, label, volume = inputs(5, 16, 16)
    assert volume is not None
    some, again = torch.tensor(rows, dtype=torch.long), looked(5, 16, 16)
    encoded = net.encode(cond, label, volume[some], some)
    found = net(x, encoded, time, label, looked=(again[some], some))
    expected = net(x, cond, time, label)
    expected[some] = net(x, cond, time, label, volume, looked=(again, None))[some]
    same(found, expected)


@pytest.mark.parametrize("numbers", [[0, 1, 0, 1, 0], [7, 7, 7, 7, 7], [4, 3, 2, 1, 0]])
def test_rows_of_one_picture_have_it_read_once(numbers: list[int], monkeypatch: Any):
    """Wherever the rows stand; what tasks bring besides stays their own."""
    net, read = stirred(make()), []
    _, cond, _, label, volume = inputs(5, 16, 16)
    own = [numbers.index(number) for number in numbers]  # the first row of each picture
    first = sorted(set(own))
    pictures = torch.tensor(first), torch.tensor([first.index(row) for row in own])
    cond = torch.cat([cond[own, :3], cond[:, 3:]], dim=1)
    expected = net.encode(cond, label, volume)
    monkeypatch.setattr(
        net.encoder, "forward", lambda x, run=net.encoder.forward: read.append(len(x)) or run(x)
    )
    found = net.encode(cond, label, volume, pictures=pictures)
    assert read == [len(set(numbers))]
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_the_picture_alone_is_read():
    """What `read` gives is the same whatever a task asks besides."""
    net = stirred(make())
    cond = inputs(2, 16, 16)[1]
    other = torch.cat([cond[:, :3], -cond[:, 3:]], dim=1)
    for one, two in zip(net.read(cond), net.read(other), strict=True):
        assert torch.equal(one, two)


def test_a_task_of_pictures_alone_has_no_further_convolutions():
    net = make(features=0, cond=3)
    absent = (net.input_images, net.input_features, net.input_coarse)
    assert absent == (None, None, None)
    x, cond, time, label, _ = inputs(2, 8, 8)
    assert net(x, cond[:, :3], time, label).shape == x.shape


def test_channels_of_other_tasks_are_not_looked_at():
    """Rows of one, two, three and one channel; the null row has all."""
    used = (1, 2, 3, 1)
    net = stirred(make(used=used))
    x, *others = inputs(5, 16, 16)
    expected = net(x, *others)
    for channel in range(TARGET):
        changed = x.clone()
        changed[:, channel] += 1
        moved = (net(changed, *others) - expected).abs().amax(dim=(1, 2, 3)) > 1e-6
        assert moved.tolist() == [channel < own for own in (*used, TARGET)]
        broken = x.clone()
        broken[0, channel] = torch.nan
        assert net(broken, *others)[0].isfinite().all() == (channel >= used[0])
    assert "used" not in net.state_dict()  # it follows from the tasks


# ------------------------------------------------------------------ numbers and memory


def test_it_agrees_under_bfloat16_autocast():
    net = stirred(make())
    batch, again = inputs(2, 16, 16), looked(2, 16, 16)
    exact = net(*batch, looked=(again, None))
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(*batch, looked=(again, None))
        encoded = net.encode(batch[1], batch[3], batch[4])
        assert torch.equal(rough, net(batch[0], encoded, *batch[2:4], looked=(again, None)))
    assert rough.dtype == torch.bfloat16
    assert 0 < (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_memory_format_is_of_no_consequence():
    net, plain = stirred(make()), stirred(make())
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    batch = inputs(2, 16, 16)
    same(net(*batch), plain(*batch))


# ------------------------------------------------------------------ what is said of it


def test_muon_has_the_inner_matrices():
    """Not what pixels, tasks, labels and times enter by, not what they leave by, no modulation."""
    named = dict(make("split-32").named_parameters())
    left = {name for name, p in named.items() if p.ndim > 1 and not is_matrix(name, p)}
    ends = ["input", "input_images", "input_features", "input_coarse"]
    ends += ["input_looked", "output", "label.embedding_table", "time.mlp.0", "time.mlp.2"]
    parts = [f"blocks.{i}" for i in range(2)] + ["middle.0", "fine.0"]
    ends += [f"{part}.modulation" for part in parts]
    assert left == {f"{end}.weight" for end in ends}
    taken = {name for name, p in named.items() if is_matrix(name, p)}
    assert {
        "encoder.input.weight",
        "encoder.down4.weight",
        "encoder.trunk.0.qkv.weight",
        "pictured.weight",
    } < taken
    assert all(named[name].ndim in (2, 4) for name in taken)


@pytest.mark.parametrize("name", SPLIT)
def test_its_rows_are_in_shape_and_its_groups_of_parameters_add_up(name: str):
    size = SPLIT[name]
    assert size.width % size.heads == 0 and size.width % 4 == 0
    with torch.device("meta"):
        net = make(name)
    groups = parameter_groups(net)
    assert sum(groups.values()) == sum(p.numel() for p in net.parameters())
    assert {"encoder", "blocks", "time", "label", "input", "output"} <= groups.keys()
    assert groups["input"] < groups["blocks"]


def test_flops_grow_with_the_pixels_and_are_counted_without_memory():
    small, large = (count_flops(make, inputs(1, side, side)) for side in (32, 64))
    assert 3.9 * small < large < 6 * small  # the trunk's attention is quadratic, the rest linear
    assert count_flops(make, inputs(4, 32, 32)) == pytest.approx(4 * small, rel=0.02)


def test_activations_grow_with_the_batch():
    def module() -> nn.Module:
        return make()

    one, four = (activation_bytes(module, inputs(rows, 32, 32)) for rows in (1, 4))
    assert 3.8 * one < four < 4.1 * one
    assert one > 32 * 32 * (TARGET + COND) * 4  # at least the input is kept
