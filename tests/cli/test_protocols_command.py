"""`stepsight protocols`: every protocol, its id and its formula, for people and for programs."""

import json

import pytest

from stepsight.cli.main import main
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.tasks.table import formula


def test_every_protocol_is_listed_with_its_id_and_source(capsys):
    assert main(["protocols"]) == 0
    text = capsys.readouterr().out
    words = text.split()
    for row in PROTOCOLS.values():
        assert row.id in words
        assert " ".join(formula(row).split()) in " ".join(words)
    assert max(map(len, text.splitlines())) <= 100


def test_a_native_working_size_is_told(capsys):
    assert main(["protocols", "--task", "depth"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "nyuv2 test, 654 images; the model sees the image at its native size" in text
    assert "the model sees 756 px on the longer side" in text


def test_one_task_for_programs(capsys):
    assert main(["protocols", "--task", "flow", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {name for name, row in PROTOCOLS.items() if row.task == "flow"}
    kitti = rows["raft-kitti"]
    assert kitti["id"] == PROTOCOLS["raft-kitti"].id and kitti["count"] == 200
    assert kitti["pooled"] == ["fl_all"] and "fl_all pooled" in kitti["formula"]


def test_an_unknown_task_is_answered_with_the_nearest(capsys):
    assert main(["protocols", "--task", "dept"]) == 2
    assert "'depth'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name,parts",
    [
        ("marigold-kitti", ["kitti_benchmark crop", "eigen region", "1e-05 < d < 80 m"]),
        ("marigold-diode", ["V = valid; ", "p clipped to [0.6, 350] m"]),
        ("lotus-eth3d", ["y = 1/d", "where x > 0", "1024 columns", "0.001/m"]),
        ("depth-anything", ["metrics of 1/p against 1/d"]),
        ("depth-anything-metric-hypersim", ["at least 10", "p = x in metres; mean"]),
        ("pixel-perfect-depth", ["ln(1 + d)", "RANSAC", "max_V d", "(d + 1e-05)"]),
        ("monodepth2", ["garg region", "s = median_V y / median_V x"]),
        ("seed-release-normalised-depth", ["sum_all", "clip(s x + t, -1, 1)"]),
        ("raft-things", ["|f| < 400 px", "pooled over the set"]),
        ("amodal-iou", ["hidden/whole >= 0.1"]),
        ("pix2gestalt-pooled", ["those in full view included"]),
    ],
)
def test_formulas_say_what_the_fields_say(name, parts):
    text = formula(PROTOCOLS[name])
    assert all(part in text for part in parts), text
