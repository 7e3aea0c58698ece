"""Muon against plain linear algebra and torch's own; who trains what; the rate; the average."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from stepsight.models.config import ModelSettings
from stepsight.models.factory import build
from stepsight.training.config import TrainingSettings
from stepsight.training.optim import (
    EMA,
    Muon,
    build_optimizers,
    is_matrix,
    orthogonalise,
    rate,
    set_rate,
)
from stepsight.training.optim.muon import NEWTON_SCHULZ

SETTINGS = TrainingSettings()


def with_spectrum(values: Tensor, rows: int, columns: int, seed: int) -> Tensor:
    """A matrix with given singular values in random directions."""
    draw = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=draw)).Q
    right = torch.linalg.qr(torch.randn(columns, len(values), generator=draw)).Q
    return left @ values.diag() @ right.T


def textbook(matrix: Tensor) -> Tensor:
    """The quintic iteration by the singular values: each is sent through the polynomial alone."""
    a, b, c = NEWTON_SCHULZ
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return u @ s.diag() @ v


@pytest.mark.parametrize("rows, columns", [(16, 16), (12, 40), (40, 12), (1, 9)])
def test_singular_values_come_near_one(rows, columns):
    values = torch.logspace(-1.7, 0, min(rows, columns))
    found = torch.linalg.svdvals(orthogonalise(with_spectrum(values, rows, columns, 0)[None])[0])
    assert 0.6 < found.min() and found.max() < 1.3


@pytest.mark.parametrize("rows, columns", [(16, 16), (12, 40), (40, 12)])
def test_the_iteration_is_newton_schulz(rows, columns):
    matrices = torch.randn(5, rows, columns, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([textbook(one) for one in matrices])
    torch.testing.assert_close(orthogonalise(matrices).double(), expected, atol=3e-5, rtol=0)


def test_a_batch_is_the_matrices_one_by_one_whatever_their_scale():
    matrices = torch.randn(4, 8, 24, generator=torch.Generator().manual_seed(2))
    matrices *= torch.tensor([1e-4, 1.0, 10.0, 1e4])[:, None, None]
    alone = torch.cat([orthogonalise(one[None]) for one in matrices])
    torch.testing.assert_close(orthogonalise(matrices), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        orthogonalise(matrices * 7), orthogonalise(matrices), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("rows, columns", [(24, 24), (24, 96)])
def test_small_singular_values_are_as_exact_as_by_the_plain_iteration(rows, columns):
    """Which the Gram matrix squares: they fall to 1e-6 of the largest."""
    a, b, c = NEWTON_SCHULZ
    matrix = with_spectrum(torch.logspace(-6, 0, rows), rows, columns, 6)
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    expected = textbook(matrix)
    plain, found = ((one - expected).norm() for one in (x, orthogonalise(matrix[None])[0]))
    assert found < max(5 * plain, 1e-5 * expected.norm())


def test_in_bfloat16_the_directions_stay():
    matrices = torch.randn(3, 48, 160, generator=torch.Generator().manual_seed(7))
    exact, found = orthogonalise(matrices), orthogonalise(matrices, torch.bfloat16)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.999


def test_a_zero_gradient_moves_nothing():
    assert orthogonalise(torch.zeros(2, 4, 6)).eq(0).all()


def steps_of(optimizer: torch.optim.Optimizer, p: nn.Parameter, gradients: Tensor) -> Tensor:
    for gradient in gradients:
        p.grad = gradient.reshape(p.shape).clone()
        optimizer.step()
    return p.detach()


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_muon_walks_as_torch_muon_up_to_bfloat16(shape):
    draw = torch.Generator().manual_seed(3)
    start, gradients = torch.randn(shape, generator=draw), torch.randn(6, *shape, generator=draw)
    options = dict(lr=0.02, momentum=0.95, weight_decay=0.1)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    walked = steps_of(Muon([ours], **options), ours, gradients) - start
    peer = steps_of(torch.optim.Muon([theirs], **options), theirs, gradients) - start
    assert torch.cosine_similarity(walked.flatten(), peer.flatten(), dim=0) > 0.999
    assert (walked - peer).norm() < 0.02 * peer.norm()


def test_a_kernel_is_the_matrix_of_outputs_by_the_rest():
    draw = torch.Generator().manual_seed(4)
    start, gradients = torch.randn(8, 36, generator=draw), torch.randn(3, 8, 36, generator=draw)
    flat, kernel = nn.Parameter(start.clone()), nn.Parameter(start.reshape(8, 4, 3, 3).clone())
    one = steps_of(Muon([flat], 0.02, 0.95, 0.01), flat, gradients)
    two = steps_of(Muon([kernel], 0.02, 0.95, 0.01), kernel, gradients)
    assert torch.equal(one, two.reshape(8, 36))


def test_parameters_of_one_shape_do_not_mix_and_those_without_gradient_rest():
    draw = torch.Generator().manual_seed(5)
    starts, gradients = torch.randn(3, 6, 10, generator=draw), torch.randn(3, 6, 10, generator=draw)
    together = [nn.Parameter(one.clone()) for one in starts]
    for p, gradient in zip(together[:2], gradients):
        p.grad = gradient.clone()
    Muon(together, 0.02, 0.95, 0.01).step()
    for p, start, gradient in zip(together[:2], starts, gradients):
        alone = nn.Parameter(start.clone())
        expected = steps_of(Muon([alone], 0.02, 0.95, 0.01), alone, gradient[None])
        torch.testing.assert_close(p.detach(), expected, atol=1e-6, rtol=0)
    assert torch.equal(together[2].detach(), starts[2])


def found_ill(*verdicts: float) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Parameters and optimizer state after steps of which some (1) are not to be made: those have
    a gradient that is no number."""
    draw = torch.Generator().manual_seed(8)
    params = [
        nn.Parameter(torch.randn(*shape, generator=draw)) for shape in [(6, 10), (6, 10), (9,)]
    ]
    muon = Muon(params[:2], 0.02, 0.95, 0.1)
    adamw = torch.optim.AdamW(params[2:], lr=0.02, weight_decay=0.1, fused=True)
    gradients = iter(torch.randn(8, 3, 60, generator=torch.Generator().manual_seed(9)))
    for verdict in verdicts:
        for p, gradient in zip(
            params, torch.full((3, 60), math.nan) if verdict else next(gradients)
        ):
            p.grad = gradient[: p.numel()].reshape(p.shape).clone()
        for optimizer in (muon, adamw):
            optimizer.found_inf = torch.tensor(verdict)  # type: ignore[attr-defined]
            optimizer.step()
    slots = [{**one.state[p]} for one, p in zip((muon, muon, adamw), params)]
    return [p.detach() for p in params], slots


