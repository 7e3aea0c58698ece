"""Which pictures are meant by what is named, and what their answers are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepsight.data.decoding.images import read_image
from stepsight.errors import DataFormatError, UserError
from stepsight.predicting.gathering import consecutive, gather, with_other
from stepsight.predicting.item import Item
from stepsight.predicting.journal import JOURNAL


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Make empty files below the current folder; gathering opens none of them."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names(*named: str) -> list[str]:
    return [item.name for item in gather(named)]


def test_the_tree_out_mirrors_the_tree_in(tree):
    tree("in/b/x.png", "in/a/x.png", "in/a/deep/er/y.v2.JPG", "in/z.PNG")
    assert names("in") == ["a/deep/er/y.v2", "a/x", "b/x", "z"]
    assert names("in/a", "in/b") == ["a/deep/er/y.v2", "a/x", "b/x"]
    assert names("in/a/x.png", "in/b/x.png") == ["a/x", "b/x"]
    assert names("in/a/x.png") == ["x"]
    assert names("in/z.PNG", "in") == ["z", "a/deep/er/y.v2", "a/x", "b/x"]  # each once


def test_names_are_in_the_order_in_which_people_count(tree):
    tree(*(f"f/frame{number}.png" for number in (10, 9, 100, 1)))
    assert names("f") == ["frame1", "frame9", "frame10", "frame100"]


def test_patterns(tree):
    tree("in/a/x.png", "in/b/x.jpg", "in/b/notes.txt", "in/.hidden/h.png", "in/b/.h.png")
    assert names("in/**/*") == ["a/x", "b/x"]
    assert names("in/*/*.jpg") == ["b/x"]
    with pytest.raises(UserError, match=r"in/\*\.gif: no picture fits it"):
        gather(["in/*.gif"])


def test_truth_beside_pictures_is_told(tree, capsys):
    tree("in/images/a.png", "in/depth/a.png", "plain/depth/a.png", "plain/normal/b.png")
    assert names("plain") == ["depth/a", "normal/b"] and not capsys.readouterr().err
    assert names("in") == ["depth/a", "images/a"]
    assert "1 of 2 files in in are by their names no pictures" in capsys.readouterr().err


def test_hidden_files_and_other_kinds_are_left_out_of_folders(tree):
    tree("in/a.png", "in/.a.png", "in/._b.jpg", "in/.git/c.png", "in/list.txt", "in/d.csv")
    assert names("in") == ["a"]


def test_what_predict_wrote_is_no_picture_to_predict(tree):
    tree("in/a.png", "in/a-depth.png", "in/mine-depth.png", "in/deep/b-depth.png")
    line = {"task": "depth", "name": "a", "asked": "", "read": [], "limits": None, "drawn": ""}
    journal = json.dumps(line | {"files": ["a-depth.png", "deep/b-depth.png"]})
    Path("in", JOURNAL).write_text(f"{journal}\n{journal[:30]}")
    assert names("in") == names("in/**/*.png") == ["a", "mine-depth"]


def test_folders_that_are_links_are_followed_once(tree):
    tree("in/a/x.png")
    Path("in/link").symlink_to(Path("in").absolute())
    Path("elsewhere").symlink_to(Path("in").absolute())
    assert names("elsewhere") == ["a/x"]


def test_lists_of_lines(tree):
    tree("data/a/x 1.png", "data/b/x.png", "here.png")
    Path("data/list.txt").write_text("b/x.png\n\na/x 1.png\n")
    assert names("data/list.txt") == ["b/x", "a/x 1"]  # in its own order
    Path("data/list.txt").write_text("b/x.png\nhere.png\ngone.png")
    items = gather(["data/list.txt"])
    assert [item.name for item in items] == ["data/b/x", "here", "data/gone"]
    assert items[1].path == Path("here.png")


def test_lists_of_objects_say_what_belongs_together(tree):
    tree("data/x.png", "data/y.png", "data/m1.png", "data/m2.png")
    rows = [
        {"image": "x.png", "second": "y.png"},
        {"image": "x.png", "modal": "m1.png", "key": "x/1"},
        {"image": "x.png", "modal": "m2.png", "key": "x/2", "depth": "d.png"},
    ]
    path = Path("data/list.jsonl")
    path.write_text("\n".join(map(json.dumps, rows)))
    one, two, three = gather([str(path)])
    assert one == Item(Path("data/x.png"), "x", second=Path("data/y.png"))
    assert (two.name, two.mask) == ("x/1", Path("data/m1.png")) and three.name == "x/2"
    for key in ("../x", "/x"):
        path.write_text(json.dumps({"image": "x.png", "key": key}))
        with pytest.raises(UserError, match="line 1: the key .* leads out"):
            gather([str(path)])
    path.write_text('{"image": 3}')
    with pytest.raises(DataFormatError, match="line 1: 'image' is missing"):
        gather([str(path)])


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("https://example.org/a.png", "https://example.org/a.png: an address"),
        ("s3://bucket/a.png", "download it first"),
        ("gone.png", "gone.png: no such picture, nor a folder of .*png"),
        ("empty", "empty: no picture or film lies below it"),
        ("data.csv", "neither a picture .* a film, nor a list"),
        ("none.txt", "an empty list"),
    ],
)
def test_what_holds_nothing_is_named(tree, named, message):
    tree("data.csv", "none.txt", "a.png", "empty/readme.md")
    with pytest.raises(UserError, match=message):
        gather(["a.png", named])


def test_answers_of_one_name_are_refused(tree):
    tree("in/a.png", "in/a.jpg", "in/b.png")
    with pytest.raises(UserError, match=r"1 answers .* in/a.jpg and in/a.png"):
        gather(["in"])
    tree("film/x/a.png", "film/x.mp4")  # whose frames go to x/
    with pytest.raises(UserError, match=r"film/x.mp4 and film/x/a.png"):
        gather(["film"])
    tree("live/IMG_1.png", "live/IMG_1.mov")
    assert names("live") == ["IMG_1", "IMG_1"]  # a picture and a film of it


def test_the_next_frame_is_the_next_of_its_folder(tree, capsys):
    tree(*(f"in/{scene}/{i}.png" for scene in "ab" for i in (2, 10, 1)), "in/film.mp4")
    pairs = [(one.path.as_posix(), one.second) for one in consecutive(gather(["in"]))]
    assert pairs == [
        ("in/film.mp4", None),
        *((f"in/{s}/{i}.png", Path(f"in/{s}/{j}.png")) for s in "ab" for i, j in ((1, 2), (2, 10))),
    ]
    assert "4 pairs of consecutive frames by their names, such as in/a/1.png and 2.png" in (
        capsys.readouterr().out
    )
    assert consecutive(gather(["in/a/1.png"])) == []


def test_another_folder_gives_files_by_name(tree):
    tree("in/a/x.png", "in/b/x.png", "in/b/y.png", "masks/a/x.jpg", "masks/b/x.png", "flat/x.png")
    items = with_other(gather(["in"]), "mask", "masks")
    assert [item.mask for item in items] == [
        Path("masks/a/x.jpg"), Path("masks/b/x.png"), Path("masks/b/y.png")
    ]  # fmt: skip
    assert not Path("masks/b/y.png").exists()  # is met when its turn comes
    (one,) = with_other(gather(["in/a"]), "second", "flat")
    assert one.second == Path("flat/x.png")
    (one,) = with_other(gather(["in/a"]), "second", "in/b/y.png")
    assert one.second == Path("in/b/y.png")
    for given, message in [
        ("in/b/y.png", "one file belongs to one picture, and there are 3"),
        ("gone", "--second gone: no such picture"),
        ("other", "no file there is called as a picture, such as a/x"),
    ]:
        tree("other/z.png")
        with pytest.raises(UserError, match=message):
            with_other(gather(["in"]), "second", given)


def test_an_empty_file_is_called_so(tree):
    tree("in/a.png")
    Path("in/a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.png: empty\."):
        read_image("in/a.png")
