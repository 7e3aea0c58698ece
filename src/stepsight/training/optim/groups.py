"""Which optimizer moves which parameter: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

import torch
from torch import nn

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
    """The optimizers of a run; their learning rates are set anew before each step. precision: what
    the network computes in."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if settings.optimizer == "muon" and is_matrix(name, p)]
    chosen = {id(p) for p in matrices}
    rest = [(name, p) for name, p in named if id(p) not in chosen]
    plain = [p for name, p in rest if p.ndim <= 1 or name.endswith("bias")]  # also stacked biases
    decay = [p for name, p in rest if p.ndim > 1 and not name.endswith("bias")]
    groups = [
        {"params": decay, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)
    if not matrices:
        return [adamw]
    how = settings.muon_lr, settings.muon_momentum, settings.weight_decay
    low = torch.float32 if precision == "float32" else torch.bfloat16  # which has float32's range
    return [adamw, Muon(matrices, *how, dtype=low)]
