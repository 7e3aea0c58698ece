"""The truth through every target encoding and a codec, and back: what no model can pass."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from stepsight.cli.data.opening import (
    add_images_flag,
    add_source_flags,
    open_named,
    picture_path,
)

if TYPE_CHECKING:
    from stepsight.evaluation.bounds.ceiling import Ceiling
    from stepsight.models.codec import Codec

IMAGES = 64
PIXELS, FULL = "pixels", "float32"


def add_flags(own: argparse.ArgumentParser) -> None:
    add_source_flags(own)
    add_images_flag(own, IMAGES)
    own.add_argument("--codec", default="", metavar="FOLDER", help="of a VAE; default: pixels only")
    own.add_argument("--out", default="ceiling.png", help="picture of the first two images")
    own.add_argument("--json", action="store_true")


def run(door: argparse.Namespace) -> int:
    """Print the ceilings of a source through pixels and the codec, and draw the picture."""
    import torch

    from stepsight.evaluation.bounds.ceiling import ceiling_grid, ceilings
    from stepsight.evaluation.results import finite

    out, source = picture_path(door.out), open_named(door, door.images)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codecs = _codecs(door.codec, device)
    found = ceilings(source, codecs, door.images, device)
    picture = ceiling_grid(source, codecs, out, min(2, door.images), device)
    about = {
        "data": door.name,
        "images": min(door.images, len(source)),
        "size": list(source.size),
        "codec": [*codecs.values()][-1].name,
    }
    if door.json:
        rows = [asdict(one) for one in found]
        print(json.dumps(finite(about | {"picture": str(picture), "ceilings": rows})))
        return 0
    grid = "x".join(map(str, source.size))
    print(f"{door.name}: the truth there and back, {about['images']} images at {grid}")
    print(ceiling_text(found))
    print(f"codec {about['codec']}; written to {picture}")
    return 0


def _codecs(folder: str, device: str) -> dict[str, Codec]:
    """Pixels, and the VAE in `folder` in each dtype it can compute in."""
    from stepsight.models.codec import open_codec
    from stepsight.models.config import CodecSettings

    settings = {PIXELS: CodecSettings()}
    if folder:
        full = CodecSettings(path=folder)
        settings |= {FULL: full, "bfloat16": replace(full, dtype="bfloat16")}
    return {name: open_codec(one).to(device) for name, one in settings.items()}


def ceiling_text(found: Sequence[Ceiling]) -> str:
    """A table a protocol, as only its scores compare, and below it how the encodings rank."""
    groups: dict[tuple[str, str], list[Ceiling]] = {}
    for one in found:
        groups.setdefault((one.task, one.protocol), []).append(one)
    return "\n".join("\n".join([*_lines(group), *ranking(group)]) for group in groups.values())


def _lines(group: Sequence[Ceiling]) -> Iterator[str]:
    """The table: an encoding a row, its main metric through each codec a column."""
    from stepsight.measures import measure, number

    yield f"{group[0].task}  ({group[0].protocol})  {measure(group[0].metric).axis}"
    codecs = list(dict.fromkeys(one.codec for one in group))
    yield _columns("encoding", "channels", "latents", "in loss", *codecs)
    for encoding in dict.fromkeys(one.encoding for one in group):
        row = [one for one in group if one.encoding == encoding]
        costs = [str(row[-1].channels), str(row[-1].latents), f"{row[-1].in_loss:.1%}"]
        yield _columns(encoding, *costs, *[number(one.value) for one in row])


def _columns(first: str, *others: str) -> str:
    return f"  {first:<10}" + "".join(f"{other:>10}" for other in others)


def ranking(group: Sequence[Ceiling]) -> list[str]:
    """A line on what a VAE leaves of the encodings of one protocol, in float32, the best first; of
    equal scores, as printed, the one with fewer latents. Nothing where there is no choice."""
    from stepsight.measures import measure, number

    coded = [one for one in group if one.codec == FULL and not math.isnan(one.value)]
    if len(coded) < 2:
        return []
    sign = -1 if measure(coded[0].metric).higher_is_better else 1
    coded.sort(key=lambda one: (sign * float(number(one.value)), one.latents))
    best, *rest = [f"{one.encoding} {number(one.value)} ({one.latents} latents)" for one in coded]
    return [f"  survives best: {best}, then {', '.join(rest)}"]
