"""The one scoring loop: who is scored, in which order, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stepsight.data.collate import collate
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation import evaluator
from stepsight.evaluation.evaluator import Rows, Scores
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.scoring import items
from stepsight.evaluation.scoring.journal import Record, TableKey
from stepsight.metrics import protocol as protocols
from stepsight.metrics.reduce import count_names
from stepsight.tasks.depth import Depth
from stepsight.tasks.flow import Flow

BASELINES = {
    "depth": {"constant", "mean_map"},
    "flow": {"zero_flow", "oracle_mean_flow", "constant", "mean_map"},
    "amodal": {"copied_mask", "bounding_box"},
    "semantic": {"constant", "prior_map"},
}
MIXED = ((16, 16), (24, 32), (16, 16), (32, 16), (24, 32))


def score(pipeline, source, task="flow", images=None, nfe=(1,), members=(1,), **options) -> Scores:
    return evaluator.score_source(
        pipeline,
        source,
        task,
        protocol=protocols.default_for(task).name,
        indices=range(len(source)) if images is None else images,
        nfe=nfe,
        members=members,
        **options,
    )


def tables(scores: Scores) -> list[tuple[object, Rows]]:
    """Every table of rows."""
    return [*scores.settings.items(), *scores.baselines.items(), ("ceiling", scores.ceiling)]


CONTINUOUS = {"abs_rel", "rmse", "rmse_log", "log10", "silog", "epe"}  # the others count pixels


def assert_rows(found: Rows, expected: Rows) -> None:
    """Equal, but for one pixel on the other side of a threshold."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        pixel = 1.0 if name in count_names() or name == "confusion" else 2 / found["n"].clamp_min(1)
        slack = 1e-5 * (1 + value.abs()) if name in CONTINUOUS else pixel
        close = (found[name] - value).abs() <= slack
        assert (close | (found[name].isnan() & value.isnan())).all(), name


def assert_same(found: Scores, expected: Scores, at: list[int] | None = None) -> None:
    """Equal tables; `at` picks rows of `expected`."""
    assert [name for name, _ in tables(found)] == [name for name, _ in tables(expected)]
    for (_, rows), (_, others) in zip(tables(found), tables(expected)):
        picked = {name: value if at is None else value[at] for name, value in others.items()}
        assert_rows(rows, picked)


@pytest.mark.parametrize("task", BASELINES)
@pytest.mark.parametrize("chunk_size", [1, 2, 3])
def test_the_size_of_a_forward_pass_changes_nothing(lab, task, chunk_size):
    """Two members of five images: the last batch is smaller, and members share passes or not."""
    pipeline, source = lab.pipeline(), lab.Source(count=5, seed="held")
    options = dict(nfe=(2,), members=(1, 2))
    whole = score(pipeline, source, task, chunk_size=64, **options)
    found = score(pipeline, source, task, chunk_size=chunk_size, **options)
    assert found.keys == whole.keys == [source[i].key for i in range(5)]
    assert found.settings.keys() == {(2, 1), (2, 2)}
    assert_same(found, whole)


@pytest.mark.parametrize("task", BASELINES)
def test_rows_are_the_scores_of_predictions(lab, task):
    pipeline, source = lab.pipeline(), lab.Source(count=3, seed="held")
    found = score(pipeline, source, task, nfe=(2,), members=(3,), seed=7).settings[2, 3]
    batch = collate(source.samples(range(3)))
    predicted = pipeline.predict(batch, task, nfe=2, members=3, seed=7)
    expected = pipeline.task(task).score(predicted, batch, protocols.default_for(task).name)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, equal_nan=True)
    other = score(pipeline, source, task, nfe=(2,), members=(3,), seed=8).settings[2, 3]
    assert any(not torch.equal(other[name], found[name]) for name in found)


def test_settings_of_a_grid_are_what_they_are_alone(lab):
    pipeline, source = lab.pipeline(), lab.Source(count=3, seed="held")
    grid = score(pipeline, source, "depth", nfe=(1, 2, 4), members=(1, 2, 4))
    assert len(grid.settings) == 9
    for setting in [(1, 1), (2, 2), (4, 1), (4, 4)]:
        alone = score(pipeline, source, "depth", nfe=setting[:1], members=setting[1:])
        assert_rows(grid.settings[setting], alone.settings[setting])


