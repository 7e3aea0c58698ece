"""Anything published, or a run, as a run: `convert import`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from stepsight import checkpoint
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import FAMILIES, find_family
from stepsight.conversion.foreign import Weights
from stepsight.conversion.recognise import FILES, PARTS, recognise
from stepsight.conversion.write import Converted, copied
from stepsight.errors import DataFormatError, UserError
from stepsight.plugins import resolve

# Which of `Wishes` each kind leaves open, and of folders the family that leaves more.
OPEN: dict[str, tuple[str, ...]] = {
    "stepsight": (),
    "folder": ("family",),
    "geowizard": ("family", "domain"),
    "parts": ("family", "vae", "scheduler"),
    "generalist": ("vae", "size", "scheduler"),
    "single-task": ("vae", "size", "scheduler", "task"),
    "dit": ("vae", "size", "scheduler", "task"),
    "depthfm": ("vae", "size"),
    "pix2gestalt": (),
}
# What values of a wrong kind and tensors of a wrong shape come to, where no check names them.
MALFORMED = (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RuntimeError)


def import_published(path: Path, wishes: Wishes | None = None) -> Converted:
    """What a file or folder from elsewhere holds, as a run.

    Raises UserError for what is not supported, incomplete, malformed, or asks for what is not
    there.
    """
    wishes = wishes or Wishes()
    kind, weights = recognise(path)
    if kind == "stepsight":
        _check_open(wishes, kind, path)
        return copied(checkpoint.read(path, lazy=True))
    try:
        if weights is None:
            return _from_folder(path, kind, wishes)
        _check_open(wishes, kind, path)
        return _from_file(weights, kind, wishes)
    except MALFORMED as error:
        raise DataFormatError(
            f"{path}: its files are not as those of a published {kind} are ({error!r}). Compare "
            f"them with the original."
        ) from error


def _from_file(weights: Weights, kind: str, wishes: Wishes) -> Converted:
    converted = resolve(FILES[kind])(weights, wishes)
    converted.family = converted.family or kind
    if kind != "depthfm" and weights.beside:  # of whose file nothing is left over
        beside = f"beside the weights, not imported: {', '.join(map(str, weights.beside))}"
        converted.assumed = [*converted.assumed, beside]
    return converted


def _from_folder(path: Path, kind: str, wishes: Wishes) -> Converted:
    if kind == "parts":
        _check_open(wishes, kind, path)
        return resolve(PARTS)(path, wishes)
    from stepsight.conversion.families.source import Source  # diffusers

    found = find_family(path, wishes.family)
    _check_open(wishes, found.name if found.name in OPEN else kind, path)
    return FAMILIES[found.name](Source.of(path, found), wishes)


def _check_open(wishes: Wishes, kind: str, path: Path) -> None:
    """Refuse what nothing would read."""
    for flag in (one.name for one in fields(wishes)):
        if getattr(wishes, flag) is not None and flag not in OPEN[kind]:
            takes = ", ".join(f"--{name}" for name in OPEN[kind]) or "none of these flags"
            raise UserError(
                f"--{flag} says nothing that {path} ({kind}) leaves open; it takes {takes}."
            )
