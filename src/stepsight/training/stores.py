"""Where training samples come from: banks, the latent cache, or the files, read anew each time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stepsight.config import RunConfig
from stepsight.data.buckets import cut, parse_size
from stepsight.data.cache.bank import Bank
from stepsight.data.config import FileSettings
from stepsight.data.mixture import BLOCK, Stream
from stepsight.data.scenes.source import Scenes
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.models.codec import Codec
from stepsight.tasks.base import Task
from stepsight.training.latents import Latents


def make_stores(
    config: RunConfig,
    tasks: Mapping[str, Task],
    codec: Codec,
    sources: Mapping[str, Source],
    streams: Sequence[Stream],
    run: Path,
    device: torch.device,
) -> dict[str, Bank | Latents]:
    """A store for each source that is read and not streamed, empty until its rows are needed."""
    if config.training.latents:
        return dict(open_latents(config, tasks, codec, sources, streams, device))
    used = sorted({stream.source for stream in streams} - streamed(config).keys())
    return {name: make_bank(config, name, sources[name], run) for name in used}


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


def cut_streams(
    streams: Sequence[Stream], sources: Mapping[str, Source], config: RunConfig
) -> list[Stream]:
    """The streams, those of sources with buckets cut into one for each bucket."""
    least = sum(stream.weight for stream in streams) / BLOCK
    found = []
    for stream in streams:
        settings = config.data[stream.source]
        if not isinstance(settings, FileSettings) or not settings.buckets:
            found.append(stream)
            continue
        where = f"data.{stream.source}.buckets"
        native = getattr(sources[stream.source], "sizes", None)
        if native is None:
            raise UserError(
                f"{where}: the sizes of the pictures are known of sharded sets only. Write shards "
                f"with `stepsight data shard {stream.source} {settings.root} --out FOLDER`, and "
                f"read them with --data.{stream.source}.root FOLDER."
            )
        sizes = [parse_size(text, where) for text in settings.buckets]
        found += cut(stream, native, sizes, least)
    return found


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
        own = {task: tasks[task] for one in streams if one.source == name for task in one.tasks}
        samples, dtype = fingerprint(config, name, sources[name]), config.training.latents_dtype
        yield name, Latents(folder, sources[name], samples, own, codec, config.codec, dtype, device)


def every_size(
    streams: Sequence[Stream], sources: Mapping[str, Source]
) -> dict[str, tuple[int, int]]:
    """Every size that is worked at: for evaluation, and those of the streams."""
    found: dict[str, tuple[int, int]] = {}
    for stream in streams:
        where = f"{stream.label} on {stream.source}"
        found[where] = sources[stream.source].size
        if stream.size is not None:
            found["{}, bucket {}x{}".format(where, *stream.size)] = stream.size
    return found


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
