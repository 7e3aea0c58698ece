"""Films among the pictures: a film in colours and an array a frame, whole or not at all."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from stepsight.data.decoding.images import read_image, write_image
from stepsight.errors import UserError
from stepsight.predicting import filming
from stepsight.predicting.film import FilmWriter, frame_rate, frames, predict_film
from stepsight.predicting.film.config import FilmSettings
from stepsight.predicting.gathering import as_films

RATE = Fraction(12)


@pytest.fixture
def film(tmp_path):
    """Five frames of a square that moves, 24 x 32."""
    path = tmp_path / "in" / "clip.mp4"
    path.parent.mkdir()
    with FilmWriter(path, RATE) as writer:
        for i in range(5):
            frame = torch.full((3, 24, 32), 90, dtype=torch.uint8)
            frame[:, 4:14, 3 * i : 3 * i + 10] = torch.tensor([240, 40, 10])[:, None, None]
            writer.add(frame)
    return path


def test_a_film_gives_a_film_and_arrays(film, model, picture, predict, tmp_path):
    picture("in/still.png")
    predict(film.parent)
    out = tmp_path / "out"
    expected = list(predict_film(model, "depth", frames(film), nfe=1, members=1))
    assert len(expected) == 5
    for i, one in enumerate(expected):
        values = np.load(out / "clip" / f"{i:06}-depth.npy")
        assert values.shape == (1, 24, 32)
        np.testing.assert_allclose(values, one.values[0], rtol=1e-5)
    assert (out / "still-depth.png").exists() and not list(out.glob("clip/*.png"))
    shown = list(frames(out / "clip-depth.mp4"))
    assert len(shown) == 5 and frame_rate(out / "clip-depth.mp4") == RATE
    task = model.tasks["depth"]
    ends = [task.limits(one.values) for one in expected]
    limits = min(low for low, _ in ends), max(high for _, high in ends)
    luma = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)  # colours are kept at half the size
    for one, seen in zip(expected, shown, strict=True):
        painted = task.coloured(one.values, limits)[0]
        assert ((painted.float() - seen.float()) * luma).sum(dim=0).abs().mean() < 4
    assert not list(out.glob(".partial*"))


def test_a_film_that_is_done_is_not_done_again(film, predict, tmp_path, monkeypatch):
    assert predict(film).answered == 1
    monkeypatch.setattr(filming, "predict_film", None)
    assert predict(film).before == 1
    (tmp_path / "out" / "clip" / "000003-depth.npy").unlink()
    with pytest.raises(TypeError):
        predict(film)


def test_frames_in_pictures_share_given_limits(film, model, predict, tmp_path):
    predict(film, save="picture,png16,exr", limits=(2.0, 5.0))
    found = sorted(path.name for path in (tmp_path / "out" / "clip").iterdir())
    ends = ("-16bit.png", ".exr", ".png")
    assert found == [f"{i:06}-depth{end}" for i in range(5) for end in ends]
    (first, *_) = predict_film(model, "depth", frames(film), nfe=1, members=1)
    painted = model.tasks["depth"].coloured(first.values, (2.0, 5.0))[0]
    assert (read_image(tmp_path / "out" / "clip" / "000000-depth.png") == painted).all()


def test_flow_of_a_film_is_from_each_frame_to_the_next(film, predict, tmp_path):
    predict(film, task="flow", save="npy,mp4")
    assert len(list((tmp_path / "out" / "clip").glob("*-flow.npy"))) == 4
    assert len(list(frames(tmp_path / "out" / "clip-flow.mp4"))) == 4


def test_a_folder_of_pictures_is_a_film_if_told(film, model, predict, picture, tmp_path):
    folder = tmp_path / "frames" / "walk"
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames(film)):
        write_image(folder / f"f{i + 8}.png", frame)  # f8, f9, f10, ...
    predict(folder.parent, change=as_films, save="npy,picture,mp4")
    pictures = (read_image(folder / f"f{i + 8}.png") for i in range(5))
    expected = list(predict_film(model, "depth", pictures, nfe=1, members=1))
    out = tmp_path / "out"
    for i, one in enumerate(expected):
        found = np.load(out / "walk" / f"f{i + 8}-depth.npy")
        np.testing.assert_allclose(found, one.values[0], rtol=1e-5)
        assert (out / "walk" / f"f{i + 8}-depth.png").exists()
    assert len(list(frames(out / "walk-depth.mp4"))) == 5
    assert predict(folder.parent, change=as_films, save="npy,picture,mp4").before == 1
    with pytest.raises(UserError, match="holds answers of depth to 1 other pictures"):
        predict(folder.parent)
    predict(folder, change=as_films, out=tmp_path / "alone", save="npy,mp4")
    assert {path.name for path in (tmp_path / "alone").glob("*-depth.*")} == {
        "walk-depth.mp4", *(f"f{i + 8}-depth.npy" for i in range(5))
    }  # fmt: skip
    picture("frames/walk/f9.png", 0, 30, 30)
    with pytest.raises(UserError, match=r"f9\.png: of another size than the frames before"):
        predict(folder, change=as_films, out=tmp_path / "other")


def test_films_that_cannot_be_answered_are_met_as_pictures_are(film, picture, predict, tmp_path):
    picture("in/a.png")
    film.write_bytes(film.read_bytes()[:200])
    with pytest.raises(UserError, match=r"clip\.mp4"):
        predict(film)
    with pytest.raises(UserError, match="films are not answered in tiles"):
        predict(film, tile=16)
    outcome = predict(film.parent, on_bad="skip")
    assert outcome.answered == 1 and list(outcome.skipped) == [str(film)]
    assert not list((tmp_path / "out").glob("*clip*"))


def test_how_frames_follow_one_another_is_asked_and_noted(film, predict, tmp_path):
    predict(film, save="npy")
    steady = np.load(tmp_path / "out" / "clip" / "000004-depth.npy")
    predict(film, save="npy", film=FilmSettings(smoothing=0.0, align=False))
    assert not np.array_equal(np.load(tmp_path / "out" / "clip" / "000004-depth.npy"), steady)
