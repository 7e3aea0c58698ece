"""Predictions that another program wrote, as something to score.

`predictions.files` finds the files, `predictions.reading` reads them. A prediction has the size of
its image, or of the part that the protocol crops; a prediction of the whole image is cropped then.
Any other size is refused unless it may be resized. `<name>.uncertainty.npy` or, as `stepsight
predict` writes it, `<name>-uncertainty.npy` beside a file is its uncertainty (any number that grows
with the expected error), `<name>.members.npy` its members; a file that holds several members itself
is merged by their mean (ids: by vote).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from stepsight.data.quantities.grids import Size, resize_field
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.predictions.dump import read_manifest
from stepsight.evaluation.predictions.reading import (
    CLASSES,
    Segments,
    files_of,
    read_prediction,
)
from stepsight.evaluation.predictors import Estimate, Predictor, Provenance
from stepsight.evaluation.views import ProtocolView
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.regions import window
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.working import grid_of
from stepsight.tasks.base import Task
from stepsight.tasks.table import score, task_for
from stepsight.types import Batch, Prediction

RELATIVE = "up to scale"  # of the unit of a manifest, where depth is not metric
OPTIONS = ("given", "scale", "resize", "codes")
Resizing = Callable[[Tensor, Size], Tensor]


@dataclass(frozen=True)
class Imported(Predictor):
    """A folder of predictions.

    files: by key, see `find_files`. given: what depth files hold: metres, 1 / depth or log depth,
    each as far as the protocol's alignment demands. scale: units per metre of integer depth files.
    codes: what class ids in files stand for. segments: of panoptic files, by their names.
    """

    name: str  # of the task; `panoptic` too, for which there is no model
    folder: Path
    files: Mapping[str, Path]
    classes: int = 0
    given: Space = "depth"
    scale: float = 1000.0
    resize: bool = False
    codes: str = CLASSES
    segments: Mapping[str, Segments] = field(default_factory=dict)
    chunk_size: int = 16
    of_files: ClassVar[bool] = True

    @property
    def provenance(self) -> Provenance:
        """Of the weights that a manifest names, else of the folder."""
        weights = self._manifest.get("checkpoint") or self.folder.name
        calibration = self._manifest.get("calibration", {})
        return Provenance("imported", weights, options=self.options, calibration=calibration)

    @property
    def _manifest(self) -> Mapping[str, Any]:
        """What made the predictions; {} where another program did."""
        return read_manifest(self.folder, self.name) or {}

    @property
    def task(self) -> Task:
        return task_of(self.name, self.classes)

    @property
    def subject(self) -> Mapping[str, Any]:
        stamps = {key: self._stamps(path) for key, path in self.files.items()}
        options = {name: getattr(self, name) for name in ("classes", *OPTIONS)}
        listed = hashlib.sha256(repr(sorted(self.segments.items())).encode()).hexdigest()
        where = {"folder": str(self.folder.resolve()), "files": stamps, "segments": listed}
        return where | options

    @property
    def options(self) -> Mapping[str, Any]:
        """Those by which its files are read otherwise than usual."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in values.items() if value != getattr(Imported, name)}

    def estimates(
        self, batch: Batch, view: ProtocolView, sizes: Sequence[Size]
    ) -> Iterator[Estimate]:
        read = [self._read(key, view, size) for key, size in zip(batch.keys, sizes)]
        counts = sorted({len(members) for members, _, _ in read})
        if len(counts) > 1:
            raise UserError(
                f"{self.folder}: some predictions have {counts[0]} members, others {counts[-1]}. "
                "Score them apart."
            )
        spreads = [spread for _, _, spread in read if spread is not None]
        if spreads and len(spreads) < len(read):
            raise UserError(f"{self.folder}: some predictions have an uncertainty, others none.")
        values = torch.stack([merged for _, merged, _ in read])
        spread = torch.stack(spreads) if spreads else None
        yield Estimate(
            (0, counts[0]),
            Prediction(self.name, values, values, spread),
            grid_of(batch),
            members=torch.stack([each for each, _, _ in read], dim=1) if counts[0] > 1 else None,
            scale=self._manifest.get("calibration", {}).get("scale") or 1.0,
        )

    def score(self, prediction: Prediction, batch: Batch, protocol: Protocol) -> Rows:
        return score(prediction.values, batch, protocol, given=self.given, classes=self.classes)

    def trivial(self, batch: Batch) -> dict[str, Prediction]:
        """Those that need no training, in the form that the files have."""
        return {
            name: replace(trivial, values=self.task.to_given(trivial.values, self.given))
            for name, trivial in self.task.baselines(batch, None).items()
        }

    def remark(self, protocol: Protocol) -> str | None:
        """What to say where the manifest says that a protocol asks for another prediction."""
        made, said = self._manifest, list[str]()
        if made and (made["crop"], made["working"]) != (protocol.crop, protocol.working):
            working = made["working"] or "as trained"
            said.append(f"predicted with crop {made['crop']}, working size {working}")
        if RELATIVE in made.get("unit", "") and protocol.alignment == "none":
            said.append(f"{made['unit']}, scored as metres")
        return "; ".join(said) or None

    def _stamps(self, path: Path) -> list[list[Any]]:
        """By which the file of a prediction, and those beside it, are known again."""
        kinds = (_beside(path, kind) for kind in ("members", "uncertainty"))
        there = [path, *(file for file in kinds if file.is_file())]
        stats = ((file, file.stat()) for file in there)
        return [
            [file.relative_to(self.folder).as_posix(), stat.st_size, stat.st_mtime_ns]
            for file, stat in stats
        ]

    def _read(
        self, key: str, view: ProtocolView, size: Size
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Members "e c h w", their merge "c h w" and its uncertainty "1 h w"."""
        path = self.files[key]

        def read(file: Path) -> Tensor:
            segments = self.segments.get(file.name)
            x = read_prediction(file, self.name, self.scale, self.codes, segments)
            return self._fitted(x, file, view, size, self._resized)

        members, spread = read(path), None
        merged = _merged(members)
        if (file := _beside(path, "members")).is_file():
            members, merged = read(file), members[0]
        if (file := _beside(path, "uncertainty")).is_file():
            x = read_prediction(file, "depth")
            spread = self._fitted(x, file, view, size, resize_field)[0]
        elif len(members) > 1:
            spread = _spread(members, merged)
        return members, merged, spread

    def _fitted(
        self, x: Tensor, path: Path, view: ProtocolView, size: Size, resized: Resizing
    ) -> Tensor:
        """The part of `x "... h w"` that is scored; resized first where that is allowed. Raises
        DataFormatError for an unexpected size."""
        top, left, height, width = window(view.crop, *size)
        if self.resize and tuple(x.shape[-2:]) not in (size, (height, width)):
            x = resized(x, size)
        grid = tuple(x.shape[-2:])
        if grid == (height, width):
            return x
        if grid == tuple(size):
            return x[..., top : top + height, left : left + width]
        actual, wanted = (" x ".join(map(str, pair)) for pair in (grid, size))
        raise DataFormatError(
            f"{path}: {actual} pixels, where its image has {wanted}. Predict at the size of the "
            "image, or say --resize to have predictions resized."
        )

    def _resized(self, x: Tensor, size: Size) -> Tensor:
        if files_of(self.name).ids:
            return resize_field(x.float(), size, "nearest-exact").long()
        return self.task.rescale(x, size) if self.task.in_pixels else resize_field(x, size)


def task_of(name: str, classes: int = 0) -> Task:
    """The task of that name with its usual settings. Raises UserError for a name that files cannot
    be scored for."""
    files_of(name)
    return task_for(name, classes)


def truth_of(name: str, protocol: Protocol) -> frozenset[str]:
    """The quantities of a sample that a task's predictions are scored against."""
    task = task_of(name)
    return protocol.truths(task.truths or {task.target_field})


def _beside(path: Path, kind: str) -> Path:
    """As a dump calls it, or else as `stepsight predict` does."""
    stem = path.name.removesuffix(path.suffix)
    dumped = path.with_name(f"{stem}.{kind}.npy")
    return dumped if dumped.is_file() else path.with_name(f"{stem}-{kind}.npy")


def _merged(members: Tensor) -> Tensor:
    """Mean of "e c h w" over the members; of ids the commonest."""
    if len(members) == 1:
        return members[0]
    return members.mean(dim=0) if members.is_floating_point() else members.mode(dim=0).values


def _spread(members: Tensor, merged: Tensor) -> Tensor:
    """Standard deviation "1 h w" over all channels; of ids the share of members that disagree."""
    if not members.is_floating_point():
        return (members != merged).any(dim=1, keepdim=True).float().mean(dim=0)
    return members.var(dim=0, correction=0).sum(dim=0, keepdim=True).sqrt()
