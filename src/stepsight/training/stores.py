"""Where training samples wait at working size: as themselves (banks), or as latents (the cache)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stepsight.config import RunConfig
from stepsight.data.bank import Bank
from stepsight.data.mixture import Stream
from stepsight.data.scenes.source import Scenes
from stepsight.data.table import Source
from stepsight.latents import Latents
from stepsight.models.codec import Codec
from stepsight.tasks.base import Task


def make_stores(
    config: RunConfig,
    tasks: Mapping[str, Task],
    codec: Codec,
    sources: Mapping[str, Source],
    streams: Sequence[Stream],
    run: Path,
    device: torch.device,
) -> dict[str, Bank | Latents]:
    """A store for each source that is read, empty until its rows are needed."""
    if config.training.latents:
        return dict(open_latents(config, tasks, codec, sources, streams, device))
    used = sorted({stream.source for stream in streams})
    return {name: make_bank(config, name, sources[name], run) for name in used}


def open_latents(
    config: RunConfig,
    tasks: Mapping[str, Task],
    codec: Codec,
    sources: Mapping[str, Source],
    streams: Sequence[Stream],
    device: torch.device | str = "cpu",
    present: bool = False,
) -> Iterator[tuple[str, Latents]]:
    """The latent cache of each source, for the tasks it serves; `present`: only where there is one.

    Raises UserError for one that was made with another codec, task or source.
    """
    for name in sorted({stream.source for stream in streams}):
        folder = Path(config.training.latents) / name
        if present and not folder.exists():
            continue
        own = {one.task: tasks[one.task] for one in streams if one.source == name}
        samples, dtype = fingerprint(config, name, sources[name]), config.training.latents_dtype
        yield name, Latents(folder, sources[name], samples, own, codec, config.codec, dtype, device)


def make_bank(config: RunConfig, name: str, source: Source, run: Path) -> Bank:
    """Where a source's training samples are kept at working size, empty until they are needed."""
    samples = fingerprint(config, name, source)
    cache = source.settings.cache if isinstance(source, Scenes) else None
    folder = Path(cache) / samples if cache else run / ".bank" / name
    return Bank.create(source, len(source), folder, samples)


def fingerprint(config: RunConfig, name: str, source: Source) -> str:
    """Names the samples of a source: equal for equal samples."""
    if isinstance(source, Scenes):
        return source.fingerprint
    settings = replace(config.data[name], weight=1.0)
    return repr((settings, config.data_root, sorted(source.quantities)))


def drop_banks(run: Path) -> None:
    """Remove the samples that were made for this run only."""
    shutil.rmtree(run / ".bank", ignore_errors=True)
