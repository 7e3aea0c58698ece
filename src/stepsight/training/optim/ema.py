"""The moving average of the parameters, which is what is evaluated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stepsight.averages import decay_at
from stepsight.training.sharding import like, local


class EMA:
    """Exponential moving average of the parameters, in a dictionary by name.

    The decay warms up (`averages.decay_at`): an early average is one of weights that were trained.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, net: nn.Module, updates: int) -> None:
        current, averages = local(p.detach() for p in net.parameters()), local(self.values.values())
        decay = decay_at(self.decay, updates)
        torch._foreach_lerp_(averages, current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def load(self, weights: dict[str, Tensor], device: torch.device) -> None:
        """Take averaged weights from a checkpoint."""
        for name, value in self.values.items():
            value.copy_(like(weights[name].to(device), value))

    @torch.no_grad()
    def swap(self, net: nn.Module) -> None:
        """Exchange the network's parameters with the average: call it twice to come back."""
        for name, p in net.named_parameters():
            held = self.values[name].clone()
            self.values[name].copy_(p)
            p.copy_(held)
