"""Where a run stands: all that its checkpoints hold of it besides weights and optimizers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, Self

from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.training.health import WINDOW

# What may differ when a run is continued: how long it is, what it logs and keeps, who reads, how it
# is scored; and, entered in its ledger, how fast it learns.
FREE = re.compile(
    r"evaluation\.|training\.(images|log_every|.*validat.*|checkpoint_every|keep|keep_at|evaluate|"
    r"tracker|processes|workers|micro_batch|latents.*|sharding|recompute|on_spike|spike|spike_cap|"
    r"rewind_lr|on_bad|bad_cap|save_minutes)$|data\.\w+\.stream$"
)

# Of what `differing` says.
NOTED = re.compile(r"training\.(lr|muon_lr|final_lr|clip|decay|decay_share|warmup|ema|seed) ")


@dataclass
class Progress:
    """How far a run has come. Written with `asdict` into `stepsight.json`, and read with `of`: no
    field can be saved and not restored."""

    step: int = 0  # batches learnt from
    images_seen: int = 0
    training_flops: float = 0.0
    inherited_flops: float = 0.0  # spent on the weights that the run started from
    best: float | None = None  # the least score of a validation; None before there is one
    losses: dict[str, float] = field(default_factory=dict)  # validation loss by task
    loss_bins: dict[str, list[float]] = field(default_factory=dict)  # by noise level, and task
    parent: str = ""  # run that the weights started from
    skipped: int = 0  # steps whose update was not applied
    skipped_in_row: int = 0  # up to now
    norms: list[float] = field(default_factory=list)  # of the gradients of recent healthy steps
    rewinds: int = 0
    rate: float = 1.0  # factor on the learning rates, lowered by rewinds
    scale: float = 2.0**16  # of the loss in fp16
    scaled: int = 0  # healthy steps since it was changed
    pending: dict[str, Any] = field(default_factory=dict)  # what the next log line sums, so far
    ledger: list[dict[str, Any]] = field(default_factory=list)  # what was changed on the way

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self:
        """That of a checkpoint's run, from its `meta`."""
        known = {f.name for f in fields(cls)} & meta.keys()
        return cls(**{name: deepcopy(meta[name]) for name in known})

    @classmethod
    def from_weights(cls, meta: Mapping[str, Any]) -> Self:
        """That of a new run which starts from the weights of a checkpoint with this `meta`."""
        spent = meta["training_flops"] + meta.get("inherited_flops", 0.0)
        return cls(inherited_flops=spent, parent=meta["run"])

    def advance(self, images: int, flops: float) -> None:
        """Count a batch."""
        self.step += 1
        self.images_seen += images
        self.training_flops += flops

    def improve(self, score: float) -> bool:
        """Note the score of a validation, which is better when lower: whether it is the best."""
        better = score < (math.inf if self.best is None else self.best)
        self.best = score if better else self.best
        return better

    def healthy(self, norm: float, keep: bool) -> None:
        """Count a step that was applied; `keep`: its gradient norm, of the last `WINDOW`."""
        self.skipped_in_row = 0
        self.scaled += 1
        if keep:
            self.norms = [*self.norms, norm][-WINDOW:]

    def note(self, what: str, **facts: Any) -> None:
        """Enter something in the ledger of the run."""
        self.ledger.append({"what": what, "step": self.step} | facts)

    def stamp(self, kind: str) -> dict[str, Any]:
        """What a line of metrics.jsonl begins with."""
        return {"kind": kind, "step": self.step, "images_seen": self.images_seen}


def check_settings(saved: Checkpoint, config: RunConfig) -> None:
    """Raise UserError listing what differs from `config` in the settings that shape the weights,
    but for those of how fast it learns (see `changed`).

    A longer run may be continued from a shorter one; with a decaying learning rate its past then
    had the rates of the shorter run.
    """
    other = [text for text in differing(saved.config, config) if not NOTED.match(text)]
    if other:
        raise UserError(
            f"{saved.path} was made with other settings: {', '.join(other[:6])}. "
            f"Resume with the settings of its config.yaml, or use --init-from."
        )


def changed(before: RunConfig, after: RunConfig) -> list[str]:
    """What a continued run does differently from here on, for its ledger."""
    return [text for text in differing(before, after) if NOTED.match(text)]


def differing(before: RunConfig, after: RunConfig) -> list[str]:
    """Settings that shape the weights and are not the same, as `key old -> new`."""
    old, new = _leaves(before.to_dict()), _leaves(after.to_dict())
    return [
        f"{key} {old.get(key)} -> {new.get(key)}"
        for key in sorted(old | new)
        if old.get(key) != new.get(key) and not FREE.match(key)
    ]


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        inner = isinstance(value, Mapping)
        leaves |= _leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return leaves
