"""The files that `stepsight predict` wrote are found by their names and its manifest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from stepsight.errors import UserError
from stepsight.evaluation.predictions.files import Written, find_files, pictures_of, written

FACTS = {"task": "depth", "crop": "none", "working": None, "checkpoint": "digest"}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("a", "a-depth.npy"),
        ("val/a", "a-depth.npy"),  # predicted from the folder of the pictures
        ("val/a", "val/images/a-depth.npy"),  # from all of the data
        ("a", "images/deep/a-depth.npy"),
        ("00006", "data/00006_img1-depth.npy"),  # the picture is called otherwise than its sample
        ("val/aachen/aachen_0", "val/aachen/aachen_0_leftImg8bit-depth.exr"),
    ],
)
def test_the_file_of_a_key_among_what_predict_wrote(tmp_path, key, file):
    folder = touch(tmp_path, file, "a-depth.png", "a-depth-uncertainty.npy", "predicted.jsonl")
    endings = written("depth", None).endings
    assert find_files(folder, [key, "b"], endings=endings) == {key: folder / file}


def test_what_two_files_fit_is_refused(tmp_path):
    folder = touch(tmp_path, "x/a-depth.npy", "y/a-depth.npy", "z_1-depth.npy", "z_2-depth.npy")
    for key in ("a", "z"):
        with pytest.raises(UserError, match=f"both fit {key}: .*--pattern"):
            find_files(folder, [key], endings=["-depth.npy"])
    found = find_files(folder, ["x/a", "z_1"], endings=["-depth.npy"])  # these are told apart
    assert found == {"x/a": folder / "x/a-depth.npy", "z_1": folder / "z_1-depth.npy"}


def test_a_name_that_is_anothers_key_is_not_taken(tmp_path):
    folder = touch(tmp_path, "a_1-depth.npy")
    assert [*find_files(folder, ["a", "a_1"], endings=["-depth.npy"])] == ["a_1"]


def test_the_path_of_a_picture_finds_what_its_key_does_not(tmp_path):
    folder = touch(tmp_path, "0001/frame_left/frame_left_0002-flow.npy", "00006_img1-flow.npy")
    pictures = {
        "0001/flow_FW_left_0002": "train/0001/frame_left/frame_left_0002",
        "00006": "data/00006_img1",
    }
    found = find_files(folder, [*pictures], endings=["-flow.npy"], pictures=pictures)
    assert found == {
        "0001/flow_FW_left_0002": folder / "0001/frame_left/frame_left_0002-flow.npy",
        "00006": folder / "00006_img1-flow.npy",
    }


def test_entries_say_where_pictures_lie(tmp_path):
    class Source:
        root = tmp_path
        entries = (
            SimpleNamespace(key="a", image=tmp_path / "data" / "a_img1.ppm"),
            SimpleNamespace(key="b", paths={"image": tmp_path / "images" / "b.png"}),
            SimpleNamespace(key="c", paths={"image": Path("/elsewhere/c.png")}),
            "d",
        )

    assert pictures_of(Source()) == {"a": "data/a_img1", "b": "images/b", "c": "c"}  # type: ignore[arg-type]


def test_the_manifest_says_what_there_is(tmp_path):
    formats = {
        "picture": {"ending": "-depth.png"},
        "png16": {"ending": "-depth-16bit.png", "scale": 256.0},
        "exr": {"ending": "-depth.exr"},
    }
    assert written("depth", FACTS | {"formats": formats}) == Written(("-depth.exr",))
    del formats["exr"]
    assert written("depth", FACTS | {"formats": formats}) == Written(("-depth-16bit.png",), 256.0)
    del formats["png16"]
    with pytest.raises(UserError, match="only picture of depth was saved.*--save npy"):
        written("depth", FACTS | {"formats": formats})
