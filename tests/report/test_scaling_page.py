"""The page of a scaling analysis, on records of laws that are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepsight.errors import DataFormatError, UserError
from stepsight.report.scaling import page as scaling_page
from stepsight.report.scaling.page import Analysis
from stepsight.report.scaling.tables import emergence_text, forecast_section, law_section
from stepsight.scaling.analysis.curves import curves, headline
from stepsight.scaling.analysis.emergence import loss_before
from stepsight.scaling.analysis.folder import new_forecasts, read_scaling
from stepsight.scaling.analysis.laws import laws_of
from stepsight.scaling.analysis.words import (
    briefly,
    clean,
    count,
    forecast_summary,
    judgement,
    span,
)
from stepsight.scaling.ladders.forecast import FILE_NAME, Target, append_forecasts, forecasts
from stepsight.scaling.records import ScalingRecord, append

SIZES = (100_000, 1_000_000, 10_000_000)
IMAGES = (3_000, 30_000, 300_000)
TRUTH = {"E": 0.05, "A": 60.0, "alpha": 0.5, "B": 20.0, "beta": 0.45}
BEFORE, AFTER = "2026-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"
BIG = Target("big", 20_000_000, 500_000)
HOSTILE = "<img src=x onerror=1>"
Law = Callable[[float, float], float]


def law(n: float, d: float) -> float:
    t = TRUTH
    return t["E"] + t["A"] * n ** -t["alpha"] + t["B"] * d ** -t["beta"]


def record(n: int, d: int, loss: float | None, value: float | None, **changed: Any):
    fields: dict[str, Any] = dict(
        run=f"{n}-{d}",
        config=f"{n}-{d}",
        revision="",
        seed=0,
        model=f"dit-{n}",
        params_total=n,
        params_active=n,
        training_flops=6.0 * n * d,
        images_seen=d,
        task="depth",
        dataset="scenes",
        protocol="affine@1",
        sampler="ddim",
        nfe=4,
        members=2,
        inference_flops=1e9,
        metric="abs_rel",
        value=value,
        images=64,
        loss=loss,
        samples=1000,
        size="16x16",
        time=BEFORE,
    )
    return ScalingRecord(**(fields | changed))


def grid(loss_of: Law = law, noise: float = 0.003, seed: int = 0, **changed: Any):
    """A record for each size and amount; the metric is 0.8 loss - 0.01."""
    rng = np.random.default_rng(seed)
    found = []
    for n in SIZES:
        for d in IMAGES:
            loss = loss_of(n, d) * math.exp(noise * rng.standard_normal())
            found.append(record(n, d, loss, 0.8 * loss - 0.01, **changed))
    return found


def scattered(seed: int) -> list[ScalingRecord]:
    """Losses that training does not change."""
    return grid(lambda n, d: 0.3, noise=0.1, seed=seed)


def rung(name: str, state: str = "done", why: str = "", factor: float = 1.0) -> dict[str, Any]:
    settings = {"training.images": 100}
    row = {"name": name, "state": state, "seconds": 75.0, "why": why, "settings": settings}
    return row | {"factor": factor, "parent": ""}


def made_ladder(out: Path) -> Path:
    """A folder with records, a forecast and its outcome, a failed rung, and tuned rates."""
    found = grid()
    append(out / "train" / "records.jsonl", found)
    append_forecasts(out / FILE_NAME, forecasts(found, BIG, bootstrap=20))
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
    scaling_page.write(scaling_page.analyse(read_scaling([out], report), bootstrap=20), report)
    return out


@pytest.fixture
def page(ladder) -> str:
    return (ladder / "report" / "report.html").read_text()


@pytest.fixture
def twin(ladder) -> dict[str, Any]:
    return json.loads((ladder / "report" / "report.json").read_text())


def analysed(records: list[ScalingRecord], folder: Path, bootstrap: int = 0) -> Analysis:
    append(folder / "records.jsonl", records)
    return scaling_page.analyse(read_scaling([folder], folder / "report"), bootstrap)


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
    assert "1 of 5 rungs failed" in page
    (tuned,) = twin["tuned"]
    assert (tuned["name"], tuned["kept"]) == ("dit-s", 2.0)
    assert "x 2, the edge of what was tried" in rungs


def test_a_forecast_for_a_chosen_run_is_made_once_and_waits(tmp_path):
    append(tmp_path / "records.jsonl", grid())
    out = tmp_path / "report"
    found = read_scaling([tmp_path], out)
    made, notes = new_forecasts(found, BIG, out, bootstrap=20)
    assert [one.metric for one in made] == ["loss", "abs_rel"] and notes == []
    before = (out / FILE_NAME).read_text()
    made, notes = new_forecasts(found, BIG, out, bootstrap=20)
    assert made == [] and "that forecast stands" in notes[0]
    assert (out / FILE_NAME).read_text() == before
    later = read_scaling([tmp_path], out)
    assert [one.run for one in later.waiting] == ["big", "big"]
    assert "waiting" in forecast_section(later)
    assert forecast_summary([], later.waiting) == "2 forecasts waiting for an outcome"
    with pytest.raises(UserError, match="is among the records"):
        new_forecasts(found, Target("old", SIZES[0], IMAGES[0]), out, bootstrap=0)


def test_a_forecast_needs_points(tmp_path):
    append(tmp_path / "records.jsonl", grid()[:3])
    found = read_scaling([tmp_path], tmp_path / "report")
    with pytest.raises(UserError, match="3 records are too few points"):
        new_forecasts(found, BIG, tmp_path / "report", bootstrap=20)


def test_a_law_that_is_not_clean_is_said_to_be_none(tmp_path):
    found = analysed(scattered(seed=3)[:9], tmp_path)
    told = law_section(found.headline, found.others)
    assert "Not a clean law" in told and "✓ law" not in told
    assert all("ot a clean" in line for line in scaling_page.summary(found))
    assert not any(one["clean"] for one in scaling_page.to_dict(found)["laws"])


@pytest.mark.parametrize("seed", range(3))
def test_the_envelope_of_noise_is_never_a_clean_law(seed):
    (loss, _), _ = curves(scattered(seed))
    envelope = laws_of(loss, bootstrap=0).envelope
    assert envelope is None or not clean(envelope.fit)


def test_a_clean_law_is_called_clean():
    """Without noise and with one term, the envelope over four decades is a power law."""
    found = [record(n, 1000, 5 * n**-0.2, None) for n in np.geomspace(1e4, 1e8, 9).astype(int)]
    ((curve,), _) = curves(found)
    done = laws_of(curve, bootstrap=20)
    assert done.joint is None and done.envelope is not None
    fit = done.envelope.fit
    assert clean(fit) and fit.params["a"] == pytest.approx(0.2, abs=1e-3)
    assert judgement(fit).startswith("A clean law (R² 1.000")
    assert briefly(fit).startswith("y = A x^-a, a = 0.200 [0.200, 0.200]. A clean law")
    assert [one.against for one in done.laws] == ["training compute", "parameters at 1k images"]


def test_curves_keep_apart_what_no_law_goes_through():
    small, large = grid(), grid(size="32x32", run="wide", config="wide")
    names = [one.name for one in curves(small + large)[0]]
    assert "depth loss, 16x16" in names and "depth loss, 32x32" in names
    scenes, real = grid(), grid(dataset="nyu")
    found, _ = curves(scenes + real)
    assert [one.name for one in found] == [
        "depth loss",  # of the checkpoints, whatever they were measured on
        "depth AbsRel, ddim 4 x 2, scenes",
        "depth AbsRel, ddim 4 x 2, nyu",
    ]


def test_runs_with_fewer_samples_are_left_out_and_told():
    few = grid(samples=10, run="few", config="few")
    found, notes = curves(grid() + few)
    assert {len(one.errors) for one in found} == {9}
    assert notes[0] == "depth loss: left out 9 points with fewer distinct samples"


def test_the_headline_is_the_main_metric_in_the_fullest_setting():
    rare = [one for one in grid(nfe=1, members=1)][:4]
    other = grid(metric="delta1", lower_is_better=False)
    names = [one.name for one in headline(curves(grid() + rare + other)[0])]
    assert names == ["depth loss", "depth AbsRel, ddim 4 x 2"]


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
    assert {one.hook for one in found.relations} == {"loss-metric", "pretrain-finetune"}
    (elbow,) = found.emergences
    assert elbow.name == "depth δ1, ddim 4 x 2" and elbow.fit.verdict == "law"
    assert float(elbow.fit.elbow(1024)) == pytest.approx(1.55 + 0.03 * math.log(1024), abs=0.02)
    assert elbow.judged is not None and elbow.judged.verdict == "the metric's"
    assert "only the thresholded one jumps" in emergence_text(elbow)
    assert "With 5 samples" in emergence_text(elbow)


def test_the_loss_before_fine_tuning_is_that_of_the_checkpoint_it_started_from():
    early, late = (record(10, d, loss, None, run="p") for d, loss in ((100, 0.9), (200, 0.5)))
    tuned = record(10, 5, 0.3, 0.1, parent="p", inherited_flops=early.training_flops)
    assert loss_before(tuned, [early, late]) == 0.9
    assert loss_before(record(10, 5, 0.3, 0.1, parent="p"), [early, late]) == 0.5
    assert loss_before(record(10, 5, 0.3, 0.1, parent="gone"), [early, late]) is None


def test_a_single_record_has_a_page_too(tmp_path):
    found = analysed(grid()[:1], tmp_path)
    page = scaling_page.render(found, scaling_page.draw(found))
    assert "too few points for a law" in page and page.count("<svg") == 2
    assert scaling_page.to_dict(found)["laws"] == []


def test_names_from_records_stay_text(tmp_path):
    changed = dict(task=HOSTILE, sampler=HOSTILE, dataset=HOSTILE)
    found = analysed(grid(**changed)[:2], tmp_path)
    assert "<img src=x" not in scaling_page.render(found, scaling_page.draw(found))


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


def test_numbers_in_words():
    assert [count(x) for x in (999, 4096, 16_384, 1_612_345, 2e9)] == [
        *("999", "4.1k", "16.4k", "1.61M", "2G")
    ]
    assert span([4096, 65_536, 8192]) == "4.1k to 65.5k" and span([7.0]) == "7"
