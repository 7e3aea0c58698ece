"""How many pictures a run has: counted where its data lie, else as their publishers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.config import FileSettings
from stepsight.data.table import Source, open_source
from stepsight.errors import UserError
from stepsight.plugins import resolve
from stepsight.tasks.table import build_tasks
from stepsight.training.spec import RunSpec, match
from stepsight.types import Sample

# Of sets whose readers hold no folder to a count: any pictures may lie there.
IMAGENET = {"train": 1_281_167, "val": 50_000}  # ILSVRC 2012
PIX2GESTALT = {"val": ceil(837_000 / 100), "train": 837_000 - ceil(837_000 / 100)}  # recalled


@dataclass(frozen=True)
class Counted:
    """A run with its data as far as they are known. spec: None where no source is known to serve
    its tasks. problems: what would stop it at its start. assumed: sentences on what was not
    counted but taken from elsewhere."""

    spec: RunSpec | None
    problems: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def counted(config: RunConfig, parent: Checkpoint | None = None) -> Counted:
    """Opens the data, and takes the published counts of what is not there."""
    try:
        return Counted(RunSpec.of(config, Path(), parent=parent))
    except UserError as error:
        problem = str(error)
    tasks, absent = build_tasks(config.tasks), dict[str, list[str]]()
    asked = frozenset(task.target_field for task in tasks.values())
    train, held = (_sources(config, asked, training, absent) for training in (True, False))
    try:
        match(tasks, held, config, "evaluation")
        streams = match(tasks, train, config)
    except UserError:
        return Counted(None, (problem,), (_unknown(tasks),))
    spec = RunSpec(config, Path(), tasks, train, streams, held, None, parent)
    said = (f"{name} is not there: {'; '.join(words)}" for name, words in absent.items())
    return Counted(spec, (problem,), tuple(said))


def _sources(
    config: RunConfig, quantities: frozenset[str], training: bool, absent: dict[str, list[str]]
) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for name, settings in config.data.items():
        split = "train" if training else "eval"
        if isinstance(settings, FileSettings):
            split = settings.split if training else settings.eval_split
        try:
            found[name] = open_source(settings, split, quantities, config.data_root or None)
        except UserError:
            found[name] = stand_in = _Absent(settings, split, quantities)
            absent.setdefault(f"data.{name}", []).append(stand_in.words())
    return found


def _unknown(tasks: Iterable[str]) -> str:
    return (
        f"what the data hold for {', '.join(tasks)} is not known: every picture is taken to have "
        "all truths, and splits whose size no setting limits count as nothing"
    )


class _Absent:
    """A source that is not there, as its reader knows it. Has no samples to give."""

    classes = categories = ()

    def __init__(self, settings: Any, split: str, quantities: frozenset[str]) -> None:
        kind = resolve(settings.implementation)
        self.name, self.size, self.split = settings.name, tuple(settings.size), split
        self.quantities = getattr(kind, "offers", frozenset()) & quantities
        counts = _published(kind, settings)
        whole = sum(counts.values()) if split == "all" else 0
        self.count: int = counts.get(split, whole)

    def words(self) -> str:
        if self.count:
            source = "as recalled" if self.name == "pix2gestalt" else "as published"
            return f"{self.count:,} samples of {self.split}, {source}"
        return f"how many samples {self.split} has is not known, counted as none"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Sample:
        raise UserError(f"{self.name} is not there.")

    def samples(self, indices: Iterable[int], /) -> list[Sample]:
        return [self[index] for index in indices]


def _published(kind: Any, settings: Any) -> Mapping[str, int]:
    if settings.name == "imagefolder" and "imagenet" in str(settings.root).lower():
        return IMAGENET
    return PIX2GESTALT if settings.name == "pix2gestalt" else getattr(kind, "published", {})