def test_chosen_images_are_scored_in_the_order_asked_for(lab):
    pipeline, source = lab.pipeline(), lab.Source(count=5, seed="held")
    whole = score(pipeline, source)
    some = score(pipeline, source, images=[4, 0, 3])
    assert some.keys == [whole.keys[i] for i in (4, 0, 3)]
    assert_same(some, whole, at=[4, 0, 3])


@pytest.mark.parametrize("task", BASELINES)
def test_images_of_several_sizes_stay_in_order(lab, task):
    pipeline, source = lab.pipeline(), lab.Source(count=7, seed="held", grids=MIXED)
    found = score(pipeline, source, task, members=(2,), chunk_size=8)
    assert found.keys == [source[i].key for i in range(7)]
    for i in range(7):
        alone = score(pipeline, source, task, images=[i], members=(2,))
        own = {name: value[i : i + 1] for name, value in found.settings[1, 2].items()}
        assert_rows(own, alone.settings[1, 2])
    assert all(len(value) == 7 for value in found.ceiling.values())  # resized or not


def test_progress_counts_every_image(lab):
    told = []
    score(lab.pipeline(), lab.Source(count=5), members=(2,), chunk_size=2, advance=told.append)
    assert told == [2, 2, 1]


def test_progress_does_not_count_what_other_processes_have_no_image_for(lab, monkeypatch):
    told = []
    monkeypatch.setattr(evaluator, "world", lambda: 2)
    score(lab.pipeline(), lab.Source(count=1), members=(2,), chunk_size=2, advance=told.append)
    assert told == [1]


@pytest.mark.parametrize("task", BASELINES)
def test_trivial_predictors_by_name(lab, task):
    source = lab.Source(count=3, seed="held")
    found = score(lab.pipeline(), source, task)
    assert found.baselines.keys() == BASELINES[task]
    assert all(len(rows["n"]) == 3 for rows in found.baselines.values())
    unlearned = score(lab.pipeline(statistics=False), source, task).baselines.keys()
    assert unlearned == BASELINES[task] - {"mean_map", "prior_map"} - (
        {"constant"} if task in ("flow", "semantic") else set()
    )


def test_a_ceiling_only_where_images_are_resized(lab):
    pipeline = lab.pipeline()
    native = score(pipeline, lab.Source(count=3, seed="held"), "amodal")
    larger = score(pipeline, lab.Source(count=3, seed="held", grids=((32, 32),)), "amodal")
    assert not native.ceiling and native.working == (16, 16)
    assert larger.working == (16, 16) and larger.ceiling.keys() == larger.settings[1, 1].keys()
    best = metrics_of(larger.ceiling, "amodal-iou")["iou"]
    assert metrics_of(larger.settings[1, 1], "amodal-iou")["iou"] < best <= 1 and best > 0.8


def test_the_ceiling_of_smooth_truth_is_high(lab):
    class Dense(lab.Source):  # truth with holes is picked, not smoothed
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, flow_valid=torch.ones_like(sample.flow_valid))

    source = Dense(count=3, seed="held", grids=((32, 32),))
    found = score(lab.pipeline(), source, "flow")
    ceiling, ours = (metrics_of(rows, "flow-epe") for rows in (found.ceiling, found.settings[1, 1]))
    assert ceiling["epe"] < 0.3 < ours["epe"]


@pytest.mark.parametrize("settings", [Flow(), Depth(range="metric", merge_by="mean")])
def test_the_mean_of_members_errs_no_more_than_they_do_on_average(lab, settings):
    """Jensen's inequality, on every image and whatever the truth."""
    pipeline, source = lab.pipeline(), lab.Source(count=4, seed="held")
    batch = collate(source.samples(range(4)))
    members = pipeline.sample(batch, settings.name, nfe=2, members=6).double()
    truth = settings.encode(batch)
    members = members[:, :, : settings.channels]

    def error(x: torch.Tensor) -> torch.Tensor:
        return ((x - truth.x).square() * truth.valid).sum(dim=(-3, -2, -1))

    merged = settings.merge(members).x
    assert merged.dtype == torch.float64
    each = error(members)
    assert (error(merged) <= each.mean(0) * (1 + 1e-12)).all()
    assert (each.max(0).values > each.min(0).values)[truth.valid.flatten(1).any(1)].all()


