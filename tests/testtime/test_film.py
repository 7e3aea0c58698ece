"""The film strip: what the set says of each setting, and an image of what usually happens."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stepsight.data.collate import collate
from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.pictures import PaintedPanel
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import per_image
from stepsight.metrics import protocol as protocols
from stepsight.testtime.film import SamplingOption, set_scores, shoot

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


def strip_of(lab, pipeline, task: str) -> tuple[PaintedPanel, list[SamplingOption]]:
    ways = [way(lab, pipeline, task, 1.0), way(lab, pipeline, task, 0.0, (1,))]
    rule = protocols.default_for(task)
    return shoot(task, ways, lab.held, range(len(lab.held)), rule, seed=SEED).strip, ways


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic"])
def test_every_tile_is_what_was_scored_with_the_sets_value_and_its_own(lab, pipeline, task):
    (panel, pictures), (noisy, plain) = strip_of(lab, pipeline, task)
    chosen, rule = pipeline.task(task), protocols.default_for(task)
    rows = {
        "T 0, 1 member": (plain, 1),
        "T 1, 1 member": (noisy, 1),
        "T 1, 3 members": (noisy, 3),
    }
    shots = [(t, picture) for t, picture in zip(panel.tiles, pictures) if t.name == "answer"]
    assert [t.row for t, _ in shots] == [row for row in rows for _ in NFE]
    (index,) = [i for i in range(len(lab.held)) if lab.held[i].key == panel.key]
    batch = collate([lab.held[index]])
    truth = chosen.truth(batch)
    for (shot, picture), calls in zip(shots, NFE * len(rows)):
        one, count = rows[shot.row]
        assert shot.setting == f"{calls} x {count}, {one.label}"
        found = one.pipeline.predict(batch, task, nfe=calls, members=count, seed=SEED)
        painted = chosen.picture(found.values, batch, like=truth)
        wanted = painted[0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(picture - wanted).mean() < 0.1  # rounding of members drawn alone
        scored = one.settings[calls, count]
        assert shot.over_set == metrics_of(scored, rule.name)[panel.metric]
        assert shot.score == pytest.approx(
            float(per_image(chosen.score(found, batch, rule.name), panel.metric)[0]), nan_ok=True
        )


def test_spreads_are_those_of_the_largest_ensemble_on_one_scale(lab, pipeline):
    (panel, _), (noisy, _) = strip_of(lab, pipeline, "depth")
    (index,) = [i for i in range(len(lab.held)) if lab.held[i].key == panel.key]
    batch = collate([lab.held[index]])
    spreads = [
        noisy.pipeline.predict(batch, "depth", nfe=calls, members=3, seed=SEED).uncertainty
        for calls in NFE
    ]
    known = batch.depth_valid
    values = torch.cat([spread[known] for spread in spreads if spread is not None])
    assert panel.spread_scale.high == pytest.approx(values.quantile(0.98).item(), rel=1e-4)
    shown = [(t.setting, t.row) for t in panel.tiles if t.name == "spread"]
    assert shown == [(f"{calls} x 3, T 1", "spread of 3 members") for calls in NFE]


def test_single_members_have_no_spread(lab, pipeline):
    rule, images = protocols.default_for("depth"), range(len(lab.held))
    ways = [way(lab, pipeline, "depth", 0.0, (1,))]
    panel, strip = shoot("depth", ways, lab.held, images, rule, seed=SEED)
    for shown in (panel.panel, strip.panel):
        assert shown.spread_scale is None and shown.tile("spread") is None


def test_the_panel_shows_the_cheapest_setting_and_the_best_of_the_same_image(lab, pipeline):
    ways = [way(lab, pipeline, "depth", 1.0), way(lab, pipeline, "depth", 0.0, (1,))]
    rule, images = protocols.default_for("depth"), range(len(lab.held))
    panel, strip = shoot("depth", ways, lab.held, images, rule, seed=SEED)
    (best,) = [tile for tile in strip.panel.tiles if tile.best]
    values = [tile.over_set for tile in strip.panel.tiles if tile.over_set is not None]
    assert best.over_set == min(values)
    shown = {tile.name: tile for tile in panel.panel.tiles}
    assert panel.panel.key == strip.panel.key and list(shown)[:2] == ["image", "truth"]
    (marked,) = [tile for tile in shown.values() if tile.best]
    assert (marked.setting, marked.over_set) == (best.setting, best.over_set)
    assert shown["error"].setting == best.setting and shown["one call"].setting[:5] == "1 x 1"
    assert ("most calls" in shown) == (marked.name == "one call") != ("best setting" in shown)
    assert {tile.row for tile in panel.panel.tiles} == {""} and shown["spread"].setting[4:5] == "3"
    picture = dict(zip((tile.name for tile in panel.panel.tiles), panel.pictures))[marked.name]
    place = strip.panel.tiles.index(best)
    assert np.array_equal(picture, strip.pictures[place])


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


def test_the_image_is_of_middling_score_and_median_gain():
    # gains of the best setting (2, 1) over (1, 1): .4 .1 .3 .0 -.1; its scores sort as 1 3 4 0 2
    first, best = [0.9, 0.2, 0.8, 0.1, 0.3], [0.5, 0.1, 0.6, 0.1, 0.4]
    found = stood({(1, 1): first, (2, 1): best})
    assert found.best() == (0, 2, 1) and found.telling == 3
    assert found.chosen() == "image of middling AbsRel and median gain from sampling, of 5"


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
    assert found.best() == found.cheapest == (0, 1, 1) and found.telling == 2
    assert found.chosen() == "median image by AbsRel of 3"


def test_the_cheapest_is_the_best_of_those_with_as_few_calls():
    found = stood({(1, 1): [0.5], (2, 1): [0.1]}, {(1, 1): [0.4], (1, 2): [0.2]})
    assert found.cheapest == (1, 1, 1) and found.best() == (0, 2, 1)


def test_ways_are_called_by_temperature_and_views():
    table = {(1, 1): [0.1]}
    ways = made(table, table, table, temperatures=(1.0, 0.0, 0.5), views=("mirror", "none", "none"))
    assert [way.label for way in ways] == ["T 1, mirror", "T 0", "T 0.5"]
    assert [way.label for way in sorted(ways, key=lambda way: way.order)] == [
        "T 0",
        "T 0.5",
        "T 1, mirror",
    ]
