"""docs/your-data.md from its first command to its last, on a folder of 20 small pictures."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import FLAGS, write_rooms

from stepsight.cli import evaluate, main, train

PAGE = Path(__file__).parents[3] / "docs" / "your-data.md"
COMMAND = re.compile(r"^uv run (train\.py|evaluate\.py|stepsight) (.*)$", re.M)
PROGRAMS = {"train.py": train.main, "evaluate.py": evaluate.main, "stepsight": main.main}
TINY = {  # beside what the page says, so that it takes seconds
    "train.py": FLAGS,
    "evaluate.py": ["--processes", "1"],
}
STATUS = {"data look": 1}  # it says that half of the pictures have no depth


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which all commands of the page were run."""
    folder = tmp_path_factory.mktemp("page")
    write_rooms(folder / "photos")
    _write_film(folder / "walk.mp4", sorted((folder / "photos/images").iterdir())[:3])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for program, text in COMMAND.findall(PAGE.read_text("utf-8")):
            words = shlex.split(text)
            status = PROGRAMS[program]([*words, *TINY.get(program, [])])
            assert status == STATUS.get(" ".join(words[:2]), 0), text
    return folder


def _write_film(path, pictures):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.asarray(Image.open(picture)), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def test_every_step_left_what_it_promises(walked):
    assert (walked / "looked/look.png").is_file()
    config = (walked / "runs/mine/config.yaml").read_text()
    assert "scenes" not in config and "depth_unit: mm" in config
    assert (walked / "answers/0018-depth.npy").is_file()
    assert np.load(walked / "answers/0018-depth.npy").shape == (1, 24, 32)
    assert [*walked.glob("film/*.mp4")]


def test_files_score_as_the_model_does(walked):
    def depth(folder):
        results = json.loads((walked / folder / "results.json").read_text())
        (table,) = (one for one in results if one["task"] == "depth")
        return table["n"], table["metrics"]

    files, model = depth("again/evaluation"), depth("runs/mine/eval")
    assert files[0] == model[0] == 1
    assert files[1]["abs_rel"] == pytest.approx(model[1]["abs_rel"], rel=1e-3)


def test_the_line_that_the_page_shows_is_the_one_that_is_printed(walked):
    shown = re.search(r"^trains depth .*?name$", PAGE.read_text("utf-8"), re.M | re.S)
    printed = next(iter((walked / "runs/mine/train.log").read_text().splitlines()))
    assert shown
    assert " ".join(shown[0].split()) == printed.replace(f"{walked}/", "")