@pytest.mark.parametrize("verdicts", [(0, 1, 0, 1, 1, 0), (1, 0, 0, 0)])
def test_a_step_that_is_not_to_be_made_leaves_weights_and_state_bit_for_bit(verdicts):
    weights, slots = found_ill(*map(float, verdicts))
    expected, others = found_ill(*(0.0 for verdict in verdicts if not verdict))
    assert all(map(torch.equal, weights, expected))
    for one, other in zip(slots, others):
        assert all(torch.equal(one[name], other[name]) for name in one)


def network(name: str, **settings) -> nn.Module:
    with torch.device("meta"):
        return build(
            ModelSettings(name=name, **settings),
            target_channels=7,
            cond_channels=6,
            labels=4,
            feature_channels=81,
        )


NETWORKS = [
    ("split-32", {}),
    ("DiT-Ti/4", {"input": "per_task"}),
    ("DiT-Ti/2", {}),
]
EXPERTS = ("DiT-Ti/2-4E2A", {"shared_experts": 1})


def groups_of(net: nn.Module, optimizer: str) -> tuple[dict[str, nn.Parameter], ...]:
    """Parameters by name: AdamW's with decay, AdamW's without, Muon's."""
    names = {id(p): name for name, p in net.named_parameters()}
    found = build_optimizers(net, replace(SETTINGS, optimizer=optimizer))
    adamw, *muon = [one.param_groups for one in found]
    assert [group["weight_decay"] > 0 for group in adamw] == [True, False]
    groups = [*adamw, *(group for every in muon for group in every)]
    return tuple({names[id(p)]: p for p in group["params"]} for group in groups)


