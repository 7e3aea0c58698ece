"""The mixture of experts against a plain loop over tokens, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from stepsight.models import expert_loop
from stepsight.models import moe as moe_module
from stepsight.models.moe import MoE, balance_loss, expert_usage

WIDTH = 16


@pytest.fixture(params=["loop", "grouped"])
def way(request, monkeypatch) -> None:
    """Through the experts: one after the other, or all in one product, as on a GPU."""
    if request.param == "grouped":
        monkeypatch.setattr(moe_module, "GROUPED_DEVICES", ("cpu", "meta"))


def make(experts: int = 8, active: int = 2, **options) -> MoE:
    """A mixture with every parameter random, biases included, and a decided router."""
    torch.manual_seed(0)
    moe = MoE(WIDTH, experts, active, **options)
    for name, parameter in moe.named_parameters():
        if not name.endswith("weight") or name == "gate.weight":
            nn.init.normal_(parameter, std=0.5)
    return moe


def tokens_of(batch: int, tokens: int, width: int = WIDTH) -> Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(3))


def without_expert(moe: MoE, index: int, x: Tensor) -> Tensor:
    """Bend router and tokens (last channel at 1) so that nobody chooses the expert."""
    with torch.no_grad():
        moe.gate.weight[index] = 0
        moe.gate.weight[index, -1] = -50
    return torch.cat([x[..., :-1], torch.ones_like(x[..., :1])], dim=-1)


def mlp(stack: nn.Module, e: int, token: Tensor) -> Tensor:
    fc1, fc2 = stack.fc1, stack.fc2
    hidden = F.gelu(fc1.weight[e] @ token + fc1.bias[e], approximate="tanh")
    return fc2.weight[e] @ hidden + fc2.bias[e]


def by_token(moe: MoE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and balance loss, one token and one expert at a time."""
    experts, outputs = moe.gate.weight.shape[0], []
    probability, slots = torch.zeros(experts), torch.zeros(experts)
    for token in x.flatten(0, 1):
        chance = (moe.gate.weight @ token).softmax(dim=0)
        chosen = chance.argsort(descending=True)[: moe.active]
        total = chance[chosen].sum() if moe.renormalise else 1.0
        out = sum(chance[e] / total * mlp(moe.experts, e, token) for e in chosen.tolist())
        for e in range(0 if moe.shared is None else len(moe.shared.fc1.bias)):
            out = out + mlp(moe.shared, e, token)
        outputs.append(out)
        probability = probability + chance
        slots[chosen] += 1
    n = len(outputs)
    balance = experts * sum(p / n * s / (n * moe.active) for p, s in zip(probability, slots))
    return torch.stack(outputs).view_as(x), balance


def gradients(moe: MoE, x: Tensor, y: Tensor, balance: Tensor) -> dict[str, Tensor]:
    pull = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    wanted = dict(moe.named_parameters()) | {"x": x}
    found = torch.autograd.grad((y * pull).sum() + 3.0 * balance, list(wanted.values()))
    return dict(zip(wanted, found))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("tokens", [(2, 13), (1, 1)])
