"""The film strip: the tiles and scores it shows are those of the predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.collate import collate
from stepsight.evaluation.film import Film, draw, film_strip, shoot
from stepsight.metrics import protocol as protocols

NFE, MEMBERS = (1, 2), (1, 3)


@pytest.fixture(scope="module")
def lab_and_pipeline(laboratory):
    lab = laboratory()
    return lab, lab.pipeline()


def film_of(lab, pipeline, task: str) -> Film:
    rule = protocols.default_for(task)
    return shoot(pipeline, lab.held, task, 0, NFE, MEMBERS, rule, seed=5)


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic"])
def test_every_pair_has_its_tile_and_its_score(lab_and_pipeline, task):
    lab, pipeline = lab_and_pipeline
    film, rule = film_of(lab, pipeline, task), protocols.default_for(task)
    assert (film.nfe, film.members) == (list(NFE), list(MEMBERS))
    (sample,) = lab.held.samples([0])
    batch = collate([sample])
    assert np.array_equal(film.given["input"], sample.image.permute(1, 2, 0).numpy())
    for calls, count in film.tiles:
        one = pipeline.predict(batch, task, nfe=calls, members=count, seed=5)
        picture = pipeline.task(task).picture(
            one.values, batch, like=pipeline.task(task).truth(batch)
        )
        assert np.array_equal(film.tiles[calls, count], picture[0].permute(1, 2, 0).numpy())
        if film.metric in (rows := pipeline.task(task).score(one, batch, rule.name)):
            assert film.values[calls, count] == pytest.approx(rows[film.metric].item(), nan_ok=True)


def test_what_is_given_is_shown_by_its_name(lab_and_pipeline):
    lab, pipeline = lab_and_pipeline
    assert list(film_of(lab, pipeline, "flow").given) == ["input", "next frame", "truth"]
    assert list(film_of(lab, pipeline, "amodal").given) == ["input", "visible part", "truth"]
    assert list(film_of(lab, pipeline, "depth").given) == ["input", "truth"]


def test_spreads_share_one_scale(lab_and_pipeline):
    lab, pipeline = lab_and_pipeline
    film = film_of(lab, pipeline, "depth")
    batch = collate(lab.held.samples([0]))
    found = [
        pipeline.predict(batch, "depth", nfe=calls, members=3, seed=5).uncertainty for calls in NFE
    ]
    values = torch.cat([spread.flatten() for spread in found if spread is not None])
    assert film.brightest == pytest.approx(values.quantile(0.98).item(), rel=1e-4)
    assert list(film.spreads) == list(NFE)


def made(metric: str, values: dict) -> Film:
    tile = np.zeros((4, 8, 3), dtype=np.uint8)
    tiles = dict.fromkeys(values, tile)
    return Film("t", "key", metric, {"input": tile}, tiles, values, {}, 0.0)


def test_the_best_tile_is_framed():
    values = {(1, 1): 0.3, (2, 1): 0.2, (1, 2): float("nan"), (2, 2): 0.4}
    assert made("abs_rel", values).best == (2, 1)
    assert made("iou", values).best == (2, 2)
    assert made("iou", dict.fromkeys(values, float("nan"))).best is None
    axes = [one for one in draw(made("iou", values)).axes if one.get_xlabel() == "0.400"]
    assert len(axes) == 1 and all(spine.get_visible() for spine in axes[0].spines.values())


def test_the_strip_is_a_png_and_single_members_have_no_spread(lab_and_pipeline, tmp_path):
    lab, pipeline = lab_and_pipeline
    rule = protocols.default_for("depth")
    path = tmp_path / "sweep" / "film-depth.png"
    assert film_strip(pipeline, lab.held, "depth", 0, [1], [1], rule, path) == path
    assert Image.open(path).convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert shoot(pipeline, lab.held, "depth", 0, [1], [1], rule).spreads == {}
