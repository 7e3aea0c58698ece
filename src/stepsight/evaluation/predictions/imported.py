"""Predictions that another program wrote, as something to score.

Files are found and read by `prediction_files`. A prediction has the size of its image, or of the
part that the protocol crops; one of the whole image is cropped then. Any other size is refused
unless it may be resized. `<name>.uncertainty.npy` beside a file is its uncertainty (any number that
grows with the expected error), `<name>.members.npy` its members; a file that holds several members
itself is merged by their mean (ids: by vote).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from stepsight.data.resize import Size, resize_field
from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.evaluation.predictions.dump import read_manifest
from stepsight.evaluation.predictions.files import CHANNELS, WHOLE, read_prediction
from stepsight.evaluation.predictors import Answer, grid_of
from stepsight.evaluation.views import View
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.regions import window
from stepsight.metrics.protocol import Protocol as Rule
from stepsight.metrics.scoring import score
from stepsight.tasks.base import Task
from stepsight.tasks.config import TABLE, SemanticSettings
from stepsight.tasks.table import build_task
from stepsight.types import Batch, Prediction, Sample

Given = Literal["depth", "disparity", "log"]
OPTIONS = ("given", "scale", "resize")
SHOWN_DISPARITY = 1e-2  # of the largest: what is farther is drawn as if it were there


@dataclass(frozen=True)
class Imported:
    """A folder of predictions.

    files: by key, see `find_files`. given: what depth files hold: metres, 1 / depth or log depth,
    each as far as the protocol's alignment demands. scale: units of an integer depth file a metre.
    """

    name: str  # of the task; `panoptic` too, for which there is no model
    folder: Path
    files: Mapping[str, Path]
    classes: int = 0
    given: Given = "depth"
    scale: float = 1000.0
    resize: bool = False
    rows: int = 16

    device = torch.device("cpu")
    sampler = "imported"
    temperature = views = None

    @property
    def digest(self) -> str:
        return (read_manifest(self.folder) or {}).get("checkpoint") or self.folder.name

    @property
    def calibration(self) -> Mapping[str, Any]:
        return (read_manifest(self.folder) or {}).get("calibration", {})

    @property
    def task(self) -> Task:
        return task_of(self.name, self.classes)

    @property
    def subject(self) -> Mapping[str, Any]:
        stamps = {key: self._stamps(path) for key, path in self.files.items()}
        options = {name: getattr(self, name) for name in ("classes", *OPTIONS)}
        return {"folder": str(self.folder.resolve()), "files": stamps} | options

    @property
    def options(self) -> Mapping[str, Any]:
        values = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in values.items() if value != getattr(Imported, name)}

    def answers(self, batch: Batch, view: View, sizes: Sequence[Size]) -> Iterator[Answer]:
        found = [self._read(key, view, size) for key, size in zip(batch.keys, sizes)]
        counts = sorted({len(members) for members, _, _ in found})
        if len(counts) > 1:
            raise UserError(
                f"{self.folder}: some predictions have {counts[0]} members, others {counts[-1]}. "
                "Score them apart."
            )
        spreads = [spread for _, _, spread in found if spread is not None]
        if spreads and len(spreads) < len(found):
            raise UserError(f"{self.folder}: some predictions have an uncertainty, others none.")
        values = torch.stack([merged for _, merged, _ in found])
        prediction = Prediction(
            self.name, values, values, torch.stack(spreads) if spreads else None
        )
        members = torch.stack([one for one, _, _ in found], dim=1) if counts[0] > 1 else None
        yield Answer(
            (0, counts[0]),
            prediction,
            grid_of(batch),
            members=members,
            scale=self.calibration.get("scale") or 1.0,
        )

    def score(self, prediction: Prediction, batch: Batch, rule: Rule) -> Rows:
        return score(prediction.values, batch, rule, given=self.given, classes=self.classes)

    def trivial(self, batch: Batch) -> dict[str, Prediction]:
        """Those that need no training, in what the files hold."""
        found = self.task.baselines(batch, None)
        return {
            name: replace(one, values=self._as_given(one.values)) for name, one in found.items()
        }

    def best(self, samples: list[Sample], batch: Batch, working: Size) -> Prediction | None:
        return None

    def shown(self, batch: Batch, view: View, sizes: Sequence[Size]) -> dict[str, Prediction]:
        (answer,) = self.answers(batch, view, sizes)
        values = self._as_depth(answer.prediction.values)
        return {"prediction": replace(answer.prediction, values=values)}

    def remark(self, rule: Rule) -> str | None:
        """What to say where the manifest tells that a protocol asks for another prediction."""
        made = read_manifest(self.folder)
        if made is None or (made["crop"], made["working"]) == (rule.crop, rule.working):
            return None
        return f"predicted with crop {made['crop']}, working size {made['working'] or 'as trained'}"

    def _stamps(self, path: Path) -> list[list[Any]]:
        """By which the file of a prediction, and those beside it, are known again."""
        kinds = (_beside(path, kind) for kind in ("members", "uncertainty"))
        there = [path, *(one for one in kinds if one.is_file())]
        facts = ((one, one.stat()) for one in there)
        return [
            [one.relative_to(self.folder).as_posix(), stat.st_size, stat.st_mtime_ns]
            for one, stat in facts
        ]

    def _read(self, key: str, view: View, size: Size) -> tuple[Tensor, Tensor, Tensor | None]:
        """Members "e c h w", their merge "c h w" and its uncertainty "1 h w"."""
        path = self.files[key]
        own = self._fitted(read_prediction(path, self.name, self.scale), path, view, size)
        beside = {kind: _beside(path, kind) for kind in ("members", "uncertainty")}
        if beside["members"].is_file():
            read = read_prediction(beside["members"], self.name, self.scale)
            members = self._fitted(read, beside["members"], view, size)
            merged = own[0]
        else:
            members, merged = own, _merged(own)
        spread = None
        if beside["uncertainty"].is_file():
            read = read_prediction(beside["uncertainty"], "depth")
            spread = self._fitted(read, beside["uncertainty"], view, size, resize_field)[0]
        elif len(members) > 1:
            spread = _spread(members, merged)
        return members, merged, spread

    def _fitted(
        self,
        x: Tensor,
        path: Path,
        view: View,
        size: Size,
        resized: Callable[[Tensor, Size], Tensor] | None = None,
    ) -> Tensor:
        """`x` on the grid that is scored; resized first where that is allowed."""
        if self.resize and tuple(x.shape[-2:]) not in (size, window(view.crop, *size)[2:]):
            x = (resized or self._resized)(x, size)
        return _cut(x, path, view, size)

    def _resized(self, x: Tensor, size: Size) -> Tensor:
        if self.name in WHOLE:
            return resize_field(x.float(), size, "nearest-exact").long()
        return self.task.rescale(x, size) if self.name == "flow" else resize_field(x, size)

    def _as_given(self, depth: Tensor) -> Tensor:
        if self.name != "depth" or self.given == "depth":
            return depth
        return depth.reciprocal() if self.given == "disparity" else depth.log()

    def _as_depth(self, values: Tensor) -> Tensor:
        if self.name != "depth" or self.given == "depth":
            return values
        if self.given == "log":
            return values.exp()
        return values.clamp_min(SHOWN_DISPARITY * values.amax()).reciprocal()


def task_of(name: str, classes: int = 0) -> Task:
    """The task of that name with its usual settings; `panoptic` is drawn as `semantic`.

    Raises UserError for a name that files cannot be scored for.
    """
    if name in ("semantic", "panoptic"):
        return build_task(SemanticSettings(classes=max(classes, 1)))
    if name not in CHANNELS:
        raise UserError(f"--task {name}: no predictions of it are read.{suggest(name, CHANNELS)}")
    return build_task(TABLE[name]())


def truth_of(name: str, rule: Rule) -> frozenset[str]:
    """The quantities of a sample that a task's predictions are scored against."""
    if rule.needs:
        return frozenset({rule.needs})
    return frozenset({"labels", "instances"} if name == "panoptic" else {task_of(name).needs})


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name.removesuffix(path.suffix)}.{kind}.npy")


def _cut(x: Tensor, path: Path, view: View, size: Size) -> Tensor:
    """The part of `x "... h w"` that is scored. Raises DataFormatError for an unexpected size."""
    top, left, height, width = window(view.crop, *size)
    grid = tuple(x.shape[-2:])
    if grid == (height, width):
        return x
    if grid == tuple(size):
        return x[..., top : top + height, left : left + width]
    found, wanted = (" x ".join(map(str, pair)) for pair in (grid, size))
    raise DataFormatError(
        f"{path}: {found} pixels, where its image has {wanted}. Predict at the size of the image, "
        "or say --resize to have predictions resized."
    )


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
