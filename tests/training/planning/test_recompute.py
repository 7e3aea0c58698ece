"""Activations computed again: the same numbers from less memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stepsight.models.config import ModelSettings
from stepsight.models.factory import build, repeated_blocks
from stepsight.models.moe import expert_usage
from stepsight.training.recompute import recompute

NAMES = ("DiT-32x4/4", "DiT-32x4/4-4E2A", "split-32", "unet-tiny")
MODES = ("block", "selective")


def network(name: str, mode: str = "none") -> nn.Module:
    """Rough weights: those of a new network let no gradient through."""
    torch.manual_seed(0)
    net = build(ModelSettings(name), target_channels=2, cond_channels=3, labels=2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    recompute(repeated_blocks(net), mode)
    return net


def walked(net: nn.Module) -> Tensor:
    """The gradient "p" of two calls under autocast, both with gradient."""
    x, *rest = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        first = net(x, *rest)
        again = net(first.detach(), *rest)
    (first.float().square().mean() + again.float().square().mean()).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def inputs(rows: int = 2, side: int = 32) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    x, cond = (torch.randn(rows, c, side, side, generator=draw) for c in (2, 3))
    return x, cond, torch.rand(rows, generator=draw), torch.arange(rows) % 2


def gradients(net: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Of two calls, the second on the answer of the first, as rollouts have them; balance too."""
    x, *rest = inputs()
    first = net(x, *rest)
    with torch.no_grad():
        again = net(first, *rest)
    loss = first.square().mean() + net(again, *rest).square().mean()
    for module in net.modules():
        if getattr(module, "mass", None) is not None:
            loss = loss + 0.1 * module.mass.square().mean()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_the_same_bit_for_bit(name, mode):
    (loss, grads), (again, found) = gradients(network(name)), gradients(network(name, mode))
    assert torch.equal(loss, again) and grads.keys() == found.keys()
    assert all(torch.equal(grads[name], found[name]) for name in grads)
    assert sum(bool(grad.any()) for grad in grads.values()) > 0.9 * len(grads)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_so_they_are_where_autocast_remembers_weights(name, mode):
    """A walk is a second call with gradient: of it autocast casts no weight again, and sums the
    gradients of both calls in bfloat16."""
    plain, found = walked(network(name)), walked(network(name, mode))
    assert (plain - found).norm() < 0.01 * plain.norm()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.filterwarnings("default")  # those of torch's tracing
def test_so_they_are_in_compiled_blocks(name, mode):
    """Traced as for a GPU, run as written."""
    plain, net = walked(network(name, mode)), network(name, mode)
    torch.compiler.reset()
    for block in repeated_blocks(net):
        block.compile(backend="aot_eager")
    found = walked(net)
    assert (plain - found).norm() < 0.01 * plain.norm()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_changes_its_name_or_its_answer(name):
    plain, other = network(name), network(name, "block")
    assert plain.state_dict().keys() == other.state_dict().keys()
    other.eval()
    with torch.no_grad():
        assert torch.equal(plain.eval()(*inputs()), other(*inputs()))
    assert torch.equal(plain(*inputs()), deepcopy(other)(*inputs()))


class Alive(TorchDispatchMode):
    """Bytes of the storages that operations made and that are not gone."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor) and one.untyped_storage()._cdata not in self.sizes:
                storage = one.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata)
        return out


def kept(name: str, mode: str) -> int:
    """Bytes after a forward pass, while its backward pass may still come."""
    net, given = network(name, mode), inputs(4)
    with Alive() as alive:
        out = net(*given)
    assert out.requires_grad
    return sum(alive.sizes.values())


@pytest.mark.parametrize("name", NAMES)
def test_memory_falls(name):
    whole, selective, block = (kept(name, mode) for mode in ("none", "selective", "block"))
    assert block < selective < whole
    assert block < (0.85 if name.startswith("split") else 0.6) * whole


@pytest.mark.parametrize("mode", MODES)
def test_what_experts_noted_is_that_of_the_first_run(mode):
    """The second one would hold on to its activations."""
    net, plain = network("DiT-32x4/4-4E2A", mode), network("DiT-32x4/4-4E2A")
    out, same = net(*inputs()), plain(*inputs())
    before = [module.mass for module in net.modules() if hasattr(module, "mass")]
    with Alive() as alive:
        (out.square().mean() + sum(mass.sum() for mass in before)).backward()
    after = [module.mass for module in net.modules() if hasattr(module, "mass")]
    assert len(before) == 4 and all(x is y for x, y in zip(before, after))
    assert torch.equal(expert_usage(net), expert_usage(plain)) and same.requires_grad
    own = [
        one.untyped_storage() for p in net.parameters() for one in (p, p.grad) if one is not None
    ]
    rest = alive.sizes.keys() - {storage._cdata for storage in own}
    assert sum(alive.sizes[key] for key in rest) < 10_000


@pytest.fixture
def mesh() -> Iterator[Any]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("mode", MODES)
def test_sharding_wraps_what_is_computed_again(mesh, mode):
    name = "DiT-32x4/4-4E2A"
    net, (loss, grads) = network(name, mode), gradients(network(name))
    for block in repeated_blocks(net):
        fully_shard(block, mesh=mesh)
    again, found = gradients(fully_shard(net, mesh=mesh))
    assert torch.equal(loss, again) and grads.keys() == found.keys()
    for name, grad in found.items():
        assert isinstance(grad, DTensor) and torch.equal(grad.full_tensor(), grads[name])
