"""Picture grids: every tile where it belongs, every pixel kept, any text survived."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.colours import Legend
from stepsight.report.grids import GAP, PAPER, compose


def tile(value: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_every_pixel_becomes_a_square_block(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    page = read(compose([[noise]], ["rgb"], None, tmp_path / "deep" / "grid.png", scale=3))
    block = page[-GAP - 15 : -GAP, GAP : GAP + 21]
    assert np.array_equal(block, noise.repeat(3, axis=0).repeat(3, axis=1))


def test_rows_and_columns_are_in_order_and_apart(tmp_path):
    rows = [[tile(10), tile(60)], [tile(110), tile(160)]]
    page = read(compose(rows, ["a", "b"], None, tmp_path / "grid.png", scale=2))
    top = page.shape[0] - 2 * (16 + GAP)
    found = [[int(page[top + y * 22, GAP + x * 22, 0]) for x in (0, 1)] for y in (0, 1)]
    assert found == [[10, 60], [110, 160]]
    assert tuple(page[top, GAP + 16]) == PAPER


def test_headings_and_labels_are_drawn_beside_the_tiles(tmp_path):
    plain = read(compose([[tile(99, 32, 32)]], [""], None, tmp_path / "plain.png"))
    named = read(compose([[tile(99, 32, 32)]], ["truth"], ["worst 0.6"], tmp_path / "named.png"))
    assert named.shape[0] == plain.shape[0] and named.shape[1] > plain.shape[1]
    assert plain[: GAP * 4].min() == 255 and named[: GAP * 4].min() < 128
    assert named[:, :40].min() < 128  # the label's ink


def test_long_texts_do_not_widen_a_column(tmp_path):
    page = read(compose([[tile(1)]], ["a heading far too long"], None, tmp_path / "grid.png"))
    assert page.shape[1] == 2 * GAP + 16


def test_escapes_and_line_breaks_in_names_do_no_harm(tmp_path):
    hostile, tame = "a\x1b[31m\nb\u202e", "a[31mb"
    one = compose([[tile(1, 64, 64)]], [hostile], [hostile], tmp_path / "one.png")
    two = compose([[tile(1, 64, 64)]], [tame], [tame], tmp_path / "two.png")
    assert one.read_bytes() == two.read_bytes()


def test_a_legend_stands_between_its_texts_beside_its_row(tmp_path):
    bar = torch.full((3, 20, 12), 77, dtype=torch.uint8)
    legends = [None, Legend(bar, "9 m", "1 m")]
    rows, path = [[tile(1, 64, 64)], [tile(2, 64, 64)]], tmp_path / "g.png"
    plain, page = (
        read(compose(rows, ["x"], None, path)),
        read(compose(rows, ["x"], None, path, legends=legends)),
    )
    assert np.array_equal(page[:, : plain.shape[1]], plain)
    beside = page[:, plain.shape[1] :]
    ys, xs = np.nonzero((beside == 77).all(-1))
    assert (len(ys), xs.max()) == (20 * 12, 11) and np.ptp(ys) == 19
    second = beside.shape[0] // 2
    assert ys.min() > second and beside[second : ys.min()].min() < 77  # the upper text
    assert beside[ys.max() + 1 :].min() < 77 and beside[: second - 20].min() == 255


def test_a_tall_legend_shrinks_to_its_row(tmp_path):
    legend = Legend(torch.zeros(3, 400, 40, dtype=torch.uint8), "", "")
    page = read(compose([[tile(255, 64, 64)]], [""], None, tmp_path / "g.png", legends=[legend]))
    dark = np.nonzero((page < 40).all(-1))
    assert np.ptp(dark[0]) < 128 and np.ptp(dark[1]) < 12


def test_labels_of_several_lines_and_a_note(tmp_path):
    rows, names = [[tile(255, 64, 64)]], [""]
    one = read(compose(rows, names, ["depth"], tmp_path / "one.png"))
    two = read(compose(rows, names, [("depth", "error")], tmp_path / "two.png"))
    noted = read(compose(rows, names, ["depth"], tmp_path / "n.png", note="grey: no truth"))
    heights = [np.ptp(np.nonzero((page < 128).all(-1))[0]) for page in (one, two)]
    assert heights[1] > heights[0] + 10
    assert np.array_equal(noted[: len(one)], one) and noted[len(one) :].min() < 128


def test_tiles_of_different_sizes_share_a_column(tmp_path):
    page = read(compose([[tile(1, 4, 4)], [tile(2, 8, 12)]], ["x"], None, tmp_path / "g.png", 1))
    assert page.shape[1] == 2 * GAP + 12


def test_a_missing_tile_is_a_bug_of_the_caller(tmp_path):
    with pytest.raises(AssertionError, match="one tile for every column"):
        compose([[tile(1)]], ["a", "b"], None, tmp_path / "grid.png")
