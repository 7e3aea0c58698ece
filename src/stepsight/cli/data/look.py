"""`stepsight data look`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from stepsight.cli.entry import output_folder
from stepsight.errors import command

if TYPE_CHECKING:
    from stepsight.data.looking.found import FoundTree, Truth

DRAWN = 4  # samples of the picture
GRID = "look.png"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Look at a folder of pictures and truth, whatever its layout: what belongs together, how the
    truth is stored and how one can tell. Exit status 0: all of it opens; 1: not all; 2: nothing."""

    path: Positional[Annotated[Path, arg(metavar="PATH")]]  # folder, or a list of samples
    out: Path | None = None  # folder for list.jsonl, the config.yaml that trains on it, look.png
    json: bool = False  # print JSON
    depth_unit: str = ""  # of stored depth: m, cm, mm, 1/256, 1/5000, disparity, K/disparity
    invalid: tuple[float, ...] = ()  # a stored value that is none, such as 65535
    mask_inside: str = ""  # bright, dark, nonzero, alpha, or the stored value of the object
    classes: str = ""  # of labels: "1..", cityscapes, a count, or a JSON file of names and values
    flow_unit: Literal["pixels", "normalised"] | None = None  # of stored flow


def run(args: Args) -> int:
    from stepsight.data.looking.found import Answers
    from stepsight.data.looking.look import look

    out = None if args.out is None else output_folder(args.out)
    answers = Answers(
        args.depth_unit, args.invalid, args.mask_inside, args.classes, args.flow_unit or ""
    )
    found = look(args.path, answers)
    if out is not None:
        _write(found, out)
    print(json.dumps(found.as_json(), indent=1) if args.json else "\n".join(_lines(found, out)))
    return 1 if found.problems else 0


def _write(found: FoundTree, out: Path) -> None:
    """The list, the config, and a picture of the first samples."""
    from stepsight.cli.data.show import draw_samples
    from stepsight.data.table import first_readable, open_source, read_samples, settings_for

    source = open_source(settings_for("folder", **found.write(out)), "all")
    count = min(DRAWN, len(source))
    spread = [number * len(source) // count for number in range(count)]
    read = read_samples(source, spread, lambda *_: None)  # damaged ones are among the problems
    samples = [one for one in read if one is not None] or [first_readable(source)]
    found.written.append(draw_samples(samples, source, out / GRID, ranges=True))


def _lines(found: FoundTree, out: Path | None) -> Iterator[str]:
    splits = f" in {', '.join(found.splits)}" if found.splits else ""
    counts = [(found.pictures, "picture"), (len(found.samples), "sample")]
    told = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)
    yield f"{found.root}: {told}{splits}"
    for quantity, truth in found.truth.items():
        yield f"  {quantity:<9} {_row(truth)}"
        yield from (f"            {sentence}" for sentence in truth.evidence)
    yield from (f"  NOTE      {note}" for note in found.notes)
    yield from (f"  PROBLEM   {problem}" for problem in found.problems)
    if found.written:
        yield f"written to {', '.join(map(str, found.written))}"
    if out is not None:
        yield f"next: {command('train', out)}"


def _row(truth: Truth) -> str:
    meant = [f"{name} {value}" for name, value in truth.encoding.items()]
    meant += [f"{value:g} is none" for value in truth.invalid]
    sure = "" if truth.certain else " (a guess)"
    return f"{truth.files} of {truth.of}  {truth.container}  {', '.join(meant)}{sure}"
