"""Films: frames in, steady answers, films out; how much the answers flicker.

What is named here is imported when it is first asked for, so that the settings beside it stay
light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepsight.predicting.film.following import predict_film
    from stepsight.predicting.film.reading import frame_rate, frames, is_film
    from stepsight.predicting.film.writing import FilmWriter

__all__ = ["FilmWriter", "frame_rate", "frames", "is_film", "predict_film"]
_HOMES = {"predict_film": "following", "FilmWriter": "writing"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'stepsight.predicting.film' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'reading')}"), name)
