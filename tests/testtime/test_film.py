"""The film strip: what the set says of each setting, and an image of what usually happens."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.collate import collate
from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import per_image
from stepsight.metrics import protocol as protocols
from stepsight.report.figures import to_png
from stepsight.report.film_figure import Shot, draw
from stepsight.testtime.film import Film, SamplingOption, set_scores, shoot

NFE, MEMBERS, SEED = (1, 2), (1, 3), 5


@pytest.fixture(scope="module")
def lab(laboratory):
    return laboratory()


@pytest.fixture(scope="module")
def pipeline(lab):
    return lab.pipeline()


def way(lab, pipeline, task: str, temperature: float, members=MEMBERS) -> SamplingOption:
    own = pipeline.sampling(temperature=temperature)
    scores = score_source(
        own,
        lab.held,
        task,
        protocol=protocols.default_for(task).name,
        indices=range(len(lab.held)),
        nfe=NFE,
        members=members,
        seed=SEED,
    )
    return SamplingOption(own, scores.settings)


def film_of(lab, pipeline, task: str) -> tuple[Film, list[SamplingOption]]:
    ways = [way(lab, pipeline, task, 1.0), way(lab, pipeline, task, 0.0, (1,))]
    rule = protocols.default_for(task)
    return shoot(task, ways, lab.held, range(len(lab.held)), rule, seed=SEED), ways


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic"])
def test_every_tile_is_what_was_scored_with_the_sets_value_and_its_own(lab, pipeline, task):
    film, (noisy, plain) = film_of(lab, pipeline, task)
    chosen, rule = pipeline.task(task), protocols.default_for(task)
    rows = {
        "T 0\n1 member": (plain, 1),
        "T 1\n1 member": (noisy, 1),
        "T 1\n3 members": (noisy, 3),
    }
    assert list(film.rows) == list(rows) and film.nfe == list(NFE)
    (index,) = [i for i in range(len(lab.held)) if lab.held[i].key == film.key]
    batch = collate([lab.held[index]])
    truth = chosen.truth(batch)
    for label, (one, count) in rows.items():
        for calls, shot in film.rows[label].items():
            found = one.pipeline.predict(batch, task, nfe=calls, members=count, seed=SEED)
            picture = chosen.picture(found.values, batch, like=truth)
            assert np.array_equal(shot.tile, picture[0].permute(1, 2, 0).numpy())
            scored = one.settings[calls, count]
            assert shot.over_set == metrics_of(scored, rule.name)[film.metric]
            assert shot.on_image == pytest.approx(
                float(per_image(chosen.score(found, batch, rule.name), film.metric)[0]), nan_ok=True
            )


def test_what_is_given_is_shown_by_its_name(lab, pipeline):
    films = {task: film_of(lab, pipeline, task)[0] for task in ("depth", "flow", "amodal")}
    assert list(films["flow"].given) == ["input", "next frame", "truth"]
    assert list(films["amodal"].given) == ["input", "visible part", "truth"]
    assert list(films["depth"].given) == ["input", "truth"]
    assert all(film.legend is not None for film in films.values())


def test_spreads_are_those_of_the_largest_ensemble_on_one_scale(lab, pipeline):
    film, (noisy, _) = film_of(lab, pipeline, "depth")
    (index,) = [i for i in range(len(lab.held)) if lab.held[i].key == film.key]
    batch = collate([lab.held[index]])
    spreads = [
        noisy.pipeline.predict(batch, "depth", nfe=calls, members=3, seed=SEED).uncertainty
        for calls in NFE
    ]
    values = torch.cat([spread.flatten() for spread in spreads if spread is not None])
    assert film.brightest == pytest.approx(values.quantile(0.98).item(), rel=1e-4)
    assert list(film.spreads) == list(NFE)


# ------------------------------------------------------------------------- choice of the image


def made(*tables: dict, temperatures=(0.0, 1.0), views=("none", "none")) -> list[SamplingOption]:
    """Ways whose images score as the tables say, by setting: AbsRel."""
    ways = []
    for table, temperature, view in zip(tables, temperatures, views):
        settings = SimpleNamespace(temperature=temperature, views=view)
        pipeline = SimpleNamespace(diffusion=SimpleNamespace(settings=settings))
        rows = {}
        for setting, values in table.items():
            values = torch.tensor(values, dtype=torch.float64)
            rows[setting] = {"abs_rel": values, "n": (~values.isnan()).double()}
        ways.append(SamplingOption(pipeline, rows))  # type: ignore[arg-type]
    return ways


def stood(*tables: dict):
    found = set_scores("depth", made(*tables), protocols.default_for("depth"))
    assert found is not None
    return found


def test_the_image_is_that_of_median_gain_not_of_median_score():
    # gains of the best setting (2, 1) over (1, 1): .4 .1 .3 .0 -.1; scores sort otherwise
    first, best = [0.9, 0.2, 0.8, 0.1, 0.3], [0.5, 0.1, 0.5, 0.1, 0.4]
    found = stood({(1, 1): first, (2, 1): best})
    assert found.best() == (0, 2, 1) and found.telling == 1


def test_the_best_setting_is_that_of_the_set_and_of_equals_the_cheapest():
    flat = [0.3, 0.3]
    found = stood({(1, 1): [0.6, 0.2], (2, 1): flat, (4, 1): flat}, {(1, 4): [0.9, 0.1]})
    assert found.best() == (0, 2, 1)
    assert found.values[found.best()] == pytest.approx(0.3)


def test_images_without_a_score_are_not_shown():
    nan = float("nan")
    found = stood({(1, 1): [nan, 0.4, 0.2, nan], (2, 1): [0.1, 0.3, 0.1, nan]})
    assert found.telling in (1, 2)
    nothing = stood({(1, 1): [nan, nan]})
    assert nothing.best() is None and nothing.telling == 0


def test_where_the_cheapest_is_the_best_the_median_score_tells():
    found = stood({(1, 1): [0.1, 0.9, 0.2], (2, 1): [0.3, 0.9, 0.4]})
    assert found.best() == (0, 1, 1) and found.telling == 2


def test_ways_are_called_by_temperature_and_views():
    table = {(1, 1): [0.1]}
    ways = made(table, table, table, temperatures=(1.0, 0.0, 0.5), views=("mirror", "none", "none"))
    assert [way.label for way in ways] == ["T 1, mirror", "T 0", "T 0.5"]
    assert [way.label for way in sorted(ways, key=lambda way: way.order)] == [
        "T 0",
        "T 0.5",
        "T 1, mirror",
    ]


# ------------------------------------------------------------------------------------ the figure


def test_the_framed_tile_is_best_over_the_set_even_where_its_own_image_disagrees():
    tile = np.zeros((4, 8, 3), dtype=np.uint8)
    row = {1: Shot(tile, 0.3, 0.1), 2: Shot(tile, 0.2, 0.4, best=True), 4: Shot(tile, np.nan, 0.2)}
    film = Film("depth", "key", "abs_rel", 7, {"input": tile}, None, {"T 0": row}, {}, 0.0)
    figure = draw(film)
    framed = [one for one in figure.axes if all(s.get_visible() for s in one.spines.values())]
    assert [one.get_xlabel() for one in framed] == ["0.200"]
    said = [text.get_text() for text in figure.texts]
    assert "0.400" in said and any("all 7 images" in text and "grey" in text for text in said)
    assert "AbsRel, lower is better" in said


def test_the_best_over_the_set_is_framed_once(lab, pipeline):
    film, ways = film_of(lab, pipeline, "depth")
    values = {shot.over_set for row in film.rows.values() for shot in row.values()}
    (framed,) = [shot for row in film.rows.values() for shot in row.values() if shot.best]
    assert framed.over_set == min(values)


def test_the_strip_is_a_png_and_single_members_have_no_spread(lab, pipeline, tmp_path):
    rule, images = protocols.default_for("depth"), range(len(lab.held))
    ways = [way(lab, pipeline, "depth", 0.0, (1,))]
    path = tmp_path / "sweep" / "film-depth.png"
    film = shoot("depth", ways, lab.held, images, rule, seed=SEED)
    assert to_png(draw(film), path) == path
    assert Image.open(path).convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert film.spreads == {}
