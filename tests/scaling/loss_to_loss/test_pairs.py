"""Which records are paired with which, pairing by pairing, and what is refused."""

from __future__ import annotations

import pytest

from stepsight.errors import UserError
from stepsight.scaling.loss_to_loss.pairs import PAIRINGS, join, pair


def xy(found) -> list[tuple[float, float]]:
    return [(one.x, one.y) for one in found.pairs]


def test_inner_join_of_keys():
    assert join(["a", "b", "c"], ["c", "x", "a"]) == [(0, 2), (2, 0)]
    assert join([(1.0, "s")], [(2.0, "s")]) == []
    for columns in ((["a", "a"], ["a"]), (["a"], ["b", "a", "a"])):
        with pytest.raises(UserError, match="Several rows of one group hold a"):
            join(*columns)


def test_loss_and_metric_of_the_same_checkpoint(record):
    records = [
        record(run="a", images_seen=10, loss=0.30, value=0.4),
        record(run="a", images_seen=20, loss=0.20, value=0.3),
        record(run="b", images_seen=10, loss=0.25, value=0.35),
        record(run="b", images_seen=20, loss=None, value=0.2),
    ]
    found = pair(records, "loss-metric")
    assert xy(found) == [(0.20, 0.3), (0.25, 0.35), (0.30, 0.4)]
    assert [one.label for one in found.pairs] == ["a", "b", "a"]
    assert (found.x, found.y) == ("depth loss", "depth scenes affine-64 absrel, ddim 8 x 4")
    assert found.notes == ("left out 1 records without a positive loss", "1 points have no partner")


def test_metrics_that_are_better_when_higher_are_turned(record):
    better = dict(metric="delta1", lower_is_better=False)
    records = [
        record(loss=0.3, value=0.9, **better),
        record(run="b", loss=0.4, value=0.8, **better),
    ]
    found = pair(records, "loss-metric")
    assert xy(found) == [(0.3, pytest.approx(0.1)), (0.4, pytest.approx(0.2))]
    assert "1 - delta1" in found.y
    with pytest.raises(UserError, match="reaches 63: as an error it would be 1 - value"):
        pair([record(loss=0.3, value=63.0, **better)], "loss-metric")


def test_any_column_of_losses_may_stand_on_an_axis(record):
    records = [record(run=r, loss=0.3, loss_bins=(0.1, b)) for r, b in (("a", 0.5), ("b", 0.6))]
    assert [x for x, _ in xy(pair(records, "loss-metric", x="loss_bin_1"))] == [0.5, 0.6]
    with pytest.raises(UserError, match="no numeric column 'los'"):
        pair(records, "loss-metric", x="los")


def test_tasks_of_one_run_or_of_two_specialists(record):
    """In the same run where there is one, else by size and images, averaged over seeds."""
    generalist = [
        record(run="g", task=task, images_seen=images, loss=loss)
        for task, images, loss in (("depth", 10, 0.5), ("flow", 10, 0.3), ("flow", 20, 0.2))
    ]
    axes = dict(x_where={"task": "depth"}, y_where={"task": "flow"})
    assert xy(pair(generalist, "task-task", **axes)) == [(0.5, 0.3)]
    specialists = [
        record(run="d", task="depth", images_seen=10, loss=0.5),
        record(run="f0", task="flow", images_seen=10, loss=0.2),
        record(run="f1", task="flow", images_seen=10, loss=0.4, seed=1),
        record(run="m", task="flow", images_seen=10, loss=0.1, model="dit-m"),
    ]
    assert xy(pair(specialists, "task-task", **axes)) == [(0.5, pytest.approx(0.3))]


def test_wall_time_pairs_nothing(record):
    records = [
        record(run="a", task="depth", images_seen=10, loss=0.5, seconds=1.0),
        record(run="a", task="flow", images_seen=20, loss=0.2, seconds=1.0),
    ]
    with pytest.raises(UserError, match="1 of depth loss and 1 of flow loss, none of which"):
        pair(records, "task-task", x_where={"task": "depth"}, y_where={"task": "flow"})


