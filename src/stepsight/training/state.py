"""Where a run stands, kept and taken up again: continue, initialise from another, publish.

Order of weights: continue this run > initialise from another > from scratch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from stepsight import checkpoint
from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.conversion.adapt import adapt
from stepsight.errors import UserError
from stepsight.measures import main_metric, measure
from stepsight.tasks.config import ImageSettings
from stepsight.training.folder import RunWriter, revision
from stepsight.training.setup import Setup

# What may differ when a run is continued: how long it is, what it says and keeps, who reads, how
# it is scored.
FREE = re.compile(
    r"evaluation\.|training\.(images|log_every|.*validat.*|checkpoint_every|keep|evaluate|"
    r"tracker|processes|workers|accumulate|latents.*)$|data\.\w+\.stream$"
)


def same_settings(saved: Checkpoint, config: RunConfig) -> None:
    """Raise UserError listing what differs from `config` in the settings that shape the weights.

    A longer run may be continued from a shorter one; with a decaying learning rate its past then
    had the rates of the shorter run.
    """
    changed = differing(saved.config, config)
    if changed:
        raise UserError(
            f"{saved.path} was made with other settings: {', '.join(changed[:6])}. "
            f"Resume with the settings of its config.yaml, or use --init-from."
        )


def differing(before: RunConfig, after: RunConfig) -> list[str]:
    """Settings that shape the weights and are not the same, as `key old -> new`."""
    old, new = _leaves(before.to_dict()), _leaves(after.to_dict())
    return [
        f"{key} {old.get(key)} -> {new.get(key)}"
        for key in sorted(old | new)
        if old.get(key) != new.get(key) and not FREE.match(key)
    ]


def load_run(s: Setup, saved: Checkpoint) -> None:
    """Continue from a checkpoint of this run: weights, average, optimizer, place."""
    checkpoint.load_weights(s.net, saved.tensors(checkpoint.RAW), saved.path)
    s.ema.load(saved.tensors(checkpoint.BACKBONE), s.device)
    state = saved.tensors(checkpoint.OPTIMIZER)
    checkpoint.unpack_optimizers(s.optimizers, state, saved.path)
    s.step = s.started_at = int(saved.meta["step"])
    best = saved.meta["best"]
    s.best, s.training_flops = math.inf if best is None else best, saved.meta["training_flops"]
    s.inherited_flops = saved.meta.get("inherited_flops", 0.0)
    s.losses, s.loss_bins = dict(saved.meta["losses"]), dict(saved.meta.get("loss_bins", {}))
    s.parent = saved.meta.get("parent", "")
    before, now = saved.meta.get("precision"), s.accelerator.mixed_precision
    if before not in (None, now):
        s.console.note(
            f"trained in precision {before} so far, here it is {now}: the run goes on, but not bit "
            f"for bit as it would have (--training.precision {before} asks for the same)"
        )


def initialise(s: Setup, saved: Checkpoint) -> None:
    """Start from another run's averaged weights, at step 0; see `conversion.adapt`."""
    weights = adapt(saved, s.net, s.layout, s.codec)
    checkpoint.load_weights(s.net, weights, saved.path)
    s.ema.load(weights, s.device)
    s.inherited_flops = saved.meta["training_flops"] + saved.meta.get("inherited_flops", 0.0)
    s.parent = saved.meta["run"]


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        inner = isinstance(value, Mapping)
        leaves |= _leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return leaves


def publish(s: Setup, run: RunWriter) -> None:
    """Write a checkpoint of where the run stands and move the marks."""
    path = checkpoint.write(
        run.checkpoints,
        s.step,
        config=s.config,
        meta={
            "images_seen": s.step * s.config.training.batch,
            "training_flops": s.training_flops,
            "inherited_flops": s.inherited_flops,
            "best": s.best if math.isfinite(s.best) else None,
            "sizes": {task: list(size) for task, size in s.sizes.items()},
            "tasks": list(s.tasks),
            "codec": s.codec.name,
            "precision": s.accelerator.mixed_precision,
            "losses": s.losses,
            "loss_bins": s.loss_bins,
            "samples": s.mixture.distinct(),
            "parent": s.parent,
            "run": run.path.name,
            "revision": revision(),
        },
        tensors={
            checkpoint.BACKBONE: s.ema.values,
            checkpoint.RAW: dict(s.net.state_dict()),
            checkpoint.STATISTICS: s.statistics,
            checkpoint.OPTIMIZER: checkpoint.pack_optimizers(s.optimizers),
        },
    )
    checkpoint.mark(run.checkpoints, "last", path.name)
    if s.is_best:
        checkpoint.mark(run.checkpoints, "best", path.name)
    checkpoint.prune(run.checkpoints, s.config.training.keep)


def best_score(rows: list[dict[str, Any]]) -> float:
    """Mean over tasks of log(error / error of the best trivial predictor): lower is better.

    A generator of images goes by its loss: the one sample of a validation says little of a
    distribution.
    """
    logs = []
    for row in rows:
        if row["task"] == ImageSettings.name:
            logs.append(math.log(max(row["loss"], 1e-6)))
            continue
        metric = main_metric(row["task"], row["metrics"])
        assert metric is not None, row
        value = row["metrics"][metric]
        rivals = [own[metric] for own in row["baselines"].values() if metric in own]
        if measure(metric).higher_is_better:
            value, rivals = 1 - value, [1 - one for one in rivals]
        logs.append(math.log(max(value, 1e-6) / max(min(rivals, default=1.0), 1e-6)))
    measured = [one for one in logs if math.isfinite(one)]  # a task may have nothing to measure
    return sum(measured) / len(measured) if measured else math.inf
