"""Which optimizer moves which parameter: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stepsight.models.parametrisation import TensorRule
from stepsight.training.config import TrainingSettings
from stepsight.training.optim.muon import Muon


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: inner matrices and kernels; not embeddings, inputs or outputs."""
    edges = ("label", "time", "input", "output", "y_embedder", "t_embedder", "x_embedder", "final")
    edges += ("conv_in", "conv_out", "class")  # of a U-Net, whose names are those of diffusers
    other = name.removeprefix("unet.").startswith(edges) or name.endswith(("bias", "gate.weight"))
    modulation = "modulation" in name or "adaLN" in name
    return parameter.ndim in (2, 4) and not other and not modulation


def build_optimizers(
    net: nn.Module, settings: TrainingSettings, precision: str = "float32"
) -> list[torch.optim.Optimizer]:
    """The optimizers of a run; their learning rates are set anew before each step, times the
    `rate_scale` of each group, which is 1 but under muP (`models.parametrisation`). precision: what
    the network computes in."""
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    muon = settings.optimizer == "muon"
    matrices = {name: p for name, p in named.items() if muon and is_matrix(name, p)}
    rest = {name: p for name, p in named.items() if name not in matrices}
    # also stacked biases
    plain = {name: p for name, p in rest.items() if p.ndim <= 1 or name.endswith("bias")}
    decay = {name: p for name, p in rest.items() if name not in plain}
    rules: dict[str, TensorRule] | None = getattr(net, "rules", None)

    def groups(
        some: dict[str, nn.Parameter], rate: float, weight_decay: float, by: str
    ) -> list[dict[str, Any]]:
        """One a factor on the rate; rate x decay is the same in all."""
        scales: dict[float, list[nn.Parameter]] = {1.0: []}
        for name, p in some.items():
            scale = round(getattr(rules[name], by), 9) if rules else 1.0
            scales.setdefault(scale, []).append(p)
        return [
            {"params": alike, "lr": rate * scale, "weight_decay": weight_decay / scale}
            | {"rate_scale": scale}
            for scale, alike in scales.items()
        ]

    lr, kept = settings.lr, settings.weight_decay
    every = groups(decay, lr, kept, "adamw") + groups(plain, lr, 0.0, "adamw")
    adamw = torch.optim.AdamW(every, lr=lr, betas=settings.betas, fused=True)
    if not matrices:
        return [adamw]
    low = torch.float32 if precision == "float32" else torch.bfloat16  # which has float32's range
    inner = groups(matrices, settings.muon_lr, kept, "muon")
    return [adamw, Muon(inner, settings.muon_lr, settings.muon_momentum, kept, dtype=low)]
