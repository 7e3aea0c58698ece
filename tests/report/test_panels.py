"""Panels of pictures: written and read again, and refused where they are not whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepsight.errors import DataFormatError
from stepsight.legends import Legend
from stepsight.report.panels import FOLDER, read_panels, write_panel
from tests.support.pages.panels import a_panel, write_a_panel


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_a_panel(tmp_path)
    return tmp_path


def test_what_was_written_is_read_again(tmp_path):
    written = write_a_panel(tmp_path)
    assert read_panels(tmp_path) == [written]
    assert [replace(tile, file="") for tile in written.tiles] == [*a_panel().tiles]
    for tile in written.tiles:
        picture = np.asarray(Image.open(tmp_path / FOLDER / tile.file))
        assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8


def test_panels_come_in_the_order_of_the_house_and_a_folder_without_has_none(
    written, tmp_path_factory
):
    write_a_panel(written, "flow")
    write_a_panel(written, "amodal")
    assert [panel.task for panel in read_panels(written)] == ["depth", "flow", "amodal"]
    assert read_panels(tmp_path_factory.mktemp("empty")) == []


def test_a_panel_of_fewer_tiles_leaves_none_of_the_earlier_ones(written):
    write_a_panel(written, "depth")
    panel = replace(a_panel(), tiles=a_panel().tiles[:2])
    write_panel(written, panel, [np.zeros((2, 2, 3), np.uint8)] * 2)
    assert len(list((written / FOLDER).glob("*.png"))) == 2


def _changed(folder: Path, **fields: object) -> None:
    path = folder / FOLDER / "depth.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("fields", [{"tiles": 3}, {"scale": {"kind": "values"}}, {"colour": "red"}])
def test_another_file_is_refused_by_name(written, fields):
    _changed(written, **fields)
    with pytest.raises(DataFormatError, match=r"depth\.json: no panel"):
        read_panels(written)


@pytest.mark.parametrize("name", ["gone.png", "../depth.json"])
def test_a_picture_that_is_not_beside_it_is_refused(written, name):
    tile = {"name": "truth", "file": name, "alt": ""}
    _changed(written, tiles=[tile])
    with pytest.raises(DataFormatError, match="is not there"):
        read_panels(written)


def test_a_tile_that_nobody_knows_is_refused(written):
    _changed(written, tiles=[{"name": "guess", "file": "depth-01-truth.png", "alt": ""}])
    with pytest.raises(DataFormatError, match="'guess'"):
        read_panels(written)


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (1.3, 11, True, [2, 3, 5, 10]),
        (0.6, 80, True, [1, 3, 10, 30]),
        (2, 3.1, True, [2, 2.5, 3]),
        (0, 0.13, False, [0, 0.05, 0.1]),
        (0, 7.3, False, [0, 2, 4, 6]),
        (1, 1, True, [1, 1]),
    ],
)
def test_ticks_are_round_and_few(low, high, log, ticks):
    assert Legend("values", low=low, high=high, log=log).ticks() == pytest.approx(ticks)


def test_a_value_has_its_place_on_the_bar():
    depth = Legend("values", low=1, high=100, log=True)
    assert [depth.share(x) for x in (0, 1, 10, 100, 1e3)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert Legend("values", low=-1, high=3).share(1) == pytest.approx(0.5)
