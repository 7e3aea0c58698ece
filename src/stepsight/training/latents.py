"""The latent cache: what codec and tasks make of every sample of a source, made once and kept.

A row holds one sample, plain and mirrored: the latents of its image once, and for each task its
other condition images, target, valid entries, features and label rows. A VAE's posterior mean is
deterministic, so training from the cache is training online up to the precision that is stored.
The folder says what it was made with, and serves nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from stepsight.coding import Layout, Parts, encode, to_model_inputs
from stepsight.data.augment import flip
from stepsight.data.bad import BadItems
from stepsight.data.cache.bank import Marks
from stepsight.data.cache.store import Store
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.table import Source, first_readable, read_samples
from stepsight.execution.precision import resolved
from stepsight.models.codec import Codec
from stepsight.models.config import CodecSettings
from stepsight.tasks.base import Task
from stepsight.types import Batch, ModelInputs, Sample

CHUNK = 16  # samples coded at a time
Fields = dict[str, np.ndarray]


class Latents:
    """Encoded samples of a source, for the tasks it can serve.

    fingerprint: of the samples. how: the codec's settings. dtype: what floats are stored in.
    device: where the codec is.
    Raises UserError if the folder holds what was made with another codec, task or source.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        fingerprint: str,
        tasks: Mapping[str, Task],
        codec: Codec,
        how: CodecSettings,
        dtype: str,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source, self.tasks, self.codec, self.device = source, dict(tasks), codec, device
        self.dtype = np.dtype(dtype)
        made_with = {
            "codec": codec.name,
            "computed_in": [resolved(how.precision, device), "tiled" if how.tiling else "whole"],
            "dtype": dtype,
            "tasks": {name: _settings(task) for name, task in tasks.items()},
            "source": source.name,
            "samples": fingerprint,
            "size": list(source.size),
            "crop": "none",
            "augmentation": "mirrored",
        }
        self.store = Store(folder, "latent cache", made_with, len(source), self._row_type)

    def fill(
        self,
        rank: int = 0,
        world: int = 1,
        stop: int | None = None,
        report: Callable[[int], None] = lambda rows: None,
        bad: BadItems | None = None,
    ) -> None:
        """Make this process's share of the blank rows below `stop`, by blocks.

        bad: what to do about samples that cannot be read, whose rows are marked; None: stop.
        """
        for block in self.store.blank_blocks(rank, world, stop):
            rows, marks = np.zeros(len(block), self.store.dtype), Marks(self.source, bad)
            for start in range(block.start, block.stop, CHUNK):
                part = range(start, min(start + CHUNK, block.stop))
                read = read_samples(self.source, part, marks.mark)
                samples = {i - block.start: one for i, one in zip(part, read) if one is not None}
                for name, value in self._make([*samples.values()]).items() if samples else ():
                    rows[name][[*samples]] = value
            self.store.write(block, rows, marks.reasons)
            report(len(block))

    def _row_type(self) -> np.dtype:
        made = self._make([first_readable(self.source)])
        return np.dtype([(name, v.dtype, v.shape[1:]) for name, v in made.items()], align=True)

    def _make(self, samples: Sequence[Sample]) -> Fields:
        """The fields of the rows of some samples, with leading axes (row, mirrored)."""
        samples = [resize_sample(one, self.source.size) for one in samples]
        batches = [collate(group) for group in (samples, [flip(sample) for sample in samples])]
        sides = [_fields(batch.to(self.device), self.tasks, self.codec) for batch in batches]
        made = {name: np.stack([side[name] for side in sides], axis=1) for name in sides[0]}
        return {n: v.astype(self.dtype) if v.dtype == np.float32 else v for n, v in made.items()}

    def coded(
        self, task: str, layout: Layout, indices: Sequence[int], mirrored: Sequence[bool]
    ) -> ModelInputs:
        """The samples `indices` as `coding.code` would give them."""
        rows = self.store.read(np.asarray(indices))
        side = np.arange(len(rows)), np.asarray(mirrored, dtype=int)
        names = rows.dtype.names or ()

        def field(name: str) -> Tensor | None:
            return torch.from_numpy(rows[name][side]) if name in names else None

        x, cells, label = (field(f"{task}.{name}") for name in ("x", "cells", "label"))
        others, features = field(f"{task}.images"), field(f"{task}.features")
        assert x is not None and cells is not None and label is not None and others is not None
        shared = [rows["image"][side]] if self.tasks[task].images else []
        images = torch.cat([*map(torch.from_numpy, shared), others], dim=1).float()
        features = None if features is None else features.float()
        parts = Parts(images, features, label.long(), x.float(), cells.bool())
        return to_model_inputs(parts, self.tasks[task], layout)


def _settings(task: Task) -> dict[str, Any]:
    """What shapes a task's target and condition: not how often it is drawn."""
    values = asdict(task)  # type: ignore[call-overload]
    return {key: value for key, value in values.items() if key != "weight"}


def _fields(batch: Batch, tasks: Mapping[str, Task], codec: Codec) -> Fields:
    """The fields of a batch. The first condition image is the picture itself: kept once."""
    fields: Fields = {}
    slot, once = codec.channels(3), cast(Codec, _Once(codec))
    for name, task in tasks.items():
        parts = encode(batch, task, once, target=True)
        if task.images:
            fields["image"] = _array(parts.images[:, :slot])
            parts = replace(parts, images=parts.images[:, slot:])
        for part in ("images", "features", "label", "x", "cells"):
            if (value := getattr(parts, part)) is not None:
                fields[f"{name}.{part}"] = _array(value)
    return fields


def _array(value: Tensor) -> np.ndarray:
    kinds = {torch.bool: torch.uint8, torch.int64: torch.int32}
    return value.to(kinds.get(value.dtype, value.dtype)).cpu().numpy()


class _Once:
    """A codec that remembers what it was given: tasks share their pictures."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._seen: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def encode(self, x: Tensor) -> Tensor:
        """The codec's answer, asked once for the same picture."""
        pixels = x.contiguous().cpu().numpy().tobytes()
        key = f"{tuple(x.shape)} {hashlib.sha256(pixels).hexdigest()}"
        if key not in self._seen:
            self._seen[key] = self._codec.encode(x)
        return self._seen[key]
