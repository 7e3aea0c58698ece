"""Procedural worlds as a source of samples: a scene is a pure function of (settings, index)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from stepsight.data.config import ScenesSettings
from stepsight.data.fields import QUANTITIES as BUILT_IN
from stepsight.data.fields import unknown
from stepsight.data.scenes.kinds import CLASSES, TYPES
from stepsight.data.scenes.levels import DIALS, level_of
from stepsight.data.scenes.parameters import draw_world
from stepsight.data.scenes.render import Rendering
from stepsight.errors import UserError, suggest
from stepsight.types import Sample

QUANTITIES = frozenset(name for name in BUILT_IN if hasattr(Rendering, name))
PIXELS = 1 << 16  # rendered at once: the fastest on a CPU, whose cache is small

VERSION = 1  # raise when the same settings come to mean other worlds: stored samples lapse


class Scenes:
    """Samples of procedural worlds. `split` is "train", "eval" or "tune": disjoint streams.

    Only the `quantities` are computed, as far as worlds have them; None stands for all of
    `QUANTITIES`. Raises UserError for a level, quantity or dial that does not exist.
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
        asked = QUANTITIES if quantities is None else quantities
        self.quantities = QUANTITIES & asked
        self.level = level_of(settings)
        for quantity in unknown(asked):
            hint = suggest(quantity, QUANTITIES)
            raise UserError(f"data.scenes: worlds have no quantity '{quantity}'.{hint}")

    @property
    def title(self) -> str:
        """What scores are filed under: `scenes`, and how these differ from the defaults."""
        usual, chosen = ScenesSettings(), self.settings
        turned = [(name, getattr(chosen, name)) for name in DIALS]
        dials = [f"{name}-{value:g}" for name, value in turned if value is not None]
        level = [chosen.level] if chosen.level != usual.level else []
        seed = [f"seed-{chosen.seed}"] if chosen.seed != usual.seed else []
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
        rows = [row for s in self.renderings(indices) for row in _rows(s.fields(self.quantities))]
        return [self._sample(index, row) for index, row in zip(indices, rows, strict=True)]

    def renderings(self, indices: Sequence[int]) -> Iterator[Rendering]:
        """The scenes `indices` in chunks."""
        size = max(1, PIXELS // (self.size[0] * self.size[1]))
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            yield Rendering(
                draw_world(self.level, self.settings.seed, self.split, chunk), self.size
            )

    def _sample(self, index: int, row: dict[str, Tensor]) -> Sample:
        key = f"{self.settings.level}-{self.split}-{self.settings.seed}-{index}"
        sample = replace(Sample(image=row["image"], key=key, source=self.name), **row)
        if "class_id" in row:
            sample.class_id = int(row["class_id"])
        return sample


def _rows(values: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Contiguous copies: a sample must not keep the chunk in which it was rendered alive."""
    layout = torch.contiguous_format
    columns = [[row.clone(memory_format=layout) for row in value] for value in values.values()]
    return [dict(zip(values, row)) for row in zip(*columns, strict=True)]
