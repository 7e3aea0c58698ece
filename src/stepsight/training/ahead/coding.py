"""The latent cache of a run, made ahead of it: `stepsight data latents`.

It is the cache that runs with the same codec, tasks, data and `training.latents` read. Processes
share the blank rows; whoever is stopped leaves what is made, and the same command goes on there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stepsight import distributed, signals
from stepsight.config import RunConfig
from stepsight.data.bad import QUARANTINE, BadItems, to_stderr
from stepsight.errors import UserError
from stepsight.models.codec import open_codec
from stepsight.report.console import Console
from stepsight.training.feed import filled, open_latents
from stepsight.training.latents import Latents
from stepsight.training.sharding import make_accelerator
from stepsight.training.spec import RunSpec


@dataclass(frozen=True)
class MadeLatents:
    """What was made of a source."""

    folder: Path
    tasks: tuple[str, ...]
    samples: int  # that a run would draw from
    made: int  # now, by all processes
    bad: int  # that could not be read
    bytes: int  # of all rows
    seconds: float

    def words(self) -> str:
        pace = f" in {self.seconds:.0f} s, {self.made / self.seconds:.1f} a second" * (
            self.made > 0
        )
        bad = f", {self.bad} that cannot be read" if self.bad else ""
        return (
            f"{self.folder}: {self.samples:,} samples for {', '.join(self.tasks)}, "
            f"{self.bytes / 1e9:.2f} GB; {self.made:,} made now{pace}{bad}"
        )


def make_latents(config: RunConfig, console: Console) -> Iterator[MadeLatents]:
    """Fill the cache of each source, as far as a run would draw from it.

    Raises UserError for a run without a cache, for data that cannot be read, and for too small a
    disk; Preempted when asked to end.
    """
    folder = Path(config.training.latents)
    if not config.training.latents:
        raise UserError(
            "training.latents is empty: name the folder with --training.latents FOLDER."
        )
    spec = RunSpec.of(config, folder)
    device = make_accelerator(static=True).device
    codec = open_codec(config.codec).to(device)
    caches = open_latents(spec, codec, device)
    wanted = {name: filled(spec.drawn(name), len(spec.sources[name])) for name in caches}
    _check_room(folder, caches, wanted)
    training = config.training
    bad = BadItems(
        training.on_bad,
        training.bad_cap,
        folder / QUARANTINE,
        flags=("--training.on_bad", "--training.bad_cap"),
        say=console.warn if distributed.rank() == 0 else to_stderr,
    )
    for name, cache in caches.items():
        yield _filled(name, cache, wanted[name], bad, console)


def _filled(name: str, cache: Latents, wanted: int, bad: BadItems, console: Console) -> MadeLatents:
    rank, world, began = distributed.rank(), distributed.world(), time.monotonic()
    mine = sum(map(len, cache.store.blank_blocks(rank, world, wanted)))
    blank = sum(map(len, cache.store.blank_blocks(0, 1, wanted)))
    with console.counted(f"latents of {name}", mine) as advance:

        def made(rows: int) -> None:
            distributed.phase(f"latents of {name}", patience=distributed.SETUP)
            advance(rows)
            if asked := signals.requested():
                raise signals.Preempted(f"{asked}: what is made stays in {cache.store.folder}.")

        cache.fill(rank, world, wanted, made, bad)
    distributed.barrier()
    lost = int(cache.store.bad(range(wanted)).sum())
    size = wanted * cache.store.dtype.itemsize
    seconds = max(time.monotonic() - began, 1e-3)
    return MadeLatents(cache.store.folder, tuple(cache.tasks), wanted, blank, lost, size, seconds)


def _check_room(folder: Path, caches: dict[str, Latents], wanted: dict[str, int]) -> None:
    """Raise UserError where the disk cannot take what is still blank."""
    blank = {
        name: sum(map(len, cache.store.blank_blocks(0, 1, wanted[name])))
        for name, cache in caches.items()
    }
    needed = sum(count * caches[name].store.dtype.itemsize for name, count in blank.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the latents need another {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            f"free there. Name a folder on another disk with --training.latents."
        )
