"""Anything published, or a run, as a run: `convert import`."""

from __future__ import annotations

from pathlib import Path

from stepsight import checkpoint
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import FAMILIES, find_family
from stepsight.conversion.recognise import FILES, PARTS, recognise
from stepsight.conversion.write import Converted, copied
from stepsight.errors import UserError
from stepsight.plugins import resolve


def import_published(path: Path, wishes: Wishes | None = None) -> Converted:
    """What a file or folder from elsewhere holds, as a run.

    Raises UserError for what is not supported, incomplete, or asks for what is not there.
    """
    wishes = wishes or Wishes()
    kind, weights = recognise(path)
    if weights is not None:
        converted = resolve(FILES[kind])(weights, wishes)
        converted.family = converted.family or kind
        if kind != "depthfm" and weights.beside:  # of whose file nothing is left over
            beside = f"beside the weights, not imported: {', '.join(map(str, weights.beside))}"
            converted.assumed = [*converted.assumed, beside]
        return converted
    named = ("vae", "scheduler") if kind == "parts" else ()
    for flag in ("vae", "size", "scheduler", "task"):
        if getattr(wishes, flag) and flag not in named:
            raise UserError(f"--{flag} is for weights in one file; {path} is a folder ({kind}).")
    if kind == "parts":
        return resolve(PARTS)(path, wishes)
    if kind == "stepsight":
        return copied(checkpoint.read(path, lazy=True))
    from stepsight.conversion.families.source import Source  # diffusers

    found = find_family(path, wishes.family)
    assert found is not None, "it was recognised as one"
    return FAMILIES[found.name](Source.of(path, found), wishes)