@pytest.mark.parametrize("name, settings", NETWORKS)
def test_muon_takes_inner_matrices_only(name, settings):
    net = network(name, **settings)
    taken = {n for n, p in net.named_parameters() if is_matrix(n, p)}
    left = dict(net.named_parameters()).keys() - taken
    embeddings = {
        f"{n}.weight" for n, module in net.named_modules() if isinstance(module, nn.Embedding)
    }
    assert embeddings and embeddings <= left
    assert any("qkv" in n for n in taken) and any("fc1" in n for n in taken)
    edges = ("input", "output", "time", "label", "modulation", "adaLN", "embed", "final")
    own = [n for n in taken if not n.startswith("encoder.")]  # a network before the network
    assert not [n for n in own if any(word in n for word in edges)]
    matrices = {n for n, p in net.named_parameters() if p.ndim in (2, 4)}
    assert not [n for n in matrices & left if not any(word in n for word in edges)]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("name, settings", [*NETWORKS, EXPERTS])
def test_every_parameter_has_one_optimizer(name, settings, optimizer):
    net = network(name, **settings)
    found = build_optimizers(net, replace(SETTINGS, optimizer=optimizer))
    assert [type(one).__name__ for one in found] == ["AdamW", "Muon"][: 1 + (optimizer == "muon")]
    held = [id(p) for one in found for group in one.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    decayed, plain, *_ = groups_of(net, optimizer)
    assert plain and all(p.ndim == 1 or name.endswith("bias") for name, p in plain.items())
    assert all(p.ndim > 1 and not name.endswith("bias") for name, p in decayed.items())


def test_of_experts_and_routers():
    """Stacks of matrices are no matrix: AdamW has them with decay, and their biases without."""
    decayed, plain, matrices = groups_of(network(EXPERTS[0], **EXPERTS[1]), "muon")
    experts = {
        f"blocks.{block}.moe.{kind}.fc{layer}"
        for block in range(3)
        for kind in ("experts", "shared")
        for layer in (1, 2)
    }
    assert {f"{name}.weight" for name in experts} <= decayed.keys()
    assert {f"{name}.bias" for name in experts} <= plain.keys()
    assert {f"blocks.{block}.moe.gate.weight" for block in range(3)} <= decayed.keys()
    assert not [name for name in matrices if ".moe." in name]


def test_the_rate_warms_up_and_falls_along_a_cosine():
    settings = replace(SETTINGS, images=6400, batch=16, warmup=160, final_lr=0.02)
    factors = [rate(settings, images) for images in range(0, 6400 + 1, 16)]
    assert factors[0] == pytest.approx(16 / 160, rel=1e-3)
    assert max(factors) == pytest.approx(1, abs=0.01) and factors.index(max(factors)) in (9, 10)
    assert all(a > b for a, b in zip(factors[10:], factors[11:]))
    assert factors[200] == pytest.approx((1 + 0.02) / 2)
    assert factors[-1] == pytest.approx(0.02)
    assert rate(settings, 3200) == factors[200]  # of images alone, not of what was asked before


@pytest.mark.parametrize("decay, middle, end", [("exponential", 0.1, 0.01), ("constant", 1, 1)])
def test_the_other_decays(decay, middle, end):
    settings = replace(SETTINGS, images=1600, warmup=0, final_lr=0.01, decay=decay)
    assert [rate(settings, images) for images in (0, 800, 1600)] == pytest.approx([1, middle, end])


def test_a_set_rate_scales_each_optimizers_own():
    net = nn.Sequential(nn.Linear(4, 4))
    found = build_optimizers(net, replace(SETTINGS, lr=0.003, muon_lr=0.02))
    for _ in range(2):  # set, not multiplied
        set_rate(found, 0.5)
    rates = [{group["lr"] for group in one.param_groups} for one in found]
    assert rates == [{0.0015}, {0.01}]


def averaged(decay: float, first: int) -> tuple[EMA, list[dict[str, Tensor]]]:
    """The average after four updates, of which the first is number `first`, and the weights walked
    through."""
    net = nn.Linear(3, 2)
    average, walk = EMA(net, decay), [{n: p.detach().clone() for n, p in net.named_parameters()}]
    for number in range(4):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape))
        average.update(net, first + number)
        walk.append({name: p.detach().clone() for name, p in net.named_parameters()})
    return average, walk


