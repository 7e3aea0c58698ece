"""A run before it begins: its settings, its data matched with its tasks, what it continues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.buckets import cut, parse_size
from stepsight.data.config import FileSettings, ScenesSettings
from stepsight.data.mixture import BLOCK, Stream
from stepsight.data.table import Source, notes_of, truths_of
from stepsight.errors import UserError
from stepsight.evaluation.sources import open_sources
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks

Size = tuple[int, int]  # height, width
ROUNDING = 1.001  # so that the least weight is not just under the least


@dataclass(frozen=True)
class RunSpec:
    """What follows from the settings of a run and from the files that they name.

    past: the checkpoint that it continues. parent: the one whose weights it starts from.
    """

    config: RunConfig
    folder: Path
    tasks: dict[str, Task]
    sources: dict[str, Source]  # of training
    streams: list[Stream]  # the same with the tasks that they serve, cut into buckets
    held: dict[str, Source]  # of evaluation
    past: Checkpoint | None = None
    parent: Checkpoint | None = None

    @classmethod
    def of(
        cls,
        config: RunConfig,
        folder: Path,
        past: Checkpoint | None = None,
        parent: Checkpoint | None = None,
    ) -> Self:
        """Open the data. Raises UserError for what cannot be read, or serves no task."""
        check_reading(config)
        tasks = build_tasks(config.tasks)
        quantities = frozenset(task.target_field for task in tasks.values())
        sources = open_sources(config, quantities, "train")
        held = open_sources(config, quantities, "eval")
        match(tasks, held, config, "evaluation")
        streams = match(tasks, sources, config)
        refuse_idle(tasks, sources, streams, config)
        streams = _cut(streams, sources, config)
        return cls(config, folder, tasks, sources, streams, held, past, parent)

    @property
    def sizes(self) -> dict[str, Size]:
        """The working size of each task: of the first source that serves it."""
        first = first_sources(self.streams)
        return {task: self.sources[first[task]].size for task in self.tasks}

    def words(self) -> Iterator[str]:
        """What is trained on what, and evaluated on what, a line per source."""
        for name, source in self.sources.items():
            tasks = [t for t in self.tasks if any(t in s.tasks for s in self._streams_of(name))]
            if not tasks:
                continue
            settings, held = self.config.data[name], len(self.held.get(name, ()))
            what = f"{len(source)} {name}"
            scored = f"evaluated on {held} other{'s' * (held != 1)}"
            if isinstance(settings, FileSettings):
                pictures = f"picture{'s' * (len(source) != 1)}"
                what = f"{len(source)} {pictures} of {settings.root} ({name})"
                if settings.split == settings.eval_split:
                    scored = "evaluated on the same"
            weight = sum(stream.weight for stream in self._streams_of(name))
            share = weight / sum(stream.weight for stream in self.streams)
            part = f" in {share:.0%} of the batches" if share < 1 else ""
            notes = "".join(f"; {note}" for note in notes_of(source))
            yield f"trains {_listed(tasks)} on {what}{part}, {scored}{notes}"

    def _streams_of(self, source: str) -> list[Stream]:
        return [stream for stream in self.streams if stream.source == source and stream.weight > 0]

    def drawn(self, source: str) -> int:
        """Leading samples of a source that hold all that are drawn of it: of procedural worlds,
        whose first epoch goes in order, no more than the run has pictures."""
        every = len(self.sources[source])
        in_order = all(one.independent for one in self.streams if one.source == source)
        return min(every, self.config.training.images) if in_order else every

    def every_size(self) -> dict[str, Size]:
        """Every size that is worked at: for evaluation, and those of the streams."""
        sizes: dict[str, Size] = {}
        for stream in self.streams:
            where = f"{stream.label} on {stream.source}"
            sizes[where] = self.sources[stream.source].size
            if stream.size is not None:
                sizes["{}, bucket {}x{}".format(where, *stream.size)] = stream.size
        return sizes


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def match(
    tasks: Mapping[str, Task],
    sources: Mapping[str, Source],
    config: RunConfig,
    of: str = "training",
) -> list[Stream]:
    """Every source with the tasks whose truth it holds; one whose samples have truth for different
    tasks in as many streams.

    The weight of a task is shared by its sources by their own; a source is drawn by the sum over
    its tasks.
    """
    weights: dict[str, dict[str, float]] = {}
    if lost := [name for name, task in tasks.items() if not _sources_of(task, sources)]:
        notes = "".join(f"; {note}" for one in sources.values() for note in notes_of(one))
        flags = " ".join(f"--tasks.{name} none" for name in lost)
        raise UserError(
            f"task {lost[0]} needs {tasks[lost[0]].target_field}; no source of this run has it for "
            f"{of} ({', '.join(sources)}{notes}). Add a source under data, or drop the task: "
            f"{flags}."
        )
    for name, task in tasks.items():
        fitting = _sources_of(task, sources)
        share = sum(config.data[key].weight for key in fitting)
        if not task.weight * share:
            raise UserError(
                f"tasks.{name} would get no batches: its weight, or that of {', '.join(fitting)}, "
                f"is 0. Give it a weight, or leave the task out."
            )
        for key in fitting:
            weights.setdefault(key, {})[name] = task.weight * config.data[key].weight / share
    streams = [_stream(sources[key], key, by_task, config) for key, by_task in weights.items()]
    least = sum(stream.weight for stream in streams) / BLOCK
    return [part for one in streams for part in _by_truths(one, tasks, sources[one.source], least)]


def _sources_of(task: Task, sources: Mapping[str, Source]) -> list[str]:
    return [key for key, source in sources.items() if task.target_field in source.quantities]


def refuse_idle(
    tasks: Mapping[str, Task],
    sources: Mapping[str, Source],
    streams: Sequence[Stream],
    config: RunConfig,
) -> None:
    """Raise UserError for a source that is to be trained on and has no truth for any task."""
    drawn = {stream.source for stream in streams}
    for name, source in sources.items():
        if name not in drawn and config.data[name].weight:
            notes = "".join(f"; {note}" for note in notes_of(source))
            raise UserError(
                f"data.{name} would give no images: it has no truth for the tasks of this run "
                f"({', '.join(tasks)}{notes}). Add a task that learns from it, or leave it out: "
                f"--data.{name} none."
            )


def _stream(source: Source, name: str, weights: Mapping[str, float], config: RunConfig) -> Stream:
    independent = isinstance(config.data[name], ScenesSettings)
    groups = getattr(source, "groups", ())  # of sharded sources
    tasks = tuple(task for task, weight in weights.items() if weight > 0) or tuple(weights)
    shares = tuple(weights[task] for task in tasks)
    return Stream(tasks, name, sum(shares), len(source), independent, groups, shares=shares)


def _by_truths(
    stream: Stream, tasks: Mapping[str, Task], source: Source, least: float
) -> list[Stream]:
    """The streams of a source's samples by the tasks whose truth they have, each with its share of
    the weight of these tasks and at least `least`."""
    truths, groups = truths_of(source), dict[tuple[str, ...], list[int]]()
    for index, held in enumerate(truths):
        served = tuple(task for task in stream.tasks if tasks[task].target_field in held)
        groups.setdefault(served, []).append(index)
    groups.pop((), None)
    if not groups or len(groups.get(stream.tasks, ())) == stream.length:
        return [stream]
    counts = {
        task: sum(len(part) for served, part in groups.items() if task in served)
        for task in stream.tasks
    }
    parts = []
    for served, part in sorted(groups.items()):
        inside = np.zeros(stream.length, bool)
        inside[part] = True
        shares = tuple(
            stream.weight * stream.share(task) * len(part) / counts[task] for task in served
        )
        weight = max(sum(shares), least * BLOCK / (BLOCK - len(groups)) * ROUNDING)
        part_of = replace(stream.only(inside), tasks=served, shares=shares)
        parts.append(replace(part_of, weight=weight if sum(shares) else 0.0))
    return parts


def first_sources(streams: Sequence[Stream]) -> dict[str, str]:
    """The first source of each task."""
    return {task: stream.source for stream in reversed(streams) for task in stream.tasks}


def _cut(
    streams: Sequence[Stream], sources: Mapping[str, Source], config: RunConfig
) -> list[Stream]:
    """The streams, those of sources with buckets cut into one for each bucket."""
    least = sum(stream.weight for stream in streams) / BLOCK
    every: list[Stream] = []
    for stream in streams:
        settings = config.data[stream.source]
        if not isinstance(settings, FileSettings) or not settings.buckets:
            every.append(stream)
            continue
        where = f"data.{stream.source}.buckets"
        native = getattr(sources[stream.source], "sizes", None)
        if native is None:
            raise UserError(
                f"{where}: the sizes of the pictures are known of sharded sets only. Write shards "
                f"with `stepsight data shard {stream.source} {settings.root} --out FOLDER`, and "
                f"read them with --data.{stream.source}.root FOLDER."
            )
        every += cut(stream, native, [parse_size(text, where) for text in settings.buckets], least)
    return every


def streamed(config: RunConfig) -> dict[str, FileSettings]:
    """The settings of the sources whose files are read anew each time."""
    every = config.data.items()
    return {name: one for name, one in every if isinstance(one, FileSettings) and one.stream}


def check_reading(config: RunConfig) -> None:
    """Raise UserError for settings of how samples are read that cannot be."""
    if config.training.workers < 0:
        raise UserError(f"training.workers={config.training.workers}: must be 0 or more.")
    for name, settings in config.data.items():
        if not isinstance(settings, FileSettings):
            continue
        if not 0 < settings.crop_scale <= 1:
            raise UserError(f"data.{name}.crop_scale={settings.crop_scale}: above 0, at most 1.")
        if not 0 <= settings.jitter <= 1:
            raise UserError(f"data.{name}.jitter={settings.jitter}: at least 0, at most 1.")
        if settings.stream and config.training.latents:
            raise UserError(
                f"data.{name}.stream reads files anew each time, training.latents keeps what was "
                f"made of them. Set stream False, or leave training.latents empty."
            )
        asked = {"crop_scale": settings.crop_scale < 1, "jitter": settings.jitter > 0}
        asked["buckets"] = bool(settings.buckets)
        for option in (option for option, given in asked.items() if given and not settings.stream):
            raise UserError(
                f"data.{name}.{option}: needs the files themselves, but samples are kept at one "
                f"working size. Set --data.{name}.stream True."
            )
