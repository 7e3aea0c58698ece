"""What is learned from training samples without a model."""

from __future__ import annotations

import pytest
import torch

from stepsight.data.collate import collate
from stepsight.evaluation import bounds
from stepsight.evaluation.bounds import statistics, trivial_metrics
from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.results import metrics_of
from stepsight.tasks.depth import Depth
from stepsight.tasks.flow import Flow
from stepsight.tasks.semantic import Semantic
from stepsight.types import IGNORE

PROTOCOLS = {"depth": "depth-affine-log", "flow": "flow-epe", "semantic": "semantic-miou"}


def test_statistics_are_sums_over_the_training_samples(lab, monkeypatch):
    whole = statistics({"flow": Flow()}, lab.source)["flow"].double()
    batch = collate(lab.source.samples(range(len(lab.source))))
    valid = batch.flow_valid
    expected = torch.cat(
        [torch.where(valid, batch.flow, 0.0).double().sum(0) / Flow().scale, valid.double().sum(0)]
    )
    torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-5)
    monkeypatch.setattr(bounds, "CHUNK", 5)
    torch.testing.assert_close(
        statistics({"flow": Flow()}, lab.source)["flow"].double(), expected, atol=1e-4, rtol=1e-5
    )


def test_only_the_first_samples_count(lab, monkeypatch):
    monkeypatch.setattr(bounds, "STATISTICS_IMAGES", 6)
    monkeypatch.setattr(bounds, "CHUNK", 4)
    counts = statistics({"it": Semantic()}, lab.source)["it"]
    labelled = sum(int((lab.source[i].labels != IGNORE).sum()) for i in range(6))
    assert counts.sum() == labelled


@pytest.mark.parametrize("task", [Depth(), Flow(), Semantic()])
def test_the_evaluator_scores_the_same_predictors(lab, task):
    protocol = PROTOCOLS[task.name]
    alone = trivial_metrics(task, lab.source, lab.held, protocol, images=5)
    scores = score_source(
        lab.pipeline(),
        lab.held,
        task.name,
        protocol=protocol,
        indices=range(5),
        nfe=[1],
        members=[1],
    )
    assert alone.keys() == scores.baselines.keys()
    for name, metrics in alone.items():
        assert metrics == pytest.approx(metrics_of(scores.baselines[name], protocol), rel=1e-5)


def test_a_predictor_that_knows_the_training_mean_is_right_where_truth_is_that_mean(lab):
    """One training sample, scored on itself."""
    lab.source.count = 1
    found = trivial_metrics(Flow(), lab.source, lab.source, "flow-epe", images=1)
    assert found["mean_map"]["epe"] < 1e-5 < 0.1 < found["constant"]["epe"]
    found = trivial_metrics(Semantic(), lab.source, lab.source, "semantic-miou", images=1)
    assert found["prior_map"]["miou"] == 1 > found["constant"]["miou"]