def test_large_images_are_read_and_scored_a_few_at_a_time(lab, monkeypatch):
    """The budget is of pixels; what is scored with what changes nothing."""
    pipeline, source = lab.pipeline(), lab.Source(count=6, seed="held", grids=((32, 32),))
    whole, read = score(pipeline, source, chunk_size=6), []
    samples = source.samples
    monkeypatch.setattr(items, "PIXELS", 2 * 32 * 32 + 1)
    monkeypatch.setattr(
        source,
        "samples",
        lambda indices: read.append(len(indices)) or samples(indices),
        raising=False,
    )
    told = []
    assert_same(score(pipeline, source, chunk_size=6, advance=told.append), whole)
    assert read == told == [2, 2, 2]


def test_images_of_one_size_share_a_batch_within_the_budget(lab, monkeypatch):
    monkeypatch.setattr(items, "PIXELS", 2 * 24 * 32)
    samples = lab.Source(count=5, grids=((16, 16), (24, 32), (24, 32))).samples(range(5))
    assert items.same_size(samples) == [[0, 3], [1, 2], [4]]


def test_an_error_of_any_process_is_raised_by_all(lab, monkeypatch):
    """What the second of two processes meets, as the first one learns of it."""
    other = DataFormatError("b.png is damaged")
    monkeypatch.setattr(evaluator, "gathered", lambda mine: [mine, [other]])
    with pytest.raises(DataFormatError, match="b.png is damaged"):
        score(lab.pipeline(), lab.Source(count=2))

    class Damaged(lab.Source):
        def __getitem__(self, index):
            raise UserError("a.png is damaged")

    source, gathered = Damaged(count=2), []
    monkeypatch.setattr(evaluator, "gathered", lambda mine: gathered.extend(mine) or [mine])
    with pytest.raises(UserError, match="a.png is damaged"):
        score(lab.pipeline(), source)
    assert len(gathered) == 1, "the others would wait for ever"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TableKey("flow-epe", "score", 0, 3), "b has 3 members, a"),
        (TableKey("flow-epe", "uncertainty", 0, 1), "b has an unc"),
    ],
)
def test_a_table_that_some_images_lack_is_refused(table, said):
    rows, trivial = (
        {"epe": torch.tensor(1.0)},
        TableKey("flow-epe", "baseline", baseline="zero_flow"),
    )
    records = [Record(i, key, {trivial: rows}) for i, key in enumerate("ab")]
    records[1].tables[table] = rows
    with pytest.raises(UserError, match=f"{said}.* has not"):
        evaluator._scores("flow", "scenes", "flow-epe", records)


def test_several_merges_are_scores_apart(lab):
    pipeline, source = lab.pipeline(), lab.Source(count=3, seed="held")
    rules = [protocols.default_for("depth"), protocols.get("depth-affine")]
    model = Model(pipeline, "depth", [2], [1, 3], "ddim", keep=True, merges=["mean", "median"])
    found = evaluator.score(model, source, rules, range(3))
    assert [(one.protocol, one.merge) for one in found] == [
        (rule.name, merge) for rule in rules for merge in ("mean", "median")
    ]
    for one in found:
        other = pipeline.sampling(merge={"depth": one.merge})
        alone = Model(other, "depth", [2], [1, 3], "ddim", keep=True)
        (expected,) = evaluator.score(alone, source, [protocols.get(one.protocol)], range(3))
        assert_same(one, expected)
        assert one.uncertainty.keys() == {(2, 3)} and one.baselines.keys() == BASELINES["depth"]
        assert one.sizes == {(16, 16): 3} and min(one.peak_gb.values()) > 0
        assert set(one.seconds) == set(one.peak_gb) == {(2, 1), (2, 3)}


def test_a_size_is_worked_at_whatever_the_protocol_says(lab):
    pipeline, source = lab.pipeline(), lab.Source(count=2, seed="held", grids=((32, 16),))
    rule = [replace(protocols.default_for("depth"), working=16)]
    sizes = [
        evaluator.score(Model(pipeline, "depth", [1], [1], "ddim", size=size), source, rule, [0, 1])
        for size in (None, 32)
    ]
    assert [one.working for (one,) in sizes] == [(16, 8), (32, 16)]
