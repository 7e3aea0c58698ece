"""`stepsight data`: look at the procedural worlds and data sets without training anything.

stats    the trivial predictors of a world: what a model has to beat
show     a grid of samples with their truth
ceiling  the truth through target encodings and a codec: what no model can pass
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from stepsight.cli import ceiling
from stepsight.errors import UserError

IMAGES = {"stats": 512, "show": 8, "ceiling": 64}  # by verb, unless told


def run(arguments: list[str]) -> int:
    door = _parser().parse_args(arguments)
    for flag, value in (("--images", door.images), ("--size", min(door.size or (1,)))):
        if value < 1:
            raise UserError(f"{flag} {value}: must be at least 1.")
    if door.verb != "stats" and Path(door.out).suffix != ".png":
        raise UserError(f"--out {door.out}: name a .png file.")
    if door.verb == "ceiling":
        return ceiling.show(door, _open(door, "eval"))
    return {"stats": _stats, "show": _show}[door.verb](door)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepsight data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, images in IMAGES.items():
        own = verbs.add_parser(verb, allow_abbrev=False)
        own.add_argument("name", nargs="?", default="scenes")
        own.add_argument("root", nargs="?", default=None)
        own.add_argument("--level", default="standard", help="of the procedural worlds")
        own.add_argument("--size", type=int, nargs=2, default=None, metavar=("H", "W"))
        own.add_argument("--seed", type=int, default=0)
        own.add_argument("--split", default=None)
        own.add_argument("--images", type=int, default=images)
        if verb == "stats":
            own.add_argument("--json", action="store_true")
        elif verb == "ceiling":
            ceiling.add_flags(own)
        else:
            own.add_argument("--out", default="grid.png")
    return parser


def _open(door: argparse.Namespace, split: str) -> Any:
    from stepsight.data.table import open_source, settings_for

    options: dict[str, Any] = {} if door.size is None else {"size": tuple(door.size)}
    if door.name == "scenes":
        options |= {"level": door.level, "seed": door.seed, "eval_count": door.images}
        return open_source(settings_for(door.name, **options), split)
    options |= {"root": door.root or ""}
    return open_source(settings_for(door.name, **options), door.split or "all")


def _tasks(source: Any) -> dict[str, Any]:
    from stepsight.tasks.config import TABLE
    from stepsight.tasks.table import build_tasks

    options = {
        "semantic": {"classes": len(source.classes) or 7},
        "image": {"classes": len(source.categories) or 8},
    }
    settings = {name: kind(**options.get(name, {})) for name, kind in TABLE.items()}
    tasks = build_tasks(settings)
    return {name: task for name, task in tasks.items() if task.needs in source.quantities}


def _stats(door: argparse.Namespace) -> int:
    from stepsight.evaluation.measures import headline, measure, number
    from stepsight.evaluation.trivial import trivial_metrics
    from stepsight.metrics.protocol import default_for

    train, held = _open(door, "train"), _open(door, "eval")
    found: dict[str, Any] = {}
    for name, task in _tasks(held).items():
        protocol = default_for(name)
        metrics = trivial_metrics(task, train, held, protocol.name, door.images)
        found[name] = {"protocol": protocol.id, "baselines": metrics}
    count = min(door.images, len(held))
    if door.json:
        print(json.dumps({"data": door.name, "images": count, "tasks": found}))
        return 0
    print(f"{door.name}: trivial predictors over {count} images at {held.size[0]}x{held.size[1]}")
    for name, one in found.items():
        print(f"{name}  ({one['protocol']})")
        for baseline, metrics in one["baselines"].items():
            shown = [f"{measure(m).label} {number(metrics[m])}" for m in headline(name, metrics)]
            print(f"  {baseline:<18}{'   '.join(shown)}")
    return 0


def _show(door: argparse.Namespace) -> int:
    from einops import rearrange

    from stepsight.colours import colour_image
    from stepsight.data.collate import collate
    from stepsight.data.resize import resize_sample
    from stepsight.evaluation.grids import compose

    source = _open(door, "eval")
    tasks = {k: v for k, v in _tasks(source).items() if k != "image"}  # it is shown anyway
    rows, labels = [], []
    for sample in source.samples(range(min(door.images, len(source)))):
        batch = collate([resize_sample(sample, source.size)])
        pictures = [colour_image(batch.image)]
        if batch.second is not None:
            pictures.append(colour_image(batch.second))
        pictures += [task.picture(task.truth(batch), batch) for task in tasks.values()]
        rows.append([rearrange(one[0], "c h w -> h w c").numpy() for one in pictures])
        labels.append(sample.key)
    names = ["image", *(["second"] if len(rows[0]) > len(tasks) + 1 else []), *tasks]
    scale = max(1, round(128 / max(tile.shape[0] for tile in rows[0])))
    print(f"written to {compose(rows, names, labels, Path(door.out), scale=scale)}")
    return 0
