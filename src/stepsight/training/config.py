"""Settings of the training loop (standard library only). Time is counted in images seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stepsight.execution.config import Precision


@dataclass(frozen=True)
class RowsSettings:
    """What the backbone is asked at: shares of the rows of a batch (docs/training.md).

    Every picture has a row that starts or one that is noised truth; the rollouts go on from answers
    of the same step, so that they come on top and take no share of the pictures.
    """

    start: float = 0.5  # at t = 1, from zeros
    rollout: float = 0.2  # further along the model's own trajectory from such a start
    denoise: float = 0.3  # truth, noised to a drawn level
    noisy: float = 0.2  # share of the starts that are noise in place of zeros
    deep: float = 0.25  # share of the steps whose rollouts take one more call on the way


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how fast, and what is written on the way. Intervals are in images, 0 = never."""

    images: int = 8000  # length of the run, in pictures; each serves all tasks it has truth for
    batch: int = 16  # pictures: over all processes and accumulation
    rows: RowsSettings = field(default_factory=RowsSettings)
    loss: Literal["auto", "task", "squared"] = "auto"  # each task's own error where it can be
    micro_batch: str = "auto"  # pictures a process takes at a time; auto: as many as memory holds
    workers: int = 0  # processes a training process that read streamed sources; 0: the loop reads
    processes: int = 0  # 0: one a core on CPU (at most 2), else what the launcher gives
    precision: Precision = "auto"  # of the network; auto: bf16 where it is fast
    sharding: Literal["none", "full", "hybrid"] = "none"  # weights, gradients, optimizer over GPUs:
    # full: over all processes (FSDP2); hybrid: within a machine, copies between machines
    recompute: Literal["none", "block", "selective"] = "none"  # activations in the backward pass:
    # block: all of a block's; selective: but for matrix products and attention
    seed: int = 0  # of weights, order, noise and augmentation

    optimizer: Literal["muon", "adamw"] = "muon"  # muon: matrices; adamw: everything else too
    lr: float = 3e-3  # of adamw
    muon_lr: float = 0.02  # of muon
    muon_momentum: float = 0.95  # of muon
    betas: tuple[float, float] = (0.9, 0.99)  # of adamw
    weight_decay: float = 0.01  # of both, decoupled
    clip: float = 1.0  # global gradient norm; 0 = off
    # of the learning rates; wsd: constant, then down by 1 - sqrt over the last decay_share
    decay: Literal["cosine", "exponential", "constant", "wsd"] = "cosine"
    decay_share: float = 0.2  # of the images, with decay wsd
    final_lr: float = 0.02  # fraction of lr at the end
    warmup: int = 320  # images of linear warm-up
    ema: float = 0.99  # decay a step of the weights that are evaluated, after a warm-up
    flip: bool = True  # mirror half of the images
    latents: str = ""  # folder of the latent cache, made where it lacks; empty: code as they come
    latents_dtype: Literal["float16", "float32"] = "float16"  # of the latent cache

    on_spike: Literal["stop", "skip", "rewind"] = "skip"  # at a loss or gradient that is no number
    spike: float = 0.0  # a gradient norm this many times the recent median is a spike too; 0 = off
    spike_cap: int = 8  # steps skipped in a row, or rewinds of the run, before it stops
    rewind_lr: float = 0.5  # factor on the learning rates after a rewind
    on_bad: Literal["stop", "skip"] = "stop"  # at a sample that cannot be read
    bad_cap: float = 0.01  # share of a source's samples that may be skipped

    log_every: int = 400  # between lines of losses
    validate_every: int = 8000  # between validations
    first_validation: int = 800  # an early one, so that there is something to look at
    validation_images: int = 64  # of each source
    checkpoint_every: int = 4000  # between checkpoints
    save_minutes: float = 30.0  # between them by the clock, whichever comes first
    keep: int = 2  # checkpoints kept besides the best
    keep_at: tuple[int, ...] = ()  # images after which one is written and kept as well
    evaluate: bool = True  # at the end: full evaluation, sweep and report
    tracker: Literal["none", "wandb", "wandb-offline"] = "none"  # where curves are also sent

    @property
    def steady(self) -> int:
        """Images, in whole batches, up to which runs that differ in `images` alone are the same:
        before that, nothing follows from how long the run is."""
        shares = {"constant": 1.0, "wsd": 1 - self.decay_share}
        return int(shares.get(self.decay, 0.0) * self.images + 1e-6) // self.batch * self.batch
