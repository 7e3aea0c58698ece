"""What is answered: a picture or a film, with what its task reads beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepsight.data.fields import PICTURES
from stepsight.predicting.film.reading import is_film


@dataclass(frozen=True)
class Item:
    """A picture or a film to be answered."""

    path: Path
    name: str = ""  # of its answers, with "/", below the folder of the answers
    second: Path | None = None
    mask: Path | None = None
    frames: tuple[Item, ...] = ()  # of a film that is kept as a folder of pictures

    @property
    def film(self) -> bool:
        return bool(self.frames) or is_film(self.path) and self.path.suffix.lower() not in PICTURES
