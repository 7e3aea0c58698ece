"""Predictions kept on disk, to be scored under other protocols later without the model.

A folder holds `<key>.npy` (float32 "c h w", physical units; int64 ids) for each image, the merged
prediction of all members; `<key>.uncertainty.npy` ("1 h w") and `<key>.members.npy` ("e c h w")
where there are several members; and `manifest.json`, which says what made them. A key keeps its
folders. `imported` reads this layout, and the scores are those of the model itself, but for those
of probabilities that it states beside its prediction (`Estimate.chances`): they are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepsight.data.resize import Size
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.predictors import Estimate, Model
from stepsight.evaluation.results import write_json
from stepsight.evaluation.views import ProtocolView
from stepsight.scaling.plain import plain
from stepsight.types import Batch

MANIFEST = "manifest.json"
FACTS = {"task", "crop", "working", "checkpoint"}  # by which our manifests are known


@dataclass(frozen=True)
class Saving(Model):
    """A model whose estimates are written as they come, below `folder`, one subfolder per view."""

    folder: Path = Path()

    @property
    def subject(self) -> Mapping[str, Any]:
        """Only an evaluation that saves to this folder goes on where this one was killed: images in
        the journal are not predicted again."""
        return {**super().subject, "saved": str(self.folder.resolve())}

    def estimates(
        self, batch: Batch, view: ProtocolView, sizes: Sequence[Size]
    ) -> Iterator[Estimate]:
        target = self.folder / view.name
        facts = {"task": self.name, "crop": view.crop, "working": view.working}
        facts |= dict(super().subject) | {"keys_are": "paths below this folder"}
        for estimate in super().estimates(batch, view, sizes):
            write_manifest(target, facts)
            for i, key in enumerate(batch.keys):
                _write_estimate(target, key, estimate, i)
            yield estimate


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Say what made the predictions. Raises UserError if others are there already."""
    before = read_manifest(folder)
    if before is not None and before != facts:
        raise UserError(f"{folder} holds other predictions. Remove it, or choose another --out.")
    if before is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MANIFEST, facts)


def write_facts(folder: Path, task: str, facts: dict[str, Any]) -> None:
    """Say what made the predictions of a task that `stepsight predict` wrote to a folder, beside
    those of other tasks; in place of what was said of it before."""
    path, said = folder / MANIFEST, dict[str, Any]()
    if path.is_file() and isinstance(read := _read(path), dict):
        said = read.get("tasks", {})
        if not said:
            raise UserError(f"{folder} holds other predictions. Choose another --out.")
    before, now = said.get(task, {}), dict(plain(facts))
    if {**before, "formats": now["formats"]} == now:  # as before, written in further formats
        now["formats"] = before["formats"] | now["formats"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"tasks": {**said, task: now}})


def read_manifest(folder: Path, task: str = "") -> dict[str, Any] | None:
    """What made the predictions (`stepsight predict` may have made some of several tasks); None
    where another program wrote them, with a manifest or not."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    read = _read(path)
    if isinstance(read, dict) and isinstance(read.get("tasks"), dict):
        read = read["tasks"].get(task)
    return read if isinstance(read, dict) and read.keys() >= FACTS else None


def manifest_tasks(folder: Path) -> list[str]:
    """The tasks whose predictions a folder holds, as far as a manifest of ours says so."""
    path = folder / MANIFEST
    read = _read(path) if path.is_file() else None
    if not isinstance(read, dict):
        return []
    several = read.get("tasks")
    return sorted(several) if isinstance(several, dict) else [read["task"]] * ("task" in read)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFormatError(f"{path}: not JSON ({error}). Remove it, or predict anew.") from None


def _write_estimate(folder: Path, key: str, estimate: Estimate, i: int) -> None:
    prediction = estimate.prediction
    parts = {"": prediction.values[i]}
    if prediction.uncertainty is not None:
        parts[".uncertainty"] = prediction.uncertainty[i]
    if estimate.members is not None:
        parts[".members"] = estimate.members[:, i]
    for kind, values in parts.items():
        path = folder / f"{key}{kind}.npy"
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"The key {key} leads out of {folder}; nothing is written there.")
        path.parent.mkdir(parents=True, exist_ok=True)
        number = torch.float32 if values.is_floating_point() else torch.int64
        np.save(path, values.detach().cpu().to(number).numpy(), allow_pickle=False)
