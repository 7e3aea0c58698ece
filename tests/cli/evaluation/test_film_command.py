"""`stepsight film`: what it prints and writes."""

from __future__ import annotations

import json

from stepsight.cli import main
from stepsight.predicting.film import frames


def test_a_film_is_scored_both_ways_and_drawn(run, tmp_path, capsys):
    flags = [
        "--checkpoint",
        run,
        "--films",
        2,
        "--frames",
        3,
        "--size",
        16,
        24,
        "--out",
        tmp_path / "o",
    ]
    assert main.main(["film", *map(str, flags)]) == 0
    page = capsys.readouterr().out
    assert page.startswith("2 films of 3 frames, temporal-affine-log@")
    assert [line.split("  ")[0] for line in page.splitlines()[2:]] == [
        "flicker", "warped difference", "OPW [m]", "AbsRel", "AbsRel, each frame fitted",
        "seconds a frame",
    ]  # fmt: skip
    found = json.loads((tmp_path / "o" / "film.json").read_text())
    assert found["means"]["truth"]["flicker"] < 1e-9 < found["means"]["film"]["flicker"]
    value, low, high = found["ratios"]["flicker"]
    assert low <= value <= high
    shown = list(frames(tmp_path / "o" / "film.mp4"))
    assert len(shown) == 3 and shown[0].shape == (3, 16, 4 * 24)