@pytest.mark.parametrize(
    "pairing, field, one, other",
    [
        ("synthetic-real", "dataset", "scenes", "nyu"),
        ("real-real", "dataset", "nyu", "kitti"),
        ("test-time", "nfe", 1, 8),
        ("test-time", "members", 1, 4),
    ],
)
def test_the_same_checkpoint_on_two_sets_or_settings(record, pairing, field, one, other):
    records = [
        record(**{"run": run, field: where, "value": value})
        for run, where, value in (("a", one, 0.4), ("a", other, 0.2), ("b", other, 0.1))
    ]
    found = pair(records, pairing, x_where={field: str(one)}, y_where={field: str(other)})
    assert xy(found) == [(0.4, 0.2)] and found.notes == ("1 points have no partner",)


def pretrained(record, run: str, flops: float, loss: float, **changed):
    fields = dict(run=run, task="image", training_flops=flops, loss=loss, metric="energy")
    return record(**(fields | changed))


def test_fine_tuned_models_find_the_checkpoint_they_came_from(record):
    """By the compute inherited, also from an early checkpoint and a run under another name."""
    records = [
        pretrained(record, "p", 1e15, 0.30, images_seen=100),
        pretrained(record, "p", 2e15, 0.25, images_seen=200),
        pretrained(record, "q", 2e15, 0.20, images_seen=200),
        record(run="early", loss=0.15, images_seen=50, inherited_flops=1e15, parent="converted"),
        record(run="late", loss=0.14, images_seen=50, inherited_flops=2e15, parent="p"),
        record(run="late", loss=0.10, images_seen=90, inherited_flops=2e15, parent="p"),
        record(run="other", loss=0.11, images_seen=50, inherited_flops=2e15, parent="q"),
    ]
    found = pair(records, "pretrain-finetune", y_where={"task": "depth"})
    assert xy(found) == [(0.20, 0.11), (0.25, 0.14), (0.30, 0.15)]
    assert found.notes == ("fine-tuned on 50 images each",)


def test_without_inheritance_the_same_backbone_is_paired(record):
    records = [
        pretrained(record, "p", 1e15, 0.30, images_seen=100),
        pretrained(record, "p", 2e15, 0.25, images_seen=200),
        pretrained(record, "m", 9e15, 0.20, images_seen=200, model="dit-m"),
        record(run="s", loss=0.15),
        record(run="m-depth", loss=0.12, model="dit-m"),
    ]
    found = pair(records, "pretrain-finetune", y_where={"task": "depth"})
    assert xy(found) == [(0.20, 0.12), (0.25, 0.15)]


def test_unequal_fine_tuning_is_refused_or_chosen(record):
    records = [
        pretrained(record, "p", 1e15, 0.3),
        record(run="a", loss=0.2, images_seen=10, inherited_flops=1e15),
        record(run="b", loss=0.1, images_seen=20, inherited_flops=1e15),
    ]
    with pytest.raises(UserError, match=r"\(10, 20\). Choose one with --y-where images_seen=N"):
        pair(records, "pretrain-finetune", y_where={"task": "depth"})
    chosen = pair(records, "pretrain-finetune", y_where={"task": "depth", "images_seen": "20"})
    assert xy(chosen) == [(0.3, 0.1)]


def test_what_would_mix_is_refused(record):
    records = [record(loss=0.3), record(loss=0.3, protocol="metric", run="b")]
    with pytest.raises(UserError, match="y mixes records of protocol affine-64, metric. Choose"):
        pair(records, "loss-metric")
    assert len(pair(records, "loss-metric", y_where={"protocol": "metric"}).pairs) == 1
    with pytest.raises(UserError, match="Both axes are depth scenes"):
        pair([record()], "real-real")
    with pytest.raises(UserError, match="no field 'datset'. Did you mean 'dataset'"):
        pair(records, "real-real", x_where={"datset": "nyu"})
    with pytest.raises(UserError, match="x: no records of dataset 'nyu'"):
        pair(records, "real-real", x_where={"dataset": "nyu"})
    with pytest.raises(UserError, match="no records to pair"):
        pair([], "loss-metric")
    with pytest.raises(UserError, match="Did you mean 'loss-metric'"):
        pair(records, "loss-metrics")


def test_every_pairing_says_what_it_is():
    assert len(PAIRINGS) == 6 and all(rule.about for rule in PAIRINGS.values())
