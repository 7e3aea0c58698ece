"""Who looks at samples says the same: check, the start of training, and the reader of files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stepsight.cli.data.check import report_lines
from stepsight.data.check import check
from stepsight.data.plausible.judging import FIRST
from stepsight.data.readers.config import FolderSettings
from stepsight.data.table import open_source
from stepsight.errors import DataFormatError
from stepsight.training import fit

DRAW = np.random.default_rng(0)


def written(root: Path, depth: np.ndarray, count: int = 3) -> FolderSettings:
    for number in range(count):
        for kind in ("images", "depth"):
            (root / kind).mkdir(exist_ok=True)
        pixels = DRAW.integers(0, 256, (*depth.shape, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        np.save(root / "depth" / f"{number}.npy", depth)
    return FolderSettings(root=str(root), split="all")


class Listener:
    """A console that keeps what it is told."""

    def __init__(self) -> None:
        self.warned, self.noted = list[str](), list[str]()

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def note(self, text: str) -> None:
        self.noted.append(text)


def heard(settings: FolderSettings) -> Listener:
    console, spec = Listener(), SimpleNamespace()
    spec.sources = {"folder": open_source(settings, "all"), "scenes": None}
    spec.config = SimpleNamespace(data={"folder": settings, "scenes": None})
    fit._look(spec, console)  # type: ignore[arg-type]
    return console


def test_check_and_training_say_the_same_once(tmp_path):
    millimetres = DRAW.integers(300, 900, (16, 16)).astype(np.float32)
    settings = written(tmp_path, millimetres)
    report, console = check(settings, "all"), heard(settings)
    (finding,) = report.findings
    assert finding.startswith("3 of 3 samples (0, 1, 2): depth holds nothing but whole metres")
    assert console.warned == [f"folder, of the first 3 samples: {finding}"] and FIRST == 8
    assert not report.ok and f"  FINDING     {finding}" in [*report_lines(report)]


def test_sky_is_a_remark_of_both_and_no_fault(tmp_path):
    depth = 1 + DRAW.random((16, 16)).astype(np.float32)
    depth[:8] = 1e10
    settings = written(tmp_path, depth)
    report, console = check(settings, "all"), heard(settings)
    (remark,) = (text for text in report.remarks if "sky" in text)
    assert "1e+10 m, beyond 1000 m, over 50.00% of the picture" in remark
    assert report.ok and report.ranges["depth"].high < 2
    assert f"folder, of the first 3 samples: {remark}" in console.noted and not console.warned
    assert f"  REMARK      {remark}" in [*report_lines(report)]
    (sample, *_) = open_source(settings, "all").samples([0])
    assert sample.depth_valid is not None and int(sample.depth_valid.sum()) == 128


def test_another_unit_stops_the_reader(tmp_path):
    settings = written(tmp_path, (5e3 * (1 + DRAW.random((16, 16)))).astype(np.float32))
    with pytest.raises(
        DataFormatError, match="0: 100% of its depth lies beyond 1000 m.*depth_unit"
    ):
        open_source(settings, "all")[0]
    report = check(settings, "all")
    assert len(report.findings) == 3 and "in another unit" in report.findings[0]
