"""The card of a saved checkpoint: README.md, written from its settings, its scores and the panels
of pictures that lie beside them. Nothing is told that the folder does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from stepsight.checkpoint import BACKBONE, Checkpoint
from stepsight.config import RunConfig
from stepsight.data.config import ScenesSettings
from stepsight.data.readers.config import FolderSettings
from stepsight.legends import Legend
from stepsight.measures import measure, number
from stepsight.report.panels import FOLDER, PanelTile, PicturePanel, read_panels
from stepsight.results import Result, read_results
from stepsight.tasks.table import build_tasks

NAME, TEMPLATE = "README.md", "card.md.j2"
# What the hub calls a task, in lists of models; the first that a model has names its pipeline.
KINDS = {"depth": "depth-estimation", "semantic": "image-segmentation"}
KINDS |= {"panoptic": "image-segmentation", "amodal": "mask-generation"}
LEAST = 192  # pixels that a tile is wide in the card: smaller ones are enlarged
BAR = 16, 384  # height and width of a bar of colours


def write_card(saved: Checkpoint, licence: str = "") -> Path:
    """Write README.md into a saved checkpoint, with a bar of colours beside its pictures; returns
    its path. licence: as the hub has it, "apache-2.0"; "" if none was stated."""
    evaluation = saved.path / "eval"
    panels = [one for one in read_panels(evaluation) if one.task in saved.config.tasks]
    results = [
        one
        for one in read_results(evaluation / "results.json")
        if one.task in saved.config.tasks and one.checkpoint == saved.digest()
    ]
    path = saved.path / NAME
    path.write_text(
        _template().render(
            licence=licence,
            kind=next((KINDS[one] for one in saved.config.tasks if one in KINDS), None),
            name=saved.meta.get("run") or saved.path.name,
            meta={"family": "", "revision": "", "inherited_flops": 0.0} | saved.meta,
            config=saved.config,
            parameters=sum(np.prod(shape) for shape in saved.shapes(BACKBONE).values()),
            stored=_stored(saved),
            digest=saved.digest(),
            trained_on=_trained_on(saved.config),
            tasks=_tasks(saved),
            rows=[_scores(one) for one in results],
            protocols={one.protocol: one.protocol_text for one in results},
            pictures=[_picture(one, evaluation / FOLDER) for one in panels],
            photographs=any(not isinstance(x, ScenesSettings) for x in saved.config.data.values()),
        ),
        encoding="utf-8",
    )
    return path


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"text": _text, "quoted": json.dumps}
    return environment.get_template(TEMPLATE)


def _text(value: object) -> str:
    """As text of Markdown, in a line and in the cell of a table: names may hold anything."""
    signs = {"&": "&amp;", "<": "&lt;", "|": "\\|", "`": "'", "\n": " ", "[": "\\[", "*": "\\*"}
    return "".join(signs.get(letter, letter) for letter in str(value))


def _trained_on(config: RunConfig) -> list[str]:
    """Its sets of data, in words."""
    words = []
    for name, settings in config.data.items():
        if isinstance(settings, ScenesSettings):
            words.append(f"procedural worlds of level {settings.level}, drawn by stepsight")
        else:
            own = isinstance(settings, FolderSettings)
            words.append("pictures of its owner's" if own else f"the data set {name}")
    return words


def _stored(saved: Checkpoint) -> str:
    """The dtype of most of its weights."""
    counts: dict[str, int] = {}
    for value in saved.tensors(BACKBONE).values():
        name = str(value.dtype).removeprefix("torch.")
        counts[name] = counts.get(name, 0) + value.numel()
    return max(counts, key=lambda name: counts[name])


def _tasks(saved: Checkpoint) -> list[dict[str, Any]]:
    """By task: what answers are, what it reads besides the picture, its size, its setting."""
    chosen: Mapping[str, Any] = saved.meta.get("sampling", {})
    fitted: Mapping[str, Any] = saved.meta.get("calibration", {})
    return [
        {
            "name": name,
            "unit": task.unit,
            "reads": {"second": "a second picture", "modal": "a mask of what is visible"},
            "needs": task.required_inputs,
            "size": "{} x {}".format(*saved.sizes[name]),
            "setting": chosen.get(name),
            "calibrated": bool(fitted.get(name, {}).get("scale")),
            "relative": saved.config.tasks[name].loses_scale,
        }
        for name, task in build_tasks(saved.config.tasks).items()
    ]


def _scores(result: Result) -> dict[str, Any]:
    """A row of the table of scores."""
    metric = result.main or ""
    ends = result.intervals.get(metric)
    values = {name: row[metric] for name, row in result.baselines.items() if metric in row}
    trivial = ", ".join(f"{_said(name)} {number(value)}" for name, value in values.items())
    return {
        "task": result.task,
        "data": result.data + (f", {result.split}" if result.split else ""),
        "images": result.n if not result.expected else f"{result.n} of {result.expected}",
        "protocol": result.protocol,
        "setting": f"{result.nfe} x {result.members}, T {result.temperature or 0:g}",
        "metric": measure(metric).label,
        "better": measure(metric).better,
        "value": number(result.metrics.get(metric, float("nan"))),
        "interval": " [{}, {}]".format(*map(number, ends)) if ends else "",
        "trivial": trivial,
        "label": result.label,
    }


def _said(name: str) -> str:
    return name.replace("_", " ")


def _picture(panel: PicturePanel, folder: Path) -> dict[str, Any]:
    """A panel as a row of pictures, enlarged where they are small, and the bar of their colours."""
    for tile in panel.tiles:
        with Image.open(folder / tile.file) as opened:
            times = -(-LEAST // opened.width)
            if times > 1:
                size = opened.width * times, opened.height * times
                opened.resize(size, Image.Resampling.NEAREST).save(folder / tile.file)
    scale = panel.scale
    bar = f"{panel.task}-colours.png"
    if scale is not None and _colours(scale):
        _bar(scale, folder / bar)
    return {
        "task": panel.task,
        "about": f"{panel.data}, image {panel.key}: {panel.chosen}",
        "metric": measure(panel.metric).label,
        "tiles": [(tile, f"eval/{FOLDER}/{tile.file}", _under(tile)) for tile in panel.tiles],
        "bar": f"eval/{FOLDER}/{bar}" if (folder / bar).is_file() else "",
        "colours": _in_words(scale) if scale is not None else "",
    }


def _under(tile: PanelTile) -> str:
    score = "" if tile.score is None else number(tile.score)
    return ": ".join(part for part in (tile.setting, score) if part)


def _colours(scale: Legend) -> Iterable[str]:
    return [one.colour for one in scale.classes] or scale.stops


def _bar(scale: Legend, path: Path) -> None:
    """Classes as blocks, values as they run; directions of a wheel from right, clockwise."""
    height, width = BAR
    stops = np.array([[int(one[k : k + 2], 16) for k in (1, 3, 5)] for one in _colours(scale)])
    if scale.classes:
        line = np.repeat(stops, -(-width // len(stops)), axis=0)
    else:
        places = np.linspace(0, len(stops) - 1, width)
        columns = [np.interp(places, range(len(stops)), stops[:, k]) for k in range(3)]
        line = np.stack(columns, axis=1)
    row = np.repeat(line[None].round().astype(np.uint8), height, axis=0)
    Image.fromarray(row).save(path)


def _in_words(scale: Legend) -> str:
    """What the bar shows, from left to right."""
    if scale.classes:
        said = ", ".join(one.name for one in scale.classes)
    elif scale.kind == "flow":
        said = "motion to the right, down, left and up; white at rest, "
        said += f"full at {number(scale.high)} {scale.unit}"
    else:
        said = f"{number(scale.low)} to {number(scale.high)} {scale.unit}".strip()
        said += ", in steps of its logarithm" if scale.log else ""
    return f"{said}; grey: {scale.invalid_means}"
