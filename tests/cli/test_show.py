"""Tables for the terminal show the metrics that a protocol is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepsight.cli.show import results_table
from stepsight.metrics.protocol import get
from stepsight.report.scores import write_page
from stepsight.results import Result


def result(name, **metrics):
    rule = get(name)
    main = next(iter(metrics))
    ratio = {"metric": main, "ratio": 0.5, "lo": 0.4, "hi": 0.6}
    row = {
        **{"task": rule.task, "data": "here", "split": None, "label": None, "ceiling": None},
        **{"protocol": rule.id, "protocol_text": rule.description, "sampler": "ddim", "nfe": 1},
        **{"members": 1, "n": 2, "expected": 2, "size": [4, 6], "checkpoint": "abc"},
        "metrics": dict(sorted(metrics.items())) | {"n_images": 2.0},
        "metric": main,
        "intervals": {},
        "uncertainty": {},
        "baselines": {"trivial": {name: 2 * value for name, value in metrics.items()}},
        "ratios": {"trivial": ratio},
    }
    return Result.of(row)


MIDAS = {"above_1.25": 0.31, "abs_rel": 0.12}
SPRING = {"above_1px": 0.41, "epe": 3.2, "fl_all": 0.2, "wauc": 77.0}


@pytest.mark.parametrize(
    "name,metrics,labels",
    [
        ("midas", MIDAS, ["above 1.25", "AbsRel"]),
        ("spring", SPRING, ["above 1 px", "EPE", "Fl-all", "WAUC"]),
    ],
)
def test_columns_are_the_protocols_metrics_in_its_order(name, metrics, labels):
    text = results_table([result(name, **metrics)])
    (head,) = (line for line in text.splitlines() if "predictor" in line)
    places = [head.find(label) for label in labels]
    assert -1 not in places and places == sorted(places)


def test_a_remark_is_a_sentence():
    remarked = replace(result("midas", **MIDAS), label="these would score better. Score them.")
    text = " ".join(results_table([remarked]).split())
    assert text.endswith("mean over images. These would score better. Score them.")


def test_the_score_of_a_page_is_the_protocols_main_metric(tmp_path):
    page = write_page(tmp_path / "page.html", [result("midas", **MIDAS)]).read_text()
    (score,) = (part.partition("<")[0] for part in page.split('class="value">')[1:])
    assert score == "0.310"


def test_protocols_are_compared_by_their_own_main_metrics():
    text = results_table([result("midas", **MIDAS), result("marigold-depth", abs_rel=0.2)])
    assert "above 1.25 0.310" in text and "AbsRel 0.200" in text
