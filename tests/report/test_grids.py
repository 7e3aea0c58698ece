"""Picture grids: every tile where it belongs, every pixel kept, any text survived."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stepsight.legends import ClassColour, Legend
from stepsight.report.grids import BAR, GAP, PAPER, WHEEL, compose, draw_key


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
    assert plain[: GAP * 4].max() < 40 and named[: GAP * 4].max() > 128
    assert named[:, :40].max() > 128  # the label's ink


def test_long_texts_do_not_widen_a_column(tmp_path):
    page = read(compose([[tile(1)]], ["a heading far too long"], None, tmp_path / "grid.png"))
    assert page.shape[1] == 2 * GAP + 16


def test_escapes_and_line_breaks_in_names_do_no_harm(tmp_path):
    hostile, tame = "a\x1b[31m\nb\u202e", "a[31mb"
    one = compose([[tile(1, 64, 64)]], [hostile], [hostile], tmp_path / "one.png")
    two = compose([[tile(1, 64, 64)]], [tame], [tame], tmp_path / "two.png")
    assert one.read_bytes() == two.read_bytes()


def test_a_key_stands_below_its_tile_and_rows_move_apart(tmp_path):
    key = Legend("values", ("#4d4d4d", "#4d4d4d"), 1.0, 9.0, "m")
    rows, path = [[tile(1, 64, 64), tile(2, 64, 64)], [tile(3, 64, 64), tile(4, 64, 64)]], "g.png"
    plain = read(compose(rows, ["x", "y"], None, tmp_path / path))
    page = read(compose(rows, ["x", "y"], None, tmp_path / path, keys=[[None, None], [None, key]]))
    assert page.shape[1] == plain.shape[1] and np.array_equal(
        page[: len(plain) - GAP], plain[:-GAP]
    )
    ys, xs = np.nonzero((page == 0x4D).all(-1))
    assert (len(ys), xs.min()) == (BAR * 128, 2 * GAP + 128) and ys.min() > len(plain) - 2 * GAP
    assert page[ys.max() + 1 :, xs.min() :].max() > 200  # its numbers


def test_a_bar_runs_through_its_stops():
    bar = np.asarray(draw_key(Legend("values", ("#000000", "#ff0000", "#ff00ff")), 101))
    assert [bar[2, x].tolist() for x in (0, 50, 100)] == [[0, 0, 0], [255, 0, 0], [255, 0, 255]]
    assert abs(int(bar[2, 25, 0]) - 128) <= 1


def test_a_wheel_has_its_hues_clockwise_from_the_right_and_white_in_the_middle():
    stops = "#ff0000", "#00ff00", "#0000ff", "#ffff00"  # right, down, left, up
    wheel = np.asarray(draw_key(Legend("flow", stops, high=3.0, unit="px"), 120)).astype(int)
    middle, end = WHEEL // 2, WHEEL - 2
    ends = wheel[middle, end], wheel[end, middle], wheel[middle, 1], wheel[1, middle]
    for found, stop in zip(ends, stops):
        assert np.abs(found - [int(stop[i : i + 2], 16) for i in (1, 3, 5)]).max() < 60
    assert wheel[middle, middle].min() > 215 and tuple(wheel[0, 0]) == PAPER


def test_names_of_classes_take_lines_and_what_finds_no_room_is_left_out():
    classes = tuple(ClassColour(f"class {i}", f"#0000{i:02x}") for i in range(100, 112))
    few, many = (Legend("classes", classes=classes[:n]) for n in (1, 12))
    one, most = (np.asarray(draw_key(legend, 128)) for legend in (few, many))
    assert len(one) < len(most) < 100 and one.shape[1] == most.shape[1] == 128
    assert (one == (0, 0, 100)).all(-1).any() and not (most == (0, 0, 111)).all(-1).any()


def test_labels_of_several_lines_and_a_note(tmp_path):
    rows, names = [[tile(0, 64, 64)]], [""]
    one = read(compose(rows, names, ["depth"], tmp_path / "one.png"))
    two = read(compose(rows, names, [("depth", "error")], tmp_path / "two.png"))
    noted = read(compose(rows, names, ["depth"], tmp_path / "n.png", note="grey: no truth"))
    heights = [np.ptp(np.nonzero((page > 128).all(-1))[0]) for page in (one, two)]
    assert heights[1] > heights[0] + 10
    assert np.array_equal(noted[: len(one)], one) and noted[len(one) :].max() > 128


def test_tiles_of_different_sizes_share_a_column(tmp_path):
    page = read(compose([[tile(1, 4, 4)], [tile(2, 8, 12)]], ["x"], None, tmp_path / "g.png", 1))
    assert page.shape[1] == 2 * GAP + 12


def test_a_missing_tile_is_a_bug_of_the_caller(tmp_path):
    with pytest.raises(AssertionError, match="one tile for every column"):
        compose([[tile(1)]], ["a", "b"], None, tmp_path / "grid.png")
