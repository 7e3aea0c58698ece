"""Blocks of the split backbone: what they start as, and what they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.models.config import DiTSize
from stepsight.models.dit import DiTBlock
from stepsight.models.split import Block, ChannelNorm, ResidualBlock


def noise(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("embedding", [0, 16])
def test_a_residual_block_starts_as_the_identity_and_is_modulated(embedding: int):
    block = ResidualBlock(8, embedding)
    x = noise(2, 8, 6, 10)
    told = noise(2, 16) if embedding else None
    assert torch.equal(block(x, told), x)
    for p in block.parameters():
        p.data += 0.1 * noise(*p.shape)
    hidden = block.norm2(block.conv1(F.silu(block.norm1(x))))
    if told is not None and block.modulation is not None:
        scale, shift = block.modulation(told)[:, :, None, None].chunk(2, dim=1)
        hidden = hidden * (1 + scale) + shift
    same(block(x, told), x + block.conv2(F.silu(hidden)))


def test_a_norm_is_over_the_channels_of_a_place():
    x = noise(2, 8, 3, 5) * 3 + 1
    out = ChannelNorm(8)(x).detach()
    same(out.mean(dim=1), torch.zeros(2, 3, 5))
    same(out.var(dim=1, correction=0), torch.ones(2, 3, 5))


def test_its_transformer_block_is_dits():
    """Equal weights, equal answers: DiT's applies SiLU to the embedding and has no gates apart."""
    ours, dits = Block(24, 3, 0.7, modulated=True), DiTBlock(DiTSize(24, 1, 3), 0.7, qk_norm=False)
    for p in ours.parameters():
        p.data += 0.1 * noise(*p.shape)
    names = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    names["modulation"] = "adaLN_modulation.1"
    weights = {}
    for name, value in ours.state_dict().items():
        part, _, kind = name.rpartition(".")
        if part:
            weights[f"{names[part]}.{kind}"] = value
    weights["adaLN_modulation.1.bias"] = weights["adaLN_modulation.1.bias"] + ours.gates
    dits.load_state_dict(weights)
    x, embedding = noise(2, 7, 24), noise(2, 24, seed=8)
    found = ours(x, F.silu(embedding))
    torch.testing.assert_close(found, dits(x, embedding), atol=1e-4, rtol=1e-4)  # eps of the norms


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("gate", [0.0, 0.7])
def test_gates_start_as_told_and_the_rest_of_the_modulation_at_zero(gate: float, modulated: bool):
    block = Block(16, 2, gate, modulated)
    parts = block.gates.chunk(6)
    assert all((part == (gate if place in (2, 5) else 0)).all() for place, part in enumerate(parts))
    x, told = noise(3, 5, 16), noise(3, 16, seed=8) if modulated else None
    assert torch.equal(block(x, told), x) == (gate == 0)
