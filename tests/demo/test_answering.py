"""What the demo answers, without its page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stepsight.data.decoding.images import read_image
from stepsight.demo import answering
from stepsight.demo.answering import Answerer
from stepsight.demo.asking import DemoQuestion, formats_of
from stepsight.demo.worlds import DemoWorlds
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline


@pytest.fixture(scope="module")
def pipeline(laboratory):
    return laboratory().pipeline()


@pytest.fixture
def answerer(pipeline, tmp_path):
    return Answerer(pipeline, tmp_path)


@pytest.fixture(scope="module")
def scene(pipeline, tmp_path_factory):
    """Picture, next frame and visible part."""
    folder = tmp_path_factory.mktemp("worlds")
    worlds = DemoWorlds.of(pipeline, folder)
    assert worlds
    return DemoQuestion("depth", *map(folder.joinpath, worlds.draw(3)))


def test_an_answer_is_the_pipelines_and_grows_by_numbers_of_calls(pipeline, answerer, scene):
    grown = [*answerer.answers(replace(scene, nfe=3, members=2))]
    assert [len(answer.strip) for answer in grown] == [0, 1, 2, 3, 4, 5]
    last = grown[-1]
    calls = [tile.caption.partition(",")[0] for tile in last.strip]
    assert calls == ["1 call", "2 calls", "3 calls", "4 calls", "8 calls"]
    truth = pipeline(scene.picture, "depth", nfe=3, members=2)
    files = {file.name: file for file in last.files}
    assert torch.equal(torch.from_numpy(np.load(files["scene-depth.npy"])), truth.values[0])
    assert torch.equal(read_image(files["scene-depth.png"]), truth.picture[0])
    assert torch.equal(read_image(last.strip[2].file), truth.picture[0])  # in the same colours
    assert files.keys() == {f"scene-depth{x}" for x in (".png", ".npy", "-uncertainty.npy")}
    assert "3 calls x 2 members in " in last.sentence and "16 x 16 pixels" in last.sentence
    _, depth, spread = last.pictures
    assert depth.legend.kind == "values" and spread.legend.low == 0


@pytest.mark.parametrize("task", ["flow", "amodal", "semantic"])
def test_other_tasks_read_what_they_need_and_name_their_colours(answerer, scene, task):
    (answer,) = answerer.answers(replace(scene, task=task, nfe=1, members=1, strip=False))
    assert [picture.caption for picture in answer.pictures][0] == "picture"
    assert answer.pictures[1].legend.kind in ("flow", "mask", "classes")


def test_a_class_is_chosen_for_what_is_generated(laboratory, tmp_path, scene):
    lab = laboratory()
    answerer = Answerer(lab.pipeline(lab.config(["image"])), tmp_path)
    made = {}
    for kind in (0, 1):
        asked = replace(scene, task="image", class_id=kind, nfe=1, members=1, strip=False)
        (answer,) = answerer.answers(asked)
        made[kind] = read_image(answer.files[0])
    assert not torch.equal(made[0], made[1])
    with pytest.raises(UserError, match="class_id, 0 to"):
        next(answerer.answers(replace(scene, task="image", class_id=99)))


def test_classes_have_their_names(pipeline, tmp_path, scene):
    names = [f"kind {number}" for number in range(20)]
    (answer,) = Answerer(pipeline, tmp_path, names).answers(
        replace(scene, task="semantic", nfe=1, members=1, strip=False, formats=("npy", "flo"))
    )
    found = np.unique(np.load(answer.files[1]))
    shown = [kind.name for kind in answer.pictures[1].legend.classes]
    assert shown == [names[label] for label in found] and len(answer.files) == 2  # no flow


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"picture": None}, "Drop a picture"),
        ({"task": "flow", "second": None}, "flow also reads the second frame"),
        ({"task": "amodal", "mask": None}, "amodal also reads the visible part"),
        ({"budget": "16nfe"}, "a budget needs a sweep"),
        ({"budget": "16nfe", "size": 32}, "leave out size"),
        ({"nfe": 0}, "calls"),
    ],
)
def test_what_cannot_be_answered_is_said(answerer, scene, changes, words):
    with pytest.raises(UserError, match=words):
        [*answerer.answers(replace(scene, **changes))]


def test_a_format_that_a_picture_lacks_something_for_leaves_the_others(answerer, scene):
    asked = replace(scene, nfe=1, members=1, strip=False, formats=("ply", "npy"))
    (answer,) = answerer.answers(asked)
    assert [file.suffix for file in answer.files] == [".png", ".npy"]
    assert (
        answer.notes[0].startswith("No ply: scene.png: states")
        and "field of view" in answer.notes[0]
    )
    (answer,) = answerer.answers(replace(asked, fov=60.0))
    assert [file.suffix for file in answer.files] == [".png", ".ply", ".npy"]


def test_a_damaged_picture_goes_by_its_name_alone(answerer, scene, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(scene.picture.read_bytes()[:500])
    asked = replace(scene, picture=cut)
    with pytest.raises(UserError, match="cut.png: ") as refused:
        next(answerer.answers(asked))
    assert asked.worded(refused.value).startswith("cut.png: ")


def test_formats_are_those_that_hold_the_task(pipeline):
    assert "flo" in formats_of(pipeline.task("flow")) and "ply" not in formats_of(
        pipeline.task("flow")
    )
    assert "ply" in formats_of(pipeline.task("depth"))


def test_old_answers_go(answerer, scene, monkeypatch):
    monkeypatch.setattr(answering, "KEPT", 2)
    asked = replace(scene, nfe=1, strip=False)
    folders = [next(answerer.answers(asked)).files[0].parent for _ in range(3)]
    assert [folder.is_dir() for folder in folders] == [False, True, True]


def test_a_budget_is_planned_and_spent(tmp_path, scene):
    packaged = DensePipeline.from_pretrained(precision="float32")
    asked = replace(scene, budget="4nfe", formats=("npy",), strip=False)
    (answer,) = Answerer(packaged, tmp_path).answers(asked)
    truth = packaged(scene.picture, "depth", budget="4nfe")
    assert torch.equal(torch.from_numpy(np.load(answer.files[1])), truth.values[0])
    plan = packaged.plan("depth", "4nfe")
    spent = f"{plan.nfe} calls x 1 member"
    assert plan.members == 1 and answer.sentence.startswith(spent)
    assert answer.notes[0].startswith(f"4nfe buys {spent}: AbsRel 0.1")


def test_a_film_is_answered_as_a_film(answerer, scene, tmp_path):
    av = pytest.importorskip("av")
    from stepsight.predicting.film import FilmWriter

    frame = read_image(scene.picture)
    with FilmWriter(tmp_path / "walk.mp4", 8) as film:
        for step in range(3):
            film.add(frame.roll(8 * step, -1))
    (answer,) = answerer.answers(
        DemoQuestion("depth", film=tmp_path / "walk.mp4", nfe=2, members=1)
    )
    assert answer.pictures[0].film and "2 calls x 1 member a frame" in answer.sentence
    with av.open(str(answer.files[0])) as made:
        assert len([*made.decode(video=0)]) == 3