@pytest.mark.parametrize("experts, active", [(8, 2), (5, 1), (4, 4), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"renormalise": True}, {"shared": 2}])
@pytest.mark.parametrize("dodged", [False, True])
def test_values_and_gradients_are_those_of_a_loop_over_tokens(
    tokens, experts, active, options, dodged
):
    moe, x = make(experts, active, **options), tokens_of(*tokens)
    if dodged:
        x = without_expert(moe, 0, x)
    x.requires_grad_()
    y, expected = moe(x), by_token(moe, x)
    assert moe.balance is not None and moe.usage is not None
    assert moe.usage.shape == (len(x), experts)
    assert (moe.usage.sum(dim=0) == 0).any() == (
        dodged and experts > active or x.shape[1] == 1 < experts > active
    )
    torch.testing.assert_close((y, moe.balance), expected, atol=1e-5, rtol=1e-5)
    found, exact = gradients(moe, x, y, moe.balance), gradients(moe, x, *expected)
    for name, gradient in exact.items():
        error = (found[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1.0)
        assert error <= 1e-5, name


@pytest.mark.usefixtures("way")
def test_an_expert_without_tokens_has_a_gradient_of_zero():
    moe = make()
    x = without_expert(moe, 3, tokens_of(2, 20))
    moe(x).square().mean().backward()
    assert moe.usage is not None and not moe.usage[:, 3].any()
    for parameter in moe.experts.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[3].any() and parameter.grad.flatten(1).any(dim=1).sum() == 7


def test_gradients_in_double_precision_are_those_of_finite_differences():
    moe, x = make(3, 2, shared=1).double(), tokens_of(1, 4).double().requires_grad_()
    names, parameters = zip(*moe.named_parameters())

    def value(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.func.functional_call(moe, dict(zip(names, parameters)), x)
        assert moe.balance is not None
        return y, moe.balance

    assert torch.autograd.gradcheck(value, (x, *parameters), fast_mode=True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_stays_close_to_float32(autocast):
    """Under autocast the router sees float32 tokens: the same experts are chosen."""
    torch.manual_seed(0)
    moe, x = MoE(64, 8, 2, shared=1), tokens_of(4, 64, 64)
    if not autocast:  # weights and tokens rounded once, for both sides
        moe, x = moe.bfloat16().float(), x.bfloat16().float()
    exact, usage = moe(x), moe.usage
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rough = moe(x) if autocast else moe.bfloat16()(x.bfloat16())
    assert usage is not None and moe.usage is not None and torch.equal(moe.usage, usage)
    assert rough.dtype == (x.dtype if autocast else torch.bfloat16)
    assert 1e-5 < (rough.float() - exact).norm() / exact.norm() < 1e-2


@pytest.mark.usefixtures("way")
def test_gradients_under_autocast_stay_close_to_float32():
    torch.manual_seed(0)
    moe, x = MoE(64, 8, 2, shared=1), tokens_of(4, 64, 64).requires_grad_()
    y = moe(x)
    assert moe.balance is not None
    exact = gradients(moe, x, y, moe.balance)
    with torch.autocast("cpu", torch.bfloat16):
        y = moe(x)
    rough = gradients(moe, x, y, moe.balance)
    for name, gradient in exact.items():
        assert rough[name].dtype == gradient.dtype == torch.float32
        assert (rough[name] - gradient).norm() < 1e-2 * gradient.norm(), name


def test_renormalised_copies_of_one_mlp_are_that_mlp():
    moe, x = make(6, 3, renormalise=True), tokens_of(2, 9)
    with torch.no_grad():
        for parameter in moe.experts.parameters():
            parameter[:] = parameter[0].clone()
    hidden = F.linear(x, moe.experts.fc1.weight[0], moe.experts.fc1.bias[0])
    hidden = F.gelu(hidden, approximate="tanh")
    dense = F.linear(hidden, moe.experts.fc2.weight[0], moe.experts.fc2.bias[0])
    torch.testing.assert_close(moe(x), dense, atol=1e-5, rtol=1e-5)


def test_the_state_dict():
    shapes = {name: tuple(value.shape) for name, value in make(8, 2, shared=3).state_dict().items()}
    expected = {"gate.weight": (8, WIDTH)}
    for name, count in (("experts", 8), ("shared", 3)):
        expected |= {
            f"{name}.fc1.weight": (count, 4 * WIDTH, WIDTH),
            f"{name}.fc1.bias": (count, 4 * WIDTH),
            f"{name}.fc2.weight": (count, WIDTH, 4 * WIDTH),
            f"{name}.fc2.bias": (count, WIDTH),
        }
    assert shapes == expected
    assert "shared.fc1.weight" not in make().state_dict()


def test_experts_start_like_dense_mlps():
    """Xavier uniform, variance 2 / (in + out), within its bounds; biases at zero."""
    torch.manual_seed(0)
    moe = MoE(64, 4, 2)
    for layer in (moe.experts.fc1, moe.experts.fc2):
        assert not layer.bias.any()
        assert layer.weight.abs().max() <= (6 / 320) ** 0.5
        for weight in layer.weight.detach():
            assert weight.var().item() == pytest.approx(2 / 320, rel=0.03)


@pytest.mark.parametrize("width", [64, 512])
def test_routers_of_every_width_start_as_undecided(width):
    torch.manual_seed(0)
    logits = MoE(width, 64, 2).gate(torch.randn(256, width))
    assert logits.std().item() == pytest.approx(3**-0.5, rel=0.05)


def test_balance_is_one_for_an_even_load_and_the_number_of_experts_for_one():
    moe, x = MoE(WIDTH, 4, 1), torch.zeros(1, 8, WIDTH)
    x[0, torch.arange(8), torch.arange(8) % 4] = 1
    with torch.no_grad():
        moe.gate.weight.copy_(100 * torch.eye(4, WIDTH))
    moe(x)
    assert moe.usage is not None and moe.usage.tolist() == [[2, 2, 2, 2]]
    torch.testing.assert_close(balance_loss(moe), torch.tensor(1.0))
    moe(x[:, :1])
    assert moe.usage.tolist() == [[1, 0, 0, 0]]
    torch.testing.assert_close(balance_loss(moe), torch.tensor(4.0))


def test_descending_the_balance_loss_evens_the_load():
    torch.manual_seed(1)
    moe, x = make(), tokens_of(4, 64) + 1  # a common part, so some experts are liked by all
    optimizer = torch.optim.SGD([moe.gate.weight], lr=1.0)
    moe(x)
    assert moe.usage is not None
    before = moe.usage.sum(dim=0).float().std()
    for _ in range(20):
        optimizer.zero_grad()
        moe(x)
        balance_loss(moe).backward()
        optimizer.step()
    assert moe.usage.sum(dim=0).float().std() < 0.5 * before


def test_losses_and_usage_of_a_network():
    net = nn.Sequential(make(), nn.Linear(WIDTH, WIDTH), make(8, 2, shared=1))
    assert expert_usage(net) is None and balance_loss(net) == 0
    net(tokens_of(3, 7))
    first, last = net[0], net[2]
    usage = expert_usage(net)
    assert usage is not None and usage.shape == (2, 3, 8) and (usage.sum(dim=2) == 7 * 2).all()
    assert torch.equal(usage[1], last.usage)
    torch.testing.assert_close(balance_loss(net), first.balance + last.balance)
    balance_loss(net).backward()
    assert last.gate.weight.grad.any() and last.experts.fc1.weight.grad is None
    net.eval()(tokens_of(1, 2))
    assert balance_loss(net) == 0 and expert_usage(net).sum() == 2 * 1 * 2 * 2
    assert balance_loss(nn.Linear(2, 2)) == 0 and expert_usage(nn.Linear(2, 2)) is None


@pytest.mark.usefixtures("way")
def test_training_and_evaluation_route_alike_and_repeat_exactly():
    moe, x = make(shared=1), tokens_of(3, 11)
    once = moe(x)
    assert torch.equal(once, moe(x)) and torch.equal(once, moe.eval()(x))


@pytest.mark.usefixtures("way")
def test_a_token_does_not_depend_on_its_neighbours():
    moe, x = make(renormalise=True), tokens_of(3, 5)
    alone = torch.stack([moe(token[None, None])[0, 0] for token in x.flatten(0, 1)])
    torch.testing.assert_close(alone.view_as(x), moe(x), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_those_of_the_slots_three_times_in_training(device):
    experts, active, shared, tokens = 8, 2, 1, 30
    with torch.device(device):
        moe, x = MoE(WIDTH, experts, active, shared), torch.zeros(2, 15, WIDTH)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        moe(x)
    forward = counter.get_total_flops()
    assert forward == 2 * tokens * ((active + shared) * 8 * WIDTH**2 + experts * WIDTH)
    x.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        y = moe(x)
        y.backward(torch.ones_like(y))
    assert counter.get_total_flops() == 3 * forward


@pytest.mark.usefixtures("way")
def test_it_compiles_without_a_break():
    moe, x = make(shared=1), tokens_of(2, 9)
    compiled = torch.compile(moe, fullgraph=True, backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        expected, balance = moe(x), moe.balance
        torch.testing.assert_close(compiled(x), expected, atol=1e-5, rtol=1e-5)
    assert balance is not None and moe.balance is not balance
    torch.testing.assert_close(balance_loss(moe), balance)


def groups(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Rows, weights and ends of three experts; the second has no rows."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 8), (3, 12, 8), (3, 12), (3, 8, 12), (3, 8))
    given = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    given[0] = given[0].detach().to(dtype).requires_grad_()
    return *given, torch.tensor([3, 3, 7], dtype=torch.int32)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which opcheck itself looks at
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loop_is_an_operator_with_true_shapes_and_gradients(dtype, keep):
    """torch's own checks: schema, registration of gradients, shapes without data, compilation."""
    given = groups(dtype)
    if not keep:
        given = tuple(one.detach() for one in given)
    torch.library.opcheck(expert_loop.OPERATOR, (*given, keep))


def test_without_gradients_the_loop_keeps_nothing():
    *given, ends = groups()
    kept = expert_loop.OPERATOR(*given, ends, True)
    bare = expert_loop.OPERATOR(*given, ends, False)
    assert torch.equal(kept[0], bare[0])
    assert [len(one) for one in (*kept[1:], *bare[1:])] == [7, 7, 0, 0]


def test_half_precision_casts_weights_within_the_loop_and_keeps_no_copy_of_them():
    rows, w1, b1, w2, b2, ends = groups(torch.bfloat16)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: saved.append(one) or one, lambda x: x
    ):
        y = expert_loop.expert_loop(rows, (w1, b1), (w2, b2), ends)
    low = [one.detach().bfloat16() for one in (w1, b1, w2, b2)]
    expected = expert_loop.expert_loop(rows, (low[0], low[1]), (low[2], low[3]), ends)
    assert torch.equal(y, expected)
    assert {one.data_ptr() for one in saved} >= {w1.data_ptr(), w2.data_ptr()}
    assert all(one.dtype == torch.float32 for one in saved if one.ndim == 3)


def test_on_a_gpu_the_host_reads_nothing():
    """Tensors without data refuse to be read."""
    with FakeTensorMode(), torch.device("cuda"):
        moe = MoE(WIDTH, 8, 2, shared=1)
        y = moe(torch.randn(2, 9, WIDTH))
    assert y.device.type == "cuda" and y.requires_grad
