"""docs/design.md names the files that run from disk to loss and from image to metric: both are
traced here, in the smallest run there is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.config import RunConfig, from_dict
from stepsight.evaluation import evaluate
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.sources import open_sources
from stepsight.pipeline import DensePipeline
from stepsight.training.feed import Feed
from stepsight.training.fit import fit

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stepsight"
PAGE = ROOT / "docs" / "design.md"


class Trace:
    """The files of the package in which a function ran between `start` and `stop`."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def _note(self, frame, event, argument) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(SOURCE):
            self.files.add(path.relative_to(SOURCE).as_posix())

    def start(self) -> None:
        sys.setprofile(self._note)

    def stop(self) -> None:
        sys.setprofile(None)

    @contextmanager
    def on(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()


def listed(title: str) -> set[str]:
    """The files that the page names in the first column of a heading's table, and below it."""
    section = PAGE.read_text(encoding="utf-8").split(f"### {title}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `([\w/]+\.py)`", section, re.MULTILINE)
    return {*rows, *re.findall(r"`([\w/]+\.py)`", section.split("Besides run:", 1)[1])}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    """Depth from a folder of four pictures, one step."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for kind in ("images", "depth"):
        (root / kind).mkdir()
    for i in range(4):
        rgb = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(root / "images" / f"{i}.png")
        depth = draw.integers(1000, 9000, (32, 32)).astype(np.uint16)
        Image.fromarray(depth).save(root / "depth" / f"{i}.png")
    return from_dict(
        {
            "model": {"name": "split-8"},
            "tasks": {"depth": {}},
            "data": {
                "folder": {
                    "root": str(root),
                    "size": [32, 32],
                    "split": "all",
                    "eval_split": "all",
                    "stream": True,
                }
            },
            "training": {"images": 4, "batch": 4, "evaluate": False, "workers": 0},
            "evaluation": {"tuning_images": 0, "sweep": False},
        }
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> tuple[Path, set[str]]:
    """A run of one step, and what ran from the draw of its batch to the gradient of its loss."""
    trace, patch = Trace(), pytest.MonkeyPatch()
    draw, backward = Feed.draw, torch.Tensor.backward

    def first(self, step):
        trace.start()
        return draw(self, step)

    def last(self, *arguments):
        trace.stop()
        backward(self, *arguments)

    patch.setattr(Feed, "draw", first)
    patch.setattr(torch.Tensor, "backward", last)
    try:
        path = fit(config, name="t", run_dir=str(tmp_path_factory.mktemp("runs") / "one"))
    finally:
        trace.stop()
        patch.undo()
    return path, trace.files


def test_from_disk_to_loss(run):
    assert run[1] == listed("From disk to loss")


def test_from_image_to_metric(run, config):
    pipeline = DensePipeline.from_pretrained(run[0])
    sources = open_sources(config, frozenset({"depth"}), "eval")
    plan = ScoringPlan([2], [2], 1, sampler="ddim", seed=0, chunk_size=8)
    trace = Trace()
    with trace.on():
        evaluate.score_tasks(pipeline, {"depth": sources["folder"]}, plan)
    assert trace.files == listed("From image to metric")


def test_every_file_that_the_page_names_is_there():
    names = re.findall(r"`((?:\w+/)*\w+\.py)`", PAGE.read_text(encoding="utf-8"))
    there = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    there |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.py")}
    there |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*.py")}
    there |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "scripts").glob("*.py")}
    assert [name for name in names if name not in there] == []
