"""What holds for the predictions of every task: merging, trivial predictors, grids, pictures."""

from __future__ import annotations

import pytest
import torch

from stepsight.measures import measure
from stepsight.metrics.protocol import default_for
from stepsight.tasks.config import TABLE
from stepsight.tasks.table import build_task

BASELINES = {
    "depth": {"constant", "mean_map"},
    "flow": {"zero_flow", "oracle_mean_flow", "constant", "mean_map"},
    "amodal": {"copied_mask", "bounding_box"},
    "semantic": {"constant", "prior_map"},
    "normals": {"constant", "mean_map"},
    "image": {"mean_image"},
}
LEARNED = {"mean_map", "prior_map", "mean_image"}


# ---------------------------------------------------------------------------- merging


def test_one_member_is_its_own_merge_and_claims_no_certainty(task, members_of):
    members = members_of(task, 1)
    merged, alone = task.merge(members), task.decode(members[0])
    assert merged.uncertainty is None
    torch.testing.assert_close(merged.values, alone.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 5])
def test_members_that_agree_merge_to_themselves_with_certainty(task, members_of, count):
    one = members_of(task, 1)[0]
    merged = task.merge(one.expand(count, -1, -1, -1, -1))
    torch.testing.assert_close(merged.values, task.decode(one).values, atol=1e-4, rtol=1e-4)
    assert merged.uncertainty is not None and merged.uncertainty.shape == (2, 1, 6, 9)
    assert 0 <= merged.uncertainty.min() and merged.uncertainty.max() < 1e-3


def test_the_order_of_the_members_is_of_no_consequence(task, members_of):
    members = members_of(task, 5)
    expected = task.merge(members)
    assert expected.uncertainty is not None and expected.uncertainty.max() > 0.01
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        found = task.merge(members[order])
        assert found.uncertainty is not None
        torch.testing.assert_close(found.uncertainty, expected.uncertainty, atol=1e-4, rtol=1e-3)
        if task.name != "image":  # which shows the first
            torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=1e-4)


def test_images_are_merged_apart(task, members_of):
    members = members_of(task, 4)
    together = task.merge(members)
    for row in range(2):
        alone = task.merge(members[:, row : row + 1])
        torch.testing.assert_close(alone.values[0], together.values[row], atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------- trivial predictors


def test_the_trivial_predictors_are_there_under_their_names(task, batch_for):
    batch = batch_for(task, (12, 20))
    statistics = task.statistics(batch)
    assert statistics.ndim == 3 and statistics.shape[1:] == (12, 20)
    found = task.baselines(batch, statistics)
    assert found.keys() == BASELINES[task.name]
    for prediction in found.values():
        assert prediction.task == task.name
        assert prediction.values.shape == task.truth(batch).shape
        assert prediction.values.isfinite().all()
    learned = LEARNED | ({"constant"} if task.name in ("flow", "semantic") else set())
    assert task.baselines(batch, None).keys() == BASELINES[task.name] - learned


def test_the_trivial_predictors_read_the_same_in_the_target_space(task, batch_for):
    batch = batch_for(task, (12, 20))
    for prediction in task.baselines(batch, task.statistics(batch)).values():
        assert prediction.x.shape == (3, task.channels, 12, 20)
        decoded = task.decode(prediction.x).values
        if task.name == "amodal":  # a picture of the visible mask may close over its holes
            assert (decoded >= prediction.values).all()
        else:
            torch.testing.assert_close(decoded, prediction.values, atol=1e-5, rtol=1e-5)


def test_knowing_the_truth_beats_every_trivial_predictor(task, batch_for):
    batch = batch_for(task, (16, 24))
    perfect = task.decode(task.encode(batch).x)
    sign = 1 if measure(task.metric).higher_is_better else -1

    def score(prediction) -> float:
        rows = task.score(prediction, batch, default_for(task.name).name)
        if "confusion" in rows:
            hits = rows["confusion"].diagonal(dim1=1, dim2=2).sum()
            return float(hits / rows["confusion"].sum())
        return sign * float(rows[task.metric].nanmean())

    for name, prediction in task.baselines(batch, task.statistics(batch)).items():
        assert score(perfect) > score(prediction), name


@pytest.mark.parametrize("name", TABLE)
def test_statistics_of_batches_add_up(name, batch_of, row_of):
    task, batch = build_task(TABLE[name]()), batch_of((8, 12), rows=4)
    parts = [task.statistics(row_of(batch, row)) for row in range(4)]
    torch.testing.assert_close(sum(parts), task.statistics(batch), check_dtype=False)


def test_statistics_serve_images_of_another_size(task, batch_for):
    statistics = task.statistics(batch_for(task, (8, 12)))
    for prediction in task.baselines(batch_for(task, (13, 21)), statistics).values():
        assert prediction.values.shape[-2:] == (13, 21) and prediction.values.isfinite().all()


# ---------------------------------------------------------------------------- other grids, pictures


def test_values_on_their_own_grid_stay_and_constants_stay_constant(task):
    values = task.decode(torch.rand(2, task.channels, 6, 10) * 2 - 1).values
    torch.testing.assert_close(task.rescale(values, (6, 10)), values, atol=1e-5, rtol=1e-5)
    flat = values[:, :, :1, :1].expand(-1, -1, 6, 10)
    grown = task.rescale(flat, (13, 33))
    assert grown.shape == (*values.shape[:2], 13, 33) and grown.dtype == values.dtype
    spread = grown.float() - grown[:, :, :1, :1].float()
    assert spread.abs().max() < 1e-3 * max(1.0, float(grown.abs().max()))


def test_pictures_are_pictures(task, batch_for):
    batch = batch_for(task, (12, 20))
    for values in (task.truth(batch), task.decode(task.encode(batch).x).values):
        for like in (None, task.truth(batch)):
            picture = task.picture(values, batch, like)
            assert picture.shape == (3, 3, 12, 20) and picture.dtype == torch.uint8
            assert len(picture.unique()) > 3
