"""muP: what each tensor has, and that what layers learn in a few steps is the same at every width
and depth (the coordinate check of Yang et al. 2022, appendix D.1), which it is not in standard."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stepsight.errors import UserError
from stepsight.models.config import SPLIT, ModelSettings, SplitSize
from stepsight.models.factory import build
from stepsight.models.parametrisation import rules_of
from stepsight.training.config import TrainingSettings
from stepsight.training.optim import (
    build_optimizers,
    pack_optimizers,
    set_rate,
    unpack_optimizers,
)

SETTINGS = TrainingSettings()
WIDTHS, DEPTHS = (32, 64, 128, 256), (2, 4, 8)
STEPS = 3


def network(name: str, parametrisation: str, seed: int = 0, **more: Any) -> nn.Module:
    torch.manual_seed(seed)
    settings = ModelSettings(name=name, parametrisation=parametrisation, **more)  # type: ignore[arg-type]
    return build(settings, target_channels=1, cond_channels=3, labels=1)


def build_with_features(width: int) -> nn.Module:
    channels = dict(target_channels=1, cond_channels=3, labels=1, feature_channels=81)
    with torch.device("meta"):
        return build(ModelSettings(name=f"DiT-{width}x4/8"), **channels)


def mup(name: str, **more: Any) -> nn.Module:
    return network(name, "mup", **more)


def example(size: int = 16) -> tuple[Tensor, ...]:
    """x, condition, time and label of 8 rows; few places."""
    draw = torch.Generator().manual_seed(1)
    x, cond = (torch.randn(8, c, size, size, generator=draw) for c in (1, 3))
    return x, cond, 1000 * torch.rand(8, generator=draw), torch.zeros(8, dtype=torch.long)


def learn(net: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int = STEPS) -> None:
    given = example()
    truth = 2 * F.avg_pool2d(given[1].mean(1, keepdim=True), 5, 1, 2)
    for _ in range(steps):
        (net(*given) - truth).square().mean().backward()
        set_rate(optimizers, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def sizes(net: nn.Module, watched: dict[str, str], optimizer: str) -> dict[str, float]:
    """Of the change of what modules answer (by a name of their own) in a few steps."""
    found: dict[str, list[Tensor]] = {}
    for own, name in watched.items():
        answers = found.setdefault(own, [])
        net.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, answers=answers: answers.append(out.detach())
        )
    optimizers = build_optimizers(net, replace(SETTINGS, optimizer=optimizer))
    learn(net, optimizers)
    net(*example())
    return {own: float((every[-1] - every[0]).std()) for own, every in found.items()}


DIT = {name: f"blocks.1.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
DIT |= {"tokens": "blocks.1", "answer": "final_layer", "time": "t_embedder"}
EXPERTS = {"moe": "blocks.1.moe", "tokens": "blocks.1", "answer": "final_layer"}
PARTS = {"encoder": "encoder.trunk.0", "trunk": "blocks.0", "fc1": "blocks.0.fc1", "up": "up4"}
PARTS |= {"middle": "middle.0", "fine": "fine.0", "answer": "output"}


def spread(values: list[float]) -> float:
    return max(values) / min(values)


def by_size(form: str, places: tuple[int, ...], how: str, optimizer: str, watched: dict[str, str]):
    """Sizes of changes by name, one a place."""
    every = []
    for place in places:
        names = {own: name.replace("LAST", str(place - 1)) for own, name in watched.items()}
        every.append(sizes(network(form.format(place), how), names, optimizer))
    return {own: [one[own] for one in every] for own in watched}


@pytest.fixture
def splits(monkeypatch):
    """split-of-<width>, of which the rules change nothing at 64: in these, widths are cheap."""
    for width in WIDTHS:
        size = SplitSize((width // 4, width // 2), width, width // 32, (1, 1), 1, 1, (1, 1))
        monkeypatch.setitem(SPLIT, f"split-of-{width}", size)
    monkeypatch.setattr("stepsight.models.parametrisation.BASE_SPLIT", "split-of-64")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("form", "watched"),
    [("DiT-{}x2/8", DIT), ("DiT-{}x2/8-4E2A", EXPERTS), ("split-of-{}", PARTS)],
)
def test_what_is_learned_in_a_few_steps_does_not_depend_on_width(splits, form, watched, optimizer):
    for own, values in by_size(form, WIDTHS, "mup", optimizer, watched).items():
        assert spread(values) < 2, (own, values)


@pytest.mark.parametrize(
    ("form", "optimizer", "grows"),
    [("DiT-{}x2/8", "adamw", "attn.proj"), ("DiT-{}x2/8", "muon", "answer")],
)
def test_in_standard_parametrisation_it_grows_with_width(form, optimizer, grows):
    values = by_size(form, WIDTHS, "standard", optimizer, {grows: DIT[grows]})[grows]
    assert values == sorted(values) and spread(values) > 2.3


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_nor_on_depth_where_it_grows_in_standard(optimizer):
    """Towards a limit from above: two blocks, of twice the base's share, are far from it."""
    form, watched = "DiT-32x{}/8", {"tokens": "blocks.LAST"}
    (found,) = by_size(form, DEPTHS, "mup", optimizer, watched).values()
    (usual,) = by_size(form, DEPTHS, "standard", optimizer, watched).values()
    assert spread(found) < 1.8 and usual == sorted(usual) and spread(usual) > 2


