"""The page of a scaling analysis, on records of laws that are known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ladders import IMAGES, SIZES, TRUTH, grid, law, record, scattered

from stepsight.errors import DataFormatError, UserError
from stepsight.report.scaling import page as scaling_page
from stepsight.report.scaling.contents import Analysis, analyse, summary, to_dict
from stepsight.report.scaling.figures import draw
from stepsight.scaling.analysis.emergence import loss_before
from stepsight.scaling.analysis.folder import new_forecasts, read_scaling
from stepsight.scaling.analysis.words import (
    forecast_summary,
)
from stepsight.scaling.ladders.forecast import (
    FILE_NAME,
    ForecastTarget,
    append_forecasts,
    forecasts,
)
from stepsight.scaling.records import ScalingRecord, append

AFTER = "2999-01-01T00:00:00+00:00"
BIG = ForecastTarget("big", 20_000_000, 500_000)
HOSTILE = "<img src=x onerror=1>"


def rung(name: str, state: str = "done", why: str = "", factor: float = 1.0) -> dict[str, Any]:
    settings = {"training.images": 100}
    row = {"name": name, "state": state, "seconds": 75.0, "why": why, "settings": settings}
    return row | {"factor": factor, "parent": ""}


def made_ladder(out: Path) -> Path:
    """A folder with records, a forecast and its outcome, a failed rung, and tuned rates."""
    found = grid()
    append(out / "train" / "records.jsonl", found)
    append_forecasts(out / FILE_NAME, forecasts(found, BIG))
    place = BIG.params_active, BIG.images_seen
    outcome = law(*place)
    late = record(*place, outcome, 0.8 * outcome - 0.01, run="big", time=AFTER)
    append(out / "held-out" / "records.jsonl", [late])
    rungs = [rung("train/a"), rung("train/b", "failed", "the loss is not finite")]
    for factor, loss in ((0.5, 0.4), (1.0, 0.3), (2.0, 0.2)):
        name = f"tune-train/dit-s-x{factor:g}"
        rungs.append(rung(name, factor=factor))
        line = {"kind": "val", "images_seen": 100, "loss": loss}
        (out / name).mkdir(parents=True)
        (out / name / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (out / "ladder.json").write_text(json.dumps(rungs))
    return out


@pytest.fixture(scope="module")
def ladder(tmp_path_factory) -> Path:
    """A ladder with its report. Read it only: all tests share it."""
    out = made_ladder(tmp_path_factory.mktemp("ladder"))
    report = out / "report"
    scaling_page.write(analyse(read_scaling([out], report), bootstrap=20), report)
    return out


@pytest.fixture
def page(ladder) -> str:
    return (ladder / "report" / "report.html").read_text()


@pytest.fixture
def twin(ladder) -> dict[str, Any]:
    return json.loads((ladder / "report" / "report.json").read_text())


def analysed(records: list[ScalingRecord], folder: Path, bootstrap: int = 0) -> Analysis:
    append(folder / "records.jsonl", records)
    return analyse(read_scaling([folder], folder / "report"), bootstrap)


def rendered(found: Analysis) -> str:
    return scaling_page.render(found, draw(found))


def section(found: Analysis, name: str) -> str:
    drawer = '<details class="drawer"'
    return rendered(found).partition(f'{drawer} id="{name}">')[2].partition(drawer)[0]


def laws(twin: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["curve"], one["against"]): one for one in twin["laws"]}


def test_the_page_of_a_ladder(ladder, page, twin):
    assert "default-src 'none'" in page and "<script" not in page and 'src="http' not in page
    assert page.count("<svg") == 9  # two quantities: compute, two axes, residuals; one relation
    drawn = {path.stem for path in (ladder / "report").glob("*.png")}
    assert {"compute-depth-loss", "along-images-depth-loss", "residuals-depth-loss"} <= drawn
    assert (ladder / "report" / "records.csv").read_text().count("\n") == 11
    joint = laws(twin)["depth loss", "parameters and images"]["fit"]
    for name in ("alpha", "beta"):
        lo, hi = joint["intervals"][name]
        assert joint["params"][name] == pytest.approx(TRUTH[name], abs=0.05) and lo < hi
    assert joint["verdict"] == "law" and joint["r2"] > 0.999
    assert "10 x the largest" in page
    (relation,) = twin["relations"]
    assert relation["hook"] == "loss-metric" and relation["r2"] > 0.999


def test_forecasts_are_scored_by_records_that_came_later(page, twin):
    loss, metric = twin["forecasts"]
    assert (loss["run"], loss["metric"], metric["metric"]) == ("big", "loss", "abs_rel")
    assert loss["outcome"] == pytest.approx(law(BIG.params_active, BIG.images_seen))
    assert loss["inside"] and abs(loss["error"]) < 0.02 and loss["measured"] == AFTER
    assert twin["waiting"] == []
    assert "✓ inside" in page and "2 of 2 outcomes inside" in page and "2999-01-01" in page


def test_failed_rungs_and_learning_rates_are_listed(page, twin):
    rungs = page[page.index('id="rungs"') :]
    assert rungs.index("train/b") < rungs.index("train/a")
    assert "the loss is not finite" in rungs and "✗ failed" in rungs
    assert "<b>rungs</b> 1 of 5 failed." in " ".join(page.split())
    (tuned,) = twin["tuned"]
    assert (tuned["name"], tuned["kept"]) == ("dit-s", 2.0)
    assert "x 2, the edge of what was tried" in rungs


def test_a_forecast_for_a_chosen_run_is_made_once_and_waits(tmp_path):
    append(tmp_path / "records.jsonl", grid())
    out = tmp_path / "report"
    found = read_scaling([tmp_path], out)
    made, notes = new_forecasts(found, BIG, out)
    assert [one.metric for one in made] == ["loss", "abs_rel"] and notes == []
    before = (out / FILE_NAME).read_text()
    made, notes = new_forecasts(found, BIG, out)
    assert made == [] and "that forecast stands" in notes[0]
    assert (out / FILE_NAME).read_text() == before
    later = read_scaling([tmp_path], out)
    assert [one.run for one in later.waiting] == ["big", "big"]
    assert "waiting" in section(analyse(later, bootstrap=0), "forecasts")
    assert forecast_summary([], later.waiting) == "2 forecasts waiting for an outcome"
    with pytest.raises(UserError, match="is among the records"):
        new_forecasts(found, ForecastTarget("old", SIZES[0], IMAGES[0]), out)


def test_a_forecast_needs_points(tmp_path):
    append(tmp_path / "records.jsonl", grid()[:3])
    found = read_scaling([tmp_path], tmp_path / "report")
    with pytest.raises(UserError, match="3 records are too few points"):
        new_forecasts(found, BIG, tmp_path / "report")


def test_a_law_that_is_not_clean_is_said_to_be_none(tmp_path):
    found = analysed(scattered(seed=3)[:9], tmp_path)
    told = section(found, "fitted-laws")
    assert "Not a clean law" in told and "✓ law" not in told
    assert all("ot a clean" in line for line in summary(found))
    assert not any(one["clean"] for one in to_dict(found)["laws"])


def tuned_records(seed: int = 0) -> Iterator[ScalingRecord]:
    """Pretrained models, and each of them fine-tuned on five amounts: 1 - delta1 has an elbow."""
    rng = np.random.default_rng(seed)
    for one in grid(lambda n, d: 1.5 + law(n, d), task="image", metric="energy"):
        assert one.loss is not None
        yield one
        for samples in (16, 64, 256, 1024, 4096):
            elbow = 1.55 + 0.03 * math.log(samples)
            score = 0.3 + max(0.0, elbow - one.loss) + 0.003 * rng.standard_normal()
            tuned = dict(
                run=f"{one.run}-{samples}",
                config=f"{one.run}-{samples}",
                parent=one.run,
                inherited_flops=one.training_flops,
                training_flops=1e9,
                samples=samples,
            )
            n, loss = one.params_active, 0.1 + 0.5 * (one.loss - 1.4)
            yield record(n, 500, loss, score, metric="delta1", lower_is_better=False, **tuned)
            yield record(n, 500, loss, 0.4 * one.loss - 0.3, **tuned)


def test_fine_tuning_pays_for_its_pretraining_and_shows_emergence(tmp_path):
    found = analysed(list(tuned_records()), tmp_path)
    loss = next(one for one in found.headline if one.curve.name == "depth loss")
    assert loss.joint is None and loss.series == ()  # equal size and images, unequal pretraining
    assert loss.curve.compute.min() == 6.0 * SIZES[0] * IMAGES[0] + 1e9
    assert {one.name for one in found.relations} == {"loss-metric", "pretrain-finetune"}
    (elbow,) = found.emergences
    assert elbow.name == "depth δ1, ddim 4 x 2" and elbow.fit.verdict == "law"
    assert float(elbow.fit.elbow(1024)) == pytest.approx(1.55 + 0.03 * math.log(1024), abs=0.02)
    assert elbow.judged is not None and elbow.judged.verdict == "the metric's"
    told = section(found, "emergence")
    assert "only the thresholded one jumps" in told and "With 5 samples" in told


def test_the_loss_before_fine_tuning_is_that_of_the_checkpoint_it_started_from():
    early, late = (record(10, d, loss, None, run="p") for d, loss in ((100, 0.9), (200, 0.5)))
    tuned = record(10, 5, 0.3, 0.1, parent="p", inherited_flops=early.training_flops)
    assert loss_before(tuned, [early, late]) == 0.9
    assert loss_before(record(10, 5, 0.3, 0.1, parent="p"), [early, late]) == 0.5
    assert loss_before(record(10, 5, 0.3, 0.1, parent="gone"), [early, late]) is None


def test_a_single_record_has_a_page_too(tmp_path):
    found = analysed(grid()[:1], tmp_path)
    page = rendered(found)
    assert "too few points for a law" in page and page.count("<svg") == 2
    assert to_dict(found)["laws"] == []


def test_names_from_records_stay_text(tmp_path):
    changed = dict(task=HOSTILE, sampler=HOSTILE, dataset=HOSTILE)
    found = analysed(grid(**changed)[:2], tmp_path)
    assert "<img src=x" not in rendered(found)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="No records found under .*empty"):
        read_scaling([tmp_path / "empty"], tmp_path / "out")
    ladder = made_ladder(tmp_path / "ladder")
    (ladder / "ladder.json").write_text('[{"name": "a"}]')
    with pytest.raises(DataFormatError, match=r"ladder.json: not the state of a ladder.*'state'"):
        read_scaling([ladder], tmp_path / "out")


def test_a_file_named_twice_counts_once(ladder):
    once, twice = (read_scaling([ladder] * k, ladder / "report") for k in (1, 2))
    assert len(once.records) == len(twice.records) == 10
    assert len(once.rungs) == len(twice.rungs) == 5
    assert len(once.settled) == len(twice.settled) == 2
