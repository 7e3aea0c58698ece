"""Procedural worlds as a source of samples: a scene is a pure function of (settings, index)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace

import torch
from torch import Tensor

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.kinds import CLASSES, TYPES
from stepsight.data.scenes.levels import DIALS, level_of
from stepsight.data.scenes.parameters import draw_world
from stepsight.data.scenes.render import Frames, Rendering
from stepsight.errors import UserError, suggest
from stepsight.types import Sample

Row = dict[str, Tensor]  # a scene's tensors by field of Sample
QUANTITIES = frozenset({"depth", "flow", "labels", "amodal", "whole", "normals", "class_id"})
PIXELS = 1 << 16  # rendered at once: the fastest on a CPU, whose cache is small

VERSION = 1  # raise when the same settings come to mean other worlds: kept banks lapse


class Scenes:
    """Samples of procedural worlds. `split` is "train", "eval" or "tune": disjoint streams.

    Only what `quantities` asks for is computed; None asks for all of `QUANTITIES`. Raises
    UserError for a level, quantity or dial that does not exist.
    """

    name = "scenes"
    classes: tuple[str, ...] = CLASSES
    categories: tuple[str, ...] = TYPES

    def __init__(
        self, settings: ScenesSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        assert split in ("train", "eval", "tune"), split
        self.settings = settings
        self.split = split
        self.size = settings.size
        self.quantities = QUANTITIES if quantities is None else frozenset(quantities)
        self.level = level_of(settings)
        for quantity in self.quantities - QUANTITIES:
            hint = suggest(quantity, QUANTITIES)
            raise UserError(f"data.scenes: worlds have no quantity '{quantity}'.{hint}")

    @property
    def title(self) -> str:
        """What scores are told to be of: `scenes`, and how these differ from the usual ones."""
        usual, own = ScenesSettings(), self.settings
        turned = [(name, getattr(own, name)) for name in DIALS]
        dials = [f"{name}-{value:g}" for name, value in turned if value is not None]
        level = [own.level] if own.level != usual.level else []
        seed = [f"seed-{own.seed}"] if own.seed != usual.seed else []
        return "-".join([self.name, *level, *dials, *seed])

    @property
    def fingerprint(self) -> str:
        """Names the rows this source makes: equal for equal worlds, sizes and quantities."""
        made = {
            "version": VERSION,
            "count": len(self),
            "level": asdict(self.level),
            "seed": self.settings.seed,
            "split": self.split,
            "size": tuple(self.size),
            "quantities": sorted(self.quantities),
        }
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.settings.count if self.split == "train" else self.settings.eval_count

    def __getitem__(self, index: int) -> Sample:
        return self.samples([index])[0]

    def samples(self, indices: Sequence[int]) -> list[Sample]:
        """The scenes `indices`, rendered together in chunks of the fastest size."""
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"scene {index} of {len(self)}")
        rows = self._rows(indices)
        return [self._sample(index, row) for index, row in zip(indices, rows, strict=True)]

    def frames(self, indices: Sequence[int]) -> Frames:
        """Both frames of the scenes `indices` and everything that is true of them."""
        parts = [self._rendering(chunk).frames() for chunk in self._chunks(indices)]
        names = [field.name for field in fields(Frames)]
        return Frames(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})

    def _rendering(self, indices: Sequence[int]) -> Rendering:
        world = draw_world(self.level, self.settings.seed, self.split, indices)
        return Rendering(world, self.size)

    def _chunks(self, indices: Sequence[int]) -> list[Sequence[int]]:
        size = max(1, PIXELS // (self.size[0] * self.size[1]))
        return [indices[i : i + size] for i in range(0, len(indices), size)]

    def _rows(self, indices: Sequence[int]) -> list[Row]:
        rows = []
        for chunk in self._chunks(indices):
            found = self._rendering(chunk).fields(self.quantities)
            rows += [{k: _own(v[i]) for k, v in found.items()} for i in range(len(chunk))]
        return rows

    def _sample(self, index: int, row: Row) -> Sample:
        key = f"{self.settings.level}-{self.split}-{self.settings.seed}-{index}"
        sample = replace(Sample(image=row["image"], key=key, source=self.name), **row)
        if "class_id" in row:
            sample.class_id = int(row["class_id"])
        return sample


def _own(value: Tensor) -> Tensor:
    """A contiguous copy: a sample must not keep the whole chunk it was rendered in alive."""
    return value.clone(memory_format=torch.contiguous_format)
