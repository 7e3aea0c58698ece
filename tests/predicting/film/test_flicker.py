"""What a film is worth, on 64 frames of a world, by a denoiser whose errors are known: its answers
to a picture are off by a field that lasts and by one that is drawn anew for every frame."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.film import SceneFilm
from stepsight.errors import UserError
from stepsight.metrics.photometric import warped
from stepsight.metrics.protocol import get
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.predicting.film.config import FilmSettings
from stepsight.predicting.film.scoring import SIDES, TRUTH, score_films
from stepsight.seeding import generator
from stepsight.types import Batch

RULE = get("temporal-affine-log")


def field(name: str, number: int, channels: int = 1):
    """A smooth field of unit deviation, "1 c 64 64"."""
    coarse = torch.randn(1, channels, 9, 9, generator=generator(name, number))
    return F.interpolate(coarse, size=(64, 64), mode="bicubic")


@pytest.fixture(scope="module")
def film():
    return list(SceneFilm(ScenesSettings(), 5, 64))


@pytest.fixture
def known(lab, film, monkeypatch):
    """A pipeline with such errors on the frames of a film."""
    pipeline = lab.pipeline(lab.config(tasks=("depth", "flow")), (64, 64), statistics=False)
    depth, answers = pipeline.task("depth"), dict[int, torch.Tensor]()
    flows = {}
    for number, sample in enumerate(film):
        batch = Batch(sample.image[None].float() / 127.5 - 1, ["k"], ["s"])
        batch.depth, batch.depth_valid = sample.depth[None], sample.depth_valid[None]
        key = int(content_keys(batch.image))
        off = 0.25 * field("lasting", 0) + 0.05 * field("passing", number)
        pumped = 0.04 * torch.randn(1, generator=generator("pumping", number))
        answers[key] = (1 + pumped) * depth.encode(batch).x + pumped + off
        flows[key] = torch.zeros(1, 2, 64, 64)
        if number:  # back to the frame before: the flow from there, inverted
            forward = film[number - 1].flow[None]
            for _ in range(5):
                flows[key] = -warped(forward, flows[key])
        flows[key] = flows[key] + 0.2 * field("flow", number, 2)

    def drawn(self, seen, task, **options):
        keys = content_keys(seen.inputs.image).tolist()
        maps = (
            answers
            if task == "depth"
            else {k: v / self.task("flow").scale for k, v in flows.items()}
        )
        return torch.cat([maps[key] for key in keys])[None]

    monkeypatch.setattr(DensePipeline, "_drawn", drawn)
    monkeypatch.setattr(SceneFilm, "__iter__", lambda self: iter(film))
    return pipeline


def test_flicker_is_halved_at_equal_error(known):
    scores = score_films(
        known, [SceneFilm(ScenesSettings(), 5)], RULE, FilmSettings(), nfe=2, members=1
    )
    assert scores.mean(TRUTH, "flicker") < 1e-9 < 0.02 < scores.mean(SIDES[0], "flicker")
    for metric in ("flicker", "warped", "opw"):
        assert scores.ratio(metric).value < 0.5
    for metric in ("abs_rel", "abs_rel_each"):
        assert scores.ratio(metric).value < 1.005


@pytest.mark.parametrize("settings", [FilmSettings(smoothing=0), FilmSettings(align=False)])
def test_each_mechanism_is_worth_something_by_itself(settings, known):
    scores = score_films(known, [SceneFilm(ScenesSettings(), 5)], RULE, settings, nfe=2, members=1)
    assert scores.ratio("flicker").value < 0.8 and scores.ratio("abs_rel").value < 1.005


def test_only_films_of_some_frames_are_scored_by_protocols_of_films(lab):
    pipeline = lab.pipeline(lab.config(tasks=("depth",)), statistics=False)
    with pytest.raises(UserError, match="depth-metric scores no films.*temporal-affine-log"):
        score_films(pipeline, [], get("depth-metric"), FilmSettings())
    with pytest.raises(UserError, match="--frames 2 or more"):
        score_films(
            pipeline, [SceneFilm(ScenesSettings(size=(16, 16)), 0, 1)], RULE, FilmSettings()
        )
