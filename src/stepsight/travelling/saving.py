"""A pipeline as a folder or a tar of its own, which opens wherever it is brought.

    saved/
      README.md                               the card, for people and for the hub
      config.yaml  stepsight.json  backbone/  baselines/  manifest.json  COMPLETE    a step folder
      codec/                                  the VAE, if there is one
      eval/results.json  eval/panels/         its scores, and the pictures of the card
      sweep/sweep.csv                         what --budget plans by

The manifest covers the step folder alone: a card may be edited without damage.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.checkpoint.archive import packed
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.execution.precision import lowered_to
from stepsight.models.codec import Codec
from stepsight.travelling.card import write_card

PRESSED = (".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".zip", ".safetensors")
RESULTS, PANELS, SWEEP = Path("eval", "results.json"), Path("eval", "panels"), Path("sweep")
# Of what a step folder says of itself: what is true of its weights wherever they are.
TOLD = ("images_seen", "training_flops", "inherited_flops", "best", "losses", "samples")
TOLD += ("run", "revision", "ema_warmup", "precision", "codec", "family", "published", "profile")
UNTOLD = {"images_seen": 0, "training_flops": 0.0, "best": None, "losses": {}, "run": ""}


@dataclass(frozen=True)
class Travelling:
    """What is saved. source: the checkpoint that it was opened from, and file: which of its weights
    `net` holds. chosen, fitted, metric: what its run chose and fitted by task."""

    net: nn.Module
    config: RunConfig
    sizes: Mapping[str, tuple[int, int]]
    statistics: Mapping[str, Tensor]
    codec: Codec
    chosen: Mapping[str, Any]
    fitted: Mapping[str, Any]
    metric: Mapping[str, Any]
    source: checkpoint.Checkpoint | None
    file: str = checkpoint.BACKBONE

    def weights(self) -> dict[str, Tensor]:
        """Those of the source, bit for bit, unless they were changed since; then those in memory.
        Raises UserError for weights that were changed and are rounded for use."""
        held = {name: value.detach().cpu() for name, value in self.net.state_dict().items()}
        if self.source is not None:
            stored = self.source.tensors(self.file)
            if all(
                torch.equal(stored[name].to(value.dtype), value) for name, value in held.items()
            ):
                return stored
        if rounded := lowered_to(self.net):
            raise UserError(
                f"the weights are rounded to {rounded} and no longer those of a checkpoint: open "
                f"it with dtype='float32' before they are changed, and save that."
            )
        return held

    def meta(self) -> dict[str, Any]:
        """What the folder says of itself."""
        known = self.source.meta if self.source else {}
        told = {name: known[name] for name in TOLD if name in known}
        own = {"sampling": self.chosen, "calibration": self.fitted, "metric": self.metric}
        return {
            **UNTOLD,
            **told,
            "alone": True,
            "tasks": list(self.config.tasks),
            "sizes": {task: list(size) for task, size in self.sizes.items()},
            "codec": self.codec.name,
            **{name: dict(value) for name, value in own.items() if value},
        }


def save(model: Travelling, out: Path, dtype: torch.dtype | None, licence: str) -> Path:
    """Write the folder `out`, or the tar of that name, whole or not at all; returns its path.

    dtype: that floating-point weights are stored in; None: as they are. licence: for the card.
    Raises UserError if `out` is there already, asks for another kind of file, or cannot be written.
    """
    if out.name.endswith(PRESSED):
        raise UserError(
            f"{out}: name a folder, or a file that ends in .tar, which is not compressed."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty. Name a new folder or tar.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".saving-") as staged:
            made = _folder(model, Path(staged), dtype, licence)
            if out.suffix == ".tar":
                packed(made, tar := Path(staged, "made.tar"))
                made = tar
            os.replace(made, out)
    except OSError as error:
        raise checkpoint.disk_error(out, "saving the checkpoint", error) from None
    return out


def _folder(model: Travelling, staged: Path, dtype: torch.dtype | None, licence: str) -> Path:
    weights = model.weights()
    if dtype is not None:
        weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    tensors = {checkpoint.BACKBONE: weights, checkpoint.STATISTICS: dict(model.statistics)}
    source, step = model.source, 0 if model.source is None else model.source.meta.get("step", 0)
    path = checkpoint.write(staged, step, config=model.config, meta=model.meta(), tensors=tensors)
    saved = checkpoint.read(path, lazy=True)
    if source is not None and (source.home / checkpoint.CODEC).is_dir():
        shutil.copytree(source.home / checkpoint.CODEC, path / checkpoint.CODEC)
    else:
        model.codec.save(path / checkpoint.CODEC)
    if source is not None and source.digest(model.file) == saved.digest():
        _measured(source.home, path)
    card = write_card(saved, licence)
    for file in path.rglob("*.safetensors"):  # which are written for their owner alone
        shutil.copymode(card, file)
    return path


def _measured(home: Path, path: Path) -> None:
    """Copy what was measured with these very weights, and the pictures."""
    for name in (RESULTS, SWEEP / "sweep.csv"):
        if (home / name).is_file():
            (path / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(home / name, path / name)
    if (home / PANELS).is_dir():
        shutil.copytree(home / PANELS, path / PANELS)
