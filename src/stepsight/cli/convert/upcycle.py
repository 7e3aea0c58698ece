"""`stepsight convert upcycle`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stepsight.cli.convert import new_folder, write_run


@dataclass(frozen=True)
class Args:
    """A DiT checkpoint with a mixture of experts in the place of every MLP."""

    checkpoint: str  # run folder or step folder
    out: Path  # folder to make
    experts: int = 8  # copies of each MLP
    top_k: int = 2  # experts per token
    weights: Literal["softmax", "renormalised"] = "renormalised"  # of the chosen experts
    shared: int = 0  # experts that serve every token, besides


def run(args: Args) -> int:
    out = new_folder(args.out)
    from stepsight import checkpoint
    from stepsight.conversion.upcycle import upcycle

    saved = checkpoint.read(args.checkpoint, lazy=True)
    write_run(upcycle(saved, args.experts, args.top_k, args.weights, args.shared), out)
    return 0
