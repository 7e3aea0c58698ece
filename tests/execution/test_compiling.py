"""Blocks are compiled in place on GPUs, and only there."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from stepsight.execution.compiling import compiled
from stepsight.models.config import DiTSize
from stepsight.models.dit import DiT
from stepsight.models.factory import repeated_blocks


def test_on_a_cpu_nothing_is_compiled():
    net = nn.Linear(2, 2)
    compiled([net], "cpu")
    assert net._compiled_call_impl is None


@pytest.mark.filterwarnings("default")  # the compiler itself asks for what warns
@pytest.mark.parametrize("experts", [0, 4])
def test_a_compiled_block_answers_as_before_under_the_same_names(experts, monkeypatch):
    """With the compiler's own eager backend, so that its view of the block is what is tested."""
    torch.manual_seed(0)
    size = DiTSize(32, 2, 2, patch=2, experts=experts, active=2 if experts else 0)
    net = DiT(size, target_channels=2, cond_channels=3, labels=2, gate_init=0.5)
    for parameter in net.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    plain, compile = deepcopy(net), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile(self, backend="aot_eager"))
    compiled(repeated_blocks(net), "cuda")
    assert list(net.state_dict()) == list(plain.state_dict())
    x, cond = torch.randn(3, 2, 8, 8), torch.randn(3, 3, 8, 8)
    given = x, cond, torch.rand(3), torch.tensor([0, 1, 1])
    ours, theirs = (one(*given) for one in (net, plain))
    torch.testing.assert_close(ours, theirs)
    for one in (ours, theirs):
        one.square().sum().backward()
    for ours, theirs in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)