@pytest.mark.parametrize("name", ["DiT-64x4/8", "DiT-64x4/4-4E2A", "split-32"])
def test_of_the_base_nothing_changes(name):
    usual, net = network(name, "standard"), mup(name)
    for one, other in zip(usual.parameters(), net.parameters(), strict=True):
        assert torch.equal(one, other)
    groups = [
        [(len(group["params"]), group["lr"], group["weight_decay"]) for group in one.param_groups]
        for every in (usual, net)
        for one in build_optimizers(every, SETTINGS)
    ]
    assert groups[: len(groups) // 2] == groups[len(groups) // 2 :] and not hasattr(usual, "rules")


TABLE = {  # tensor: initial values, rate of AdamW
    "x_embedder.proj.weight": (1, 1),
    "y_embedder.embedding_table.weight": (1, 1),
    "t_embedder.mlp.0.weight": (1, 1),
    "t_embedder.mlp.2.weight": (1 / 2, 1 / 4),
    "blocks.7.attn.qkv.weight": (1, 1 / 4),
    "blocks.7.attn.proj.weight": (1 / 2, 1 / 8),
    "blocks.7.attn.proj.bias": (1, 1 / 2),  # zero at the start
    "blocks.0.moe.gate.weight": (1 / 2, 1 / 4),
    "blocks.0.moe.experts.fc1.weight": (1, 1 / 4),
    "blocks.0.moe.shared.fc2.weight": (1 / 2, 1 / 8),
    "blocks.0.adaLN_modulation.1.weight": (1, 1 / 4),
    "blocks.0.adaLN_modulation.1.bias": (1, 1),  # the gates
    "final_layer.linear.weight": (1, 1 / 4),
}


def test_the_table_of_rules():
    """Of a model four times as wide and twice as deep as the base."""
    with torch.device("meta"):
        rules = mup("DiT-256x8/8-4E2A", shared_experts=1).rules
    found = {name: (rules[name].initial, rules[name].adamw) for name in TABLE}
    assert found == TABLE


def test_muon_learns_hidden_matrices_of_any_width_at_one_rate():
    """Its updates meet the spectral condition; `features` reads 81 channels, so that the largest
    update of sqrt(max(1, width / 81)) has to become one of sqrt(width / 81)."""
    rules = rules_of(*(build_with_features(width) for width in (256, 64)))
    assert rules["blocks.0.attn.qkv.weight"].muon == rules["blocks.0.mlp.fc2.weight"].muon == 1
    assert rules["features.weight"].muon * math.sqrt(256 / 81) == pytest.approx(2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rate_times_decay_is_the_same_for_all_and_every_parameter_has_its_rate(optimizer):
    net = mup("DiT-128x8/8-4E2A", qk_norm=True)
    optimizers = build_optimizers(net, replace(SETTINGS, optimizer=optimizer))
    set_rate(optimizers, 0.5)
    names, found = {id(p): name for name, p in net.named_parameters()}, {}
    for one in optimizers:
        by = "muon" if one.defaults.get("momentum") else "adamw"
        for group in one.param_groups:
            for p in group["params"]:
                found[names[id(p)]] = group["lr"] / (0.5 * one.defaults["lr"])
                expected = getattr(net.rules[names[id(p)]], by)
                assert found[names[id(p)]] == pytest.approx(expected)
                kept = group["lr"] * group["weight_decay"] / one.defaults["lr"]
                assert kept in (0, pytest.approx(0.5 * SETTINGS.weight_decay))
    assert found.keys() == net.rules.keys()


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_counts_by_the_width_of_its_heads(qk_norm):
    """Of a head 16 wide: products over 16 in place of 4, in units of heads 32 wide."""
    usual, net = (network("DiT-16x2/8", how, qk_norm=qk_norm) for how in ("standard", "mup"))
    one, other = (every.get_submodule("blocks.0.attn") for every in (usual, net))
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(2))
    q, k, v = rearrange(one.qkv(x), "b n (three h d) -> three b h n d", three=3, h=1)
    q, k = one.q_norm(q), one.k_norm(k)
    mixed = F.scaled_dot_product_attention(q, k, v, scale=math.sqrt(32) / 16)
    expected = 2 * one.proj(rearrange(mixed, "b h n d -> b n (h d)"))  # 2 blocks, 4 in the base
    torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5)


def test_factors_moved_into_weights_and_rates_walk_as_factors_before_them():
    """AdamW on s W at a rate of s lr and a decay of wd / s, and on s times W, up to its epsilon."""
    draw, factor = torch.Generator().manual_seed(3), 0.25
    start, x = torch.randn(6, 10, generator=draw), torch.randn(32, 10, generator=draw)
    inside, before = nn.Parameter(factor * start), nn.Parameter(start.clone())
    one = torch.optim.AdamW([inside], lr=0.01 * factor, weight_decay=0.1 / factor, eps=0)
    other = torch.optim.AdamW([before], lr=0.01, weight_decay=0.1, eps=0)
    for _ in range(5):
        for p, scale, optimizer in ((inside, 1.0, one), (before, factor, other)):
            (scale * x @ p.T).sin().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(inside, factor * before, rtol=1e-4, atol=1e-6)


def test_a_run_goes_on_from_its_optimizers_state():
    def begun() -> tuple[nn.Module, list[torch.optim.Optimizer]]:
        net = mup("DiT-32x2/8")
        return net, build_optimizers(net, SETTINGS)

    (net, optimizers), (again, others) = begun(), begun()
    learn(net, optimizers, 2)
    again.load_state_dict(net.state_dict())
    saved = {name: value.clone() for name, value in pack_optimizers(optimizers).items()}
    unpack_optimizers(others, saved, "here")
    learn(net, optimizers, 2)
    learn(again, others, 2)
    assert all(map(torch.equal, net.parameters(), again.parameters()))


@pytest.mark.parametrize("name", ["unet-tiny", "unet"])
def test_a_unet_has_no_base(name):
    with pytest.raises(UserError, match="mup is for DiT and split backbones: 'unet"):
        mup(name)