def test_the_average_is_exponential():
    """Late in a run: its warm-up is over at (1 + n) / (10 + n) = 0.9."""
    average, walk = averaged(0.9, first=80)
    weights = [0.9**4] + [0.1 * 0.9 ** (4 - k) for k in range(1, 5)]
    assert math.isclose(sum(weights), 1)
    for name, value in average.values.items():
        expected = sum(w * one[name] for w, one in zip(weights, walk))
        torch.testing.assert_close(value, expected)


def test_an_early_average_is_one_of_weights_that_were_trained():
    """The decays 1/10, 2/11, 3/12 and 4/13 multiplied out: what the run began with has nearly no
    weight, where 0.99 alone would give it 96 %."""
    average, walk = averaged(0.99, first=0)
    decays = [1 / 10, 2 / 11, 3 / 12, 4 / 13]
    weights = [math.prod(decays)]
    weights += [(1 - own) * math.prod(decays[k + 1 :]) for k, own in enumerate(decays)]
    assert math.isclose(sum(weights), 1) and weights[0] < 0.002
    for name, value in average.values.items():
        expected = sum(w * one[name] for w, one in zip(weights, walk))
        torch.testing.assert_close(value, expected)


def test_the_decay_warms_up_to_its_value_and_no_further():
    """From zeros to ones, an update moves the average by what the decay leaves."""
    net, decays = nn.Linear(3, 2), []
    for updates in (0, 1, 8, 90, 880, 890, 891, 892, 5000):
        average = EMA(net, 0.99)
        for value in average.values.values():
            value.zero_()
        with torch.no_grad():
            net.bias.fill_(1.0)
        average.update(net, updates)
        decays.append(1 - float(average.values["bias"][0]))
    growing = [(1 + n) / (10 + n) for n in (0, 1, 8, 90, 880, 890)]
    assert decays == pytest.approx([*growing, 0.99, 0.99, 0.99], abs=1e-6)


def test_swapping_twice_is_nothing():
    net = nn.Linear(3, 2)
    average = EMA(net, 0.5)
    with torch.no_grad():
        net.weight.add_(1)
    own, averaged = net.weight.detach().clone(), average.values["weight"].clone()
    average.swap(net)
    assert torch.equal(net.weight, averaged) and torch.equal(average.values["weight"], own)
    average.swap(net)
    assert torch.equal(net.weight, own) and torch.equal(average.values["weight"], averaged)


def test_a_loaded_average_shares_no_memory():
    net = nn.Linear(3, 2)
    average = EMA(net, 0.5)
    weights = {name: torch.full_like(p, 3) for name, p in net.named_parameters()}
    average.load(weights, torch.device("cpu"))
    average.update(net, 100)
    torch.testing.assert_close(average.values["bias"], (3 + net.bias.detach()) / 2)
    assert weights["bias"].eq(3).all()
