"""Procedural worlds as a source of samples: a scene is a pure function of (settings, index)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.cache import Cache, Row
from stepsight.data.scenes.kinds import CLASSES
from stepsight.data.scenes.levels import level_of
from stepsight.data.scenes.parameters import draw_world
from stepsight.data.scenes.render import Frames, Rendering
from stepsight.errors import UserError, suggest
from stepsight.types import Sample

QUANTITIES = frozenset({"depth", "flow", "labels", "amodal", "normals"})
PIXELS = 1 << 16  # rendered at once: the fastest on a CPU, whose cache is small

VERSION = 1  # raise when the same settings come to mean other worlds: old caches lapse


class Scenes:
    """Samples of procedural worlds. `split` is "train" or "eval": disjoint streams of worlds.

    Only what `quantities` asks for is computed; None asks for all of `QUANTITIES`. Raises
    UserError for a level, quantity or dial that does not exist.
    """

    name = "scenes"
    classes: tuple[str, ...] = CLASSES

    def __init__(
        self, settings: ScenesSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        assert split in ("train", "eval"), split
        self.settings = settings
        self.split = split
        self.size = settings.size
        self.quantities = QUANTITIES if quantities is None else frozenset(quantities)
        self.level = level_of(settings)
        for quantity in self.quantities - QUANTITIES:
            raise UserError(
                f"data.scenes: no quantity '{quantity}'.{suggest(quantity, QUANTITIES)}"
            )
        folder = Path(settings.cache) / self.fingerprint if settings.cache else None
        self.cache = Cache(folder, len(self)) if folder else None

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
        if self.cache:
            rows = self.cache.rows(indices, self._rows)
        else:
            rows = self._rows(indices)
        return [self._sample(index, row) for index, row in zip(indices, rows, strict=True)]

    def frames(self, indices: Sequence[int]) -> Frames:
        """Both frames and everything true of them; any size, rendered in one go."""
        return self._rendering(indices).frames()

    def _rendering(self, indices: Sequence[int]) -> Rendering:
        world = draw_world(self.level, self.settings.seed, self.split, indices)
        return Rendering(world, self.size)

    def _rows(self, indices: Sequence[int]) -> list[Row]:
        chunk = max(1, PIXELS // (self.size[0] * self.size[1]))
        parts = [indices[i : i + chunk] for i in range(0, len(indices), chunk)]
        return [row for part in parts for row in self._render(part)]

    def _render(self, indices: Sequence[int]) -> list[Row]:
        fields = self._rendering(indices).fields(self.quantities)
        rows = range(len(indices))
        return [{name: value[i].clone() for name, value in fields.items()} for i in rows]

    def _sample(self, index: int, row: Row) -> Sample:
        key = f"{self.settings.level}-{self.split}-{self.settings.seed}-{index}"
        return Sample(key=key, source=self.name, **row)
