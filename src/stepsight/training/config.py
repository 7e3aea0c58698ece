"""Settings of the training loop (standard library only). Time is counted in images seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how fast, and what is written on the way. Intervals are in images, 0 = never."""

    images: int = 24000  # length of the run
    batch: int = 16  # global: over all processes and accumulation
    accumulate: int = 1  # micro-batches a step and process
    workers: int = 0  # processes a training process that read streamed sources; 0: the loop reads
    processes: int = 0  # 0: one a core on CPU (at most 2), else what the launcher gives
    precision: Literal["no", "bf16"] = "no"
    seed: int = 0

    optimizer: Literal["muon", "adamw"] = "muon"  # muon: matrices; adamw: everything else too
    lr: float = 3e-3  # of adamw
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0  # global gradient norm; 0 = off
    decay: Literal["cosine", "exponential", "constant"] = "cosine"
    final_lr: float = 0.02  # fraction of lr at the end
    warmup: int = 800  # images of linear warm-up
    ema: float = 0.99  # decay a step of the weights that are evaluated
    flip: bool = True  # mirror half of the images
    latents: str = ""  # folder of the latent cache, made where it lacks; empty: code as they come
    latents_dtype: Literal["float16", "float32"] = "float16"

    log_every: int = 1600
    validate_every: int = 8000
    first_validation: int = 2400  # an early one, so that there is something to look at
    validation_images: int = 64
    checkpoint_every: int = 8000
    keep: int = 2  # checkpoints kept besides the best
    evaluate: bool = True  # at the end: full evaluation, sweep and report
    tracker: Literal["none", "wandb", "wandb-offline"] = "none"
