"""Where batches come from: draws of the mixture, and what is read of them.

Samples are kept at working size in stores, which are filled a little ahead of the draws, or read
from their files anew each time. What is read follows from the number of the step alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from stepsight import distributed
from stepsight.config import RunConfig
from stepsight.data.augment import flip
from stepsight.data.bad import QUARANTINE, BadItems, to_stderr
from stepsight.data.cache.bank import Bank
from stepsight.data.collate import collate
from stepsight.data.loader import Loader, Reader, Request
from stepsight.data.mixture import Draw, Mixture, Stream
from stepsight.data.scenes.source import Scenes
from stepsight.data.table import Readable, Source, SourcePart, having, notes_of, truths_of
from stepsight.errors import UserError
from stepsight.models.codec import Codec
from stepsight.report.console import Console
from stepsight.training.config import TrainingSettings
from stepsight.training.latents import Latents
from stepsight.training.spec import RunSpec, streamed
from stepsight.types import Batch, Movable

AHEAD = 512  # samples that a store is filled by at a time
Sendable = TypeVar("Sendable", bound=Tensor | Movable)
Stores = Mapping[str, Bank | Latents]  # by source; those without one are read anew each time


class Feed:
    """The batches of a run, as one of its processes reads them."""

    def __init__(
        self, spec: RunSpec, stores: Stores, device: torch.device, console: Console
    ) -> None:
        settings = spec.config.training
        self.mixture = Mixture(spec.streams, settings.batch, settings.seed)
        self.micro_batches = micro_batches(settings, distributed.rank(), distributed.world())
        self.stores, self.device = stores, device
        self.bad = BadItems(
            settings.on_bad,
            settings.bad_cap,
            spec.folder / QUARANTINE,
            flags=("--training.on_bad", "--training.bad_cap"),
            say=console.warn if distributed.rank() == 0 else to_stderr,
        )
        self.making_s = 0.0  # processor seconds spent on making samples
        self._sources, self._flip, self._console = spec.sources, settings.flip, console
        self._filled: dict[str, int] = {}  # leading rows of each store that are made
        names = {stream.source for stream in self.mixture.streams}
        files = {name: one for name, one in streamed(spec.config).items() if name in names}
        sources = {name: spec.sources[name] for name in files}
        others = self.mixture.streams if self.bad.skips else ()
        reader = Reader(sources, files, settings.seed, settings.flip, others)
        self._loader = Loader(reader, self._requests, settings.workers, bad=self.bad)
        self._streamed = files.keys()

    def begin(self, step: int) -> None:
        """Let the readers of files start on the batches from a step on."""
        if self._streamed:
            self._loader.begin(step)

    def draw(self, step: int) -> Draw:
        """Batch number `step`; its samples are made, and some ahead, if they are not there yet.

        Those that could not be made are replaced. (Of files read anew, their readers do that.)
        """
        draw = self.mixture.draw(step)
        if draw.stream.source in self.stores:
            self.fill(draw.stream.source, max(draw.indices) + 1)
            if self.stores[draw.stream.source].store.bad(draw.indices).any():
                numbers = enumerate(draw.indices, step * len(draw.indices))
                kept = (self._readable(draw.stream, index, number) for number, index in numbers)
                return replace(draw, indices=tuple(kept))
        return draw

    def _readable(self, stream: Stream, index: int, number: int) -> int:
        """The sample that image `number` of a stored source is made of: `index`, or its first
        replacement that could be made. All processes look alike, since they fill stores together.
        """
        name, store = stream.source, self.stores[stream.source].store
        for other in chain([index], stream.replacements(self.mixture.seed, number)):
            self.fill(name, other + 1)
            if not store.bad([other])[0]:
                return other
            self.bad.met(name, other, store.reason(other), of=len(self._sources[name]))
        raise UserError(f"{name}: nothing that can be read in place of {store.reason(index)}")

    def batch(self, draw: Draw, step: int, rows: range) -> Batch:
        """Some pictures of batch number `step`, with all their truths."""
        store = self.stores.get(draw.stream.source)
        if store is None:
            return sent(self._loader.take(Request.of(draw, step, rows)), self.device)
        assert isinstance(store, Bank), "a latent cache holds no samples"
        pairs = zip(store.samples([draw.indices[row] for row in rows]), self.mirrored(draw, rows))
        return sent(collate([flip(one) if mirror else one for one, mirror in pairs]), self.device)

    def mirrored(self, draw: Draw, rows: range) -> list[bool]:
        """Which of some pictures of a draw are mirrored."""
        return [self._flip and draw.mirrored[row] for row in rows]

    def counts(self, step: int) -> Mapping[tuple[str, str], int]:
        """Pictures that each task saw of each source, in the batches before a step."""
        return self.mixture.counts(step)

    def weights(self, stream: Stream) -> Tensor:
        """What the losses of the tasks of a stream weigh in its batches, "tasks": over all batches
        as their settings say; 1 where all have the same truths and weights."""
        every = self.mixture.streams
        drawn = sum(len(one.tasks) * one.weight for one in every)
        mean = drawn / sum(one.weight for one in every)  # tasks per batch
        return torch.tensor([mean * stream.share(task) for task in stream.tasks])

    def fill(self, name: str, wanted: int) -> None:
        """Make the leading `wanted` rows of a store; the processes share the work."""
        rows = self.stores[name]
        if wanted <= self._filled.get(name, 0):
            return
        upto = filled(wanted, len(rows.store))
        rank, world = distributed.rank(), distributed.world()
        total = sum(map(len, rows.store.blank_blocks(rank, world, upto)))
        clock = time.process_time()
        with self._console.counted(f"samples of {name}", total, least=AHEAD) as advance:
            rows.fill(rank, world, stop=upto, report=advance, bad=self.bad)
        self.making_s += time.process_time() - clock
        distributed.barrier()
        self._filled[name] = upto

    def leading(self, name: str, count: int, needs: frozenset[str]) -> Source:
        """The first `count` samples of a source that are at hand and have the truth `needs`, as far
        as they can be read."""
        store = self.stores.get(name)
        source = having(store if isinstance(store, Bank) else self._sources[name], needs)
        assert source is not None, "a task is matched with what has its truth"
        count = min(count, len(source))
        if isinstance(store, Bank):
            last = source.indices[count - 1] if isinstance(source, SourcePart) else count - 1
            self.fill(name, last + 1)
        else:
            self._console.note(f"reads {count} samples of {name} for the trivial predictors")
        return Readable(source, self.bad, count)

    def close(self) -> None:
        """End the readers of files; the next batch starts them again."""
        self._loader.close()

    def _requests(self, step: int) -> Iterator[Request]:
        """What this process reads of files, from a step on."""
        while True:
            draw = self.mixture.draw(step)
            if draw.stream.source in self._streamed:
                yield from (Request.of(draw, step, rows) for rows in self.micro_batches)
            step += 1


def filled(wanted: int, count: int) -> int:
    """Leading rows of a store of `count` that are made where `wanted` are drawn from."""
    return min(count, -(-wanted // AHEAD) * AHEAD)


def sent(value: Sendable, device: torch.device) -> Sendable:
    """`value` on the device; on its way to a GPU the host does not wait for it."""
    gpu = device.type == "cuda"
    return (value.pin_memory() if gpu else value).to(device, non_blocking=gpu)  # type: ignore[return-value]


def micro_batch(settings: TrainingSettings, world: int) -> int:
    """Pictures that a process takes at a time."""
    return settings.batch // world if settings.micro_batch == "auto" else int(settings.micro_batch)


def micro_batches(settings: TrainingSettings, rank: int, world: int) -> list[range]:
    """Row numbers of the global batch that process `rank` takes, one range per micro-batch."""
    size = micro_batch(settings, world)
    parts = settings.batch // size
    return [range(part * size, (part + 1) * size) for part in range(rank, parts, world)]


def open_banks(spec: RunSpec) -> dict[str, Bank]:
    """A bank of working-size samples for each source that is kept, blank until rows are needed."""
    banks = {}
    for name in sorted({stream.source for stream in spec.streams} - streamed(spec.config).keys()):
        source, samples = spec.sources[name], fingerprint(spec.config, name, spec.sources[name])
        cache = source.settings.cache if isinstance(source, Scenes) else None
        folder = Path(cache) / samples if cache else spec.folder / ".bank" / name
        banks[name] = Bank(source, folder, samples, len(source))
    return banks


def drop_banks(folder: Path) -> None:
    """Remove the samples that were made for this run only."""
    shutil.rmtree(folder / ".bank", ignore_errors=True)


def open_latents(
    spec: RunSpec, codec: Codec, device: torch.device | str = "cpu", present: bool = False
) -> dict[str, Latents]:
    """The latent cache of each source, for the tasks it serves; `present`: only where there is one.

    Raises UserError for one that was made with another codec, task or source.
    """
    caches, config = {}, spec.config
    for name in sorted({stream.source for stream in spec.streams}):
        folder, source = Path(config.training.latents) / name, spec.sources[name]
        if truths_of(source):
            raise UserError(
                f"training.latents keeps every truth of every picture, and data.{name} has not all "
                f"({'; '.join(notes_of(source))}). Leave training.latents empty."
            )
        if present and not folder.exists():
            continue
        names = [task for stream in spec.streams if stream.source == name for task in stream.tasks]
        caches[name] = Latents(
            folder,
            source,
            fingerprint(config, name, source),
            {task: spec.tasks[task] for task in names},
            codec,
            config.codec,
            config.training.latents_dtype,
            device,
        )
    return caches


def fingerprint(config: RunConfig, name: str, source: Source) -> str:
    """Names the samples of a source: equal for equal samples."""
    if isinstance(source, Scenes):
        return source.fingerprint
    settings = replace(config.data[name], weight=1.0)
    return repr((settings, config.data_root, sorted(source.quantities)))
