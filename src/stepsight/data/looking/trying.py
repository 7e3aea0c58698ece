"""Reads samples of a found tree as training will, and says what is wrong or implausible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from stepsight.data.decoding.pictures import turn_of
from stepsight.data.looking.found import FoundTree
from stepsight.data.plausible.judging import summary, votes
from stepsight.data.table import Source, open_source, read_samples, settings_for
from stepsight.errors import UserError

READ = 24  # samples that are read, spread over the set
OF_METRES = ("far", "sky", "too near", "normalised", "whole numbers")  # rules of depth


def try_reading(found: FoundTree) -> None:
    """Read a few samples; what was wrong becomes problems of the tree, what is worth knowing
    notes. Raises the first error where none can be read."""
    with TemporaryDirectory() as folder:
        shadow = replace(found, written=[])
        source = open_source(settings_for("folder", **shadow.write(Path(folder))), "all")
        _judge(found, source)


def _judge(found: FoundTree, source: Source) -> None:
    count = len(source)
    chosen = sorted({number * count // READ for number in range(READ)} & {*range(count)})
    errors: list[UserError] = []
    read = read_samples(source, chosen, lambda _, error: errors.append(error))
    samples = [sample for sample in read if sample is not None]
    if not samples:
        raise errors[0]
    images = [found.samples[n]["image"] for n, one in zip(chosen, read) if one is not None]
    turns = {turn_of(found.root / image) for image in images} - {1}
    if turns:
        found.notes.append(
            f"pictures have EXIF orientation {', '.join(map(str, sorted(turns)))}: they are read "
            "upright, and truth is taken as drawn upright, unless its shape says that it is not."
        )
    if count > len(chosen):
        found.notes.append(f"{len(chosen)} of {count} samples were read; `data check` reads all.")
    if errors:
        said = f"{len(errors)} of {len(chosen)} samples cannot be read: {errors[0]}"
        found.problems.append(said)
    scaled = found.options.get("depth_unit") != "disparity"  # else metres mean nothing
    for remark in summary(vote for sample in samples for vote in votes(sample, source)):
        if not scaled and remark.rule in OF_METRES:
            continue
        (found.problems if remark.grave else found.notes).append(str(remark))
