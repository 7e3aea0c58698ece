"""A mixture of experts as published code computes it: a loop with a boolean mask an expert."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.models.moe import MoE


def masked_loop(moe: MoE, x: Tensor) -> Tensor:
    """What `moe` answers to x "b n d"; autocast and gradients as torch has them."""
    tokens = x.flatten(0, 1)
    with torch.autocast(x.device.type, enabled=False):  # or bfloat16 would choose other experts
        probability = moe.gate(tokens.float()).softmax(dim=-1)
    weight, expert = probability.topk(moe.active, dim=-1)
    rows, expert = tokens.repeat_interleave(moe.active, dim=0), expert.flatten()
    fc1, fc2 = moe.experts.fc1, moe.experts.fc2
    stacks = zip(*(p.unbind() for p in (fc1.weight, fc1.bias, fc2.weight, fc2.bias)))
    out = torch.empty_like(rows)
    for e, (w1, b1, w2, b2) in enumerate(stacks):
        mine = expert == e
        hidden = F.gelu(F.linear(rows[mine], w1, b1), approximate="tanh")
        out[mine] = F.linear(hidden, w2, b2).to(out.dtype)
    return (out.view(*weight.shape, -1) * weight[..., None]).sum(dim=1).view_as(x)
