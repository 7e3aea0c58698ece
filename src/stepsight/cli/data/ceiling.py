"""`stepsight data ceiling`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepsight.cli.sources import SourceArgs, picture_path
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.evaluation.bounds import Ceiling
    from stepsight.models.codec import Codec

PIXELS, FULL = "pixels", "float32"


@dataclass(frozen=True, kw_only=True)
class Args(SourceArgs):
    """The truth through every target encoding and a codec, and back: what no model can pass."""

    images: int = 64  # encoded
    codec: str = ""  # folder of a VAE; default: pixels only
    out: Path = Path("ceiling.png")  # picture of the first two images
    json: bool = False  # print JSON


def run(args: Args) -> int:
    """Print the ceilings of a source through pixels and the codec, and draw the picture."""
    import torch

    from stepsight.data.table import having
    from stepsight.evaluation.bounds import ceiling_grid, ceilings
    from stepsight.scaling.plain import plain

    out, every = picture_path(args.out), args.open(args.images)
    if (source := having(every, every.quantities)) is None:
        raise UserError(f"{every.name}: no sample has all of its truths, which are compared.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codecs = _codecs(args.codec, device)
    rows = ceilings(source, codecs, args.images, device)
    picture = ceiling_grid(source, codecs, out, min(2, args.images), device)
    about = {
        "data": args.name,
        "images": min(args.images, len(source)),
        "size": list(source.size),
        "codec": [*codecs.values()][-1].name,
    }
    if args.json:
        objects = {"picture": str(picture), "ceilings": [asdict(row) for row in rows]}
        print(json.dumps(plain(about | objects)))
        return 0
    grid = "x".join(map(str, source.size))
    print(f"{args.name}: the truth there and back, {about['images']} images at {grid}")
    print(ceiling_text(rows))
    print(f"codec {about['codec']}; written to {picture}")
    return 0


def _codecs(folder: str, device: str) -> dict[str, Codec]:
    """Pixels, and the VAE in `folder` in float32 and in bfloat16."""
    from stepsight.models.codec import open_codec
    from stepsight.models.config import CodecSettings

    settings = {PIXELS: CodecSettings()}
    if folder:
        full = CodecSettings(folder, "float32")
        settings |= {FULL: full, "bfloat16": replace(full, precision="bf16")}
    return {name: open_codec(codec).to(device) for name, codec in settings.items()}


def ceiling_text(rows: Sequence[Ceiling]) -> str:
    """A table per protocol, as only its scores compare, and below it how the encodings rank."""
    groups: dict[tuple[str, str], list[Ceiling]] = {}
    for row in rows:
        groups.setdefault((row.task, row.protocol), []).append(row)
    return "\n".join("\n".join([*_lines(group), *ranking(group)]) for group in groups.values())


def _lines(group: Sequence[Ceiling]) -> Iterator[str]:
    """The table: a row per encoding, with its main metric through each codec."""
    from stepsight.measures import measure, number

    yield f"{group[0].task}  ({group[0].protocol})  {measure(group[0].metric).axis}"
    codecs = list(dict.fromkeys(row.codec for row in group))
    yield _columns("encoding", "channels", "latents", "in loss", *codecs)
    for encoding in dict.fromkeys(row.encoding for row in group):
        rows = [row for row in group if row.encoding == encoding]
        costs = [str(rows[-1].channels), str(rows[-1].latents), f"{rows[-1].in_loss:.1%}"]
        yield _columns(encoding, *costs, *[number(row.value) for row in rows])


def _columns(first: str, *others: str) -> str:
    return f"  {first:<10}" + "".join(f"{other:>10}" for other in others)


def ranking(group: Sequence[Ceiling]) -> list[str]:
    """A line on what a VAE leaves of the encodings of one protocol, in float32, the best first; of
    equal scores, as printed, the one with fewer latents. Nothing where there is no choice."""
    from stepsight.measures import measure, number

    coded = [row for row in group if row.codec == FULL and not math.isnan(row.value)]
    if len(coded) < 2:
        return []
    sign = -1 if measure(coded[0].metric).higher_is_better else 1
    coded.sort(key=lambda row: (sign * float(number(row.value)), row.latents))
    best, *rest = [f"{row.encoding} {number(row.value)} ({row.latents} latents)" for row in coded]
    return [f"  survives best: {best}, then {', '.join(rest)}"]
