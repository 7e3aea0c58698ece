"""Films answered: in no more calls than pictures, a window at a time, still where nothing moves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.film.config import FilmSettings
from stepsight.predicting.film.following import STRENGTH, predict_film
from stepsight.seeding import generator

LOOSE = FilmSettings(smoothing=0.0, align=False, window=3)  # answers that do not know one another


@pytest.fixture
def pipeline(lab):
    return lab.pipeline(lab.config(tasks=("depth", "flow", "amodal")), statistics=False)


@pytest.fixture
def calls(monkeypatch):
    """What `DensePipeline.sample` was asked for: task, frames, options."""
    made: list[tuple[str, int, dict[str, Any]]] = []
    original = DensePipeline.sample

    def spy(self, batch, task, sampler=None, **options):
        made.append((task, len(batch), options))
        return original(self, batch, task, sampler, **options)

    monkeypatch.setattr(DensePipeline, "sample", spy)
    return made


def values(pipeline, frames, settings=FilmSettings(), **how):  # noqa: B008
    answers = list(predict_film(pipeline, how.pop("task", "depth"), frames, settings, **how))
    assert all(len(one.values) == 1 and one.picture is not None for one in answers)
    return torch.cat([one.values for one in answers])


@pytest.mark.parametrize("starts", ["noise", "previous"])
@pytest.mark.parametrize("how", [{"nfe": 2}, {"nfe": 2, "members": 2}])
def test_a_still_film_is_answered_once_and_to_the_bit(starts, how, pipeline, calls, moving):
    film = moving(1) * 30
    found = values(pipeline, film, FilmSettings(starts=starts), **how)
    assert len(found) == 30 and all(torch.equal(one, found[0]) for one in found)
    assert [(task, rows) for task, rows, _ in calls] == [("depth", 1)]


def test_frames_that_stand_still_for_a_while_repeat(pipeline, moving):
    a, b, c = moving(3, speed=3)
    found = values(pipeline, [a, a, b, b, b, c])
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[4])
    torch.testing.assert_close(found[[0, 2, 5]], values(pipeline, [a, b, c]), atol=1e-4, rtol=1e-4)


def test_frames_apart_get_the_answers_of_pictures(pipeline, moving):
    film = moving(7, (20, 30), speed=2)
    alone = torch.cat([pipeline(f, "depth", nfe=2, members=1, temperature=0).values for f in film])
    found = values(pipeline, film, LOOSE, nfe=2, members=1, temperature=0)
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
    assert (found[1] - found[0]).abs().mean() > 1e-3


def test_windows_change_nothing(pipeline, moving):
    film = moving(7, speed=2)
    whole, some = (values(pipeline, film, FilmSettings(window=n)) for n in (7, 2))
    torch.testing.assert_close(whole, some, atol=1e-4, rtol=1e-4)


def test_frames_share_their_noise(pipeline, moving):
    """Frames that differ in a pixel are answered alike from noise, as pictures they are not."""
    (frame,) = moving(1)
    other = frame.clone()
    other[0, 0, 0] ^= 1
    how = {"nfe": 1, "temperature": 1.0}
    found = values(pipeline, [frame, other], LOOSE, **how).log()
    alone = torch.cat([pipeline(f, "depth", **how).values for f in (frame, other)]).log()
    shared, apart = ((x[1] - x[0]).abs().mean() for x in (found, alone))
    assert shared < 0.1 * apart


@pytest.mark.parametrize("starts", ["noise", "previous"])
@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_a_frame_takes_no_more_calls_than_a_picture(nfe, starts, pipeline, calls, moving):
    values(pipeline, moving(5, speed=2), FilmSettings(window=2, starts=starts), nfe=nfe, members=1)
    spent: dict[str, int] = {}
    for task, rows, options in calls:
        spent[task] = spent.get(task, 0) + rows * options["nfe"]
    assert sum(spent.values()) <= 5 * nfe
    assert ("flow" in spent) == (nfe > 1)
    if starts == "previous" and nfe == 4:
        assert spent == {"depth": 4 + 4 * 2, "flow": 4}


def test_frames_start_from_the_answer_before_moved_along(pipeline, calls, moving):
    settings = FilmSettings(smoothing=0.0, align=False, starts="previous")
    list(predict_film(pipeline, "depth", moving(3, speed=2), settings, nfe=4))
    (_, _, first), *later = [one for one in calls if one[0] == "depth"]
    assert "start" not in first and first["nfe"] == 4
    assert all(options["strength"] == STRENGTH and options["nfe"] == 2 for *_, options in later)
    assert not torch.equal(later[0][2]["start"], later[1][2]["start"])


def test_smoothing_brings_answers_together(pipeline, moving):
    (still,) = moving(1)
    grain = [torch.randint(0, 9, still.shape, generator=generator("grain", n)) for n in range(6)]
    film = [(still // 2 + one).to(torch.uint8) for one in grain]
    loose, steady = (values(pipeline, film, how, nfe=1).log() for how in (LOOSE, FilmSettings()))
    changes = [sum((b - a).abs().mean() for a, b in pairwise(x)) for x in (loose, steady)]
    assert changes[1] < 0.5 * changes[0]


def test_flow_is_that_of_each_frame_to_the_next(pipeline, moving):
    film = moving(4, (20, 30), speed=2)
    found = values(pipeline, film, task="flow", nfe=2, members=1, temperature=0)
    alone = [
        pipeline(a, "flow", second=b, nfe=2, members=1, temperature=0) for a, b in pairwise(film)
    ]
    torch.testing.assert_close(found, torch.cat([one.values for one in alone]), atol=1e-4, rtol=0)


def test_one_range_of_colours_for_all_frames(pipeline, moving):
    film, task = moving(4, speed=3), pipeline.task("depth")
    answers = list(predict_film(pipeline, "depth", film, LOOSE))
    limits = task.limits(answers[0].values)
    assert all(torch.equal(x.picture, task.coloured(x.values, limits)) for x in answers)
    assert not torch.equal(answers[-1].picture, task.picture(answers[-1].values, None))


def test_frames_are_read_when_their_window_is(pipeline, moving):
    read = []

    def film():
        for number, frame in enumerate(moving(12, speed=1)):
            read.append(number)
            yield frame

    for number, _ in enumerate(predict_film(pipeline, "depth", film(), FilmSettings(window=2))):
        assert len(read) <= number + 4


@pytest.mark.parametrize(
    "task,settings,how,message",
    [
        ("amodal", FilmSettings(), {}, "amodal reads more than the frames"),
        ("depth", FilmSettings(), {"tolerance": 0.1}, "tolerance: an option of pictures"),
        ("depth", FilmSettings(smoothing=1.0), {}, "from 0 to below 1"),
        ("depth", FilmSettings(window=0), {}, "a window of 0 frames"),
        ("flow", FilmSettings(starts="previous"), {}, "sets out from no answer"),
    ],
)
def test_what_films_do_not_have_is_refused(task, settings, how, message, pipeline, moving):
    with pytest.raises(UserError, match=message):
        next(predict_film(pipeline, task, moving(2), settings, **how))
