"""The page of a sweep: made of the files of its folder alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stepsight.report.sweep import page as sweep_page
from stepsight.report.sweep.folder import fullest, read_sweep_folder
from stepsight.report.sweep.page import main_sentences
from stepsight.scaling.sampling.claims import Claim
from stepsight.scaling.sampling.sweeps import REQUIRED, Cell, differing, write_sweep


def drawer(folder: Path, name: str) -> str:
    """A drawer of the page of a folder; "" where it is left out."""
    page = " ".join(sweep_page.render(read_sweep_folder(folder)).split())
    return page.partition(f'<details class="drawer" id="{name}">')[2].partition(
        '<details class="drawer"'
    )[0]


SHARED: dict[str, Any] = {"spacing": "trailing", "schedule": "cosine", "metric": "abs_rel"}


def cell(nfe: int, members: int, sampler: str = "ddim", task: str = "depth", **more) -> Cell:
    calls, value = nfe * members, more.get("value", 0.2 - 0.01 * members + 0.001 * nfe)
    cost = {"gflop_per_image": 0.3 * calls, "ms_per_image": 5.0 * calls, "peak_gb": 1.0}
    found: dict[str, Any] = {"task": task, "sampler": sampler, "value": value}
    found |= {"lo": value, "hi": value}
    setting = {"nfe": nfe, "members": members, "total_calls": calls}
    return Cell(**(found | SHARED | cost | setting | more))


def grid(**more) -> list[Cell]:
    return [cell(nfe, members, **more) for nfe in (1, 4) for members in (1, 4)]


def test_a_folder_gets_its_figures_and_a_page_that_needs_no_other_file(tmp_path):
    write_sweep(tmp_path / "sweep.csv", grid() + grid(task="flow", metric="epe"))
    page = sweep_page.write(tmp_path).read_text()
    for name in ("pareto-depth", "heat-depth", "pareto-flow", "heat-flow"):
        assert (tmp_path / f"{name}.png").is_file()
    assert page.count("<svg") == 1 + 4 and "trategies" not in page and "<script" not in page
    assert "default-src 'none'" in page


def test_within_a_run_the_report_is_the_page(tmp_path):
    write_sweep(tmp_path / "sweep.csv", grid())
    assert sweep_page.write(tmp_path, page=False) == tmp_path
    assert (tmp_path / "pareto-depth.png").is_file() and not (tmp_path / "sweep.html").exists()


def test_a_table_with_the_columns_of_the_interface_is_enough(tmp_path):
    lines = [",".join(str(getattr(one, name)) for name in REQUIRED) for one in grid()]
    (tmp_path / "sweep.csv").write_text("\n".join([",".join(REQUIRED), *lines]) + "\n")
    assert "1 NFE x 4 members" in sweep_page.write(tmp_path).read_text()


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    assert "have not been swept" in sweep_page.write(tmp_path).read_text()


def test_the_page_answers_before_it_is_opened(tmp_path):
    points = [cell(1, 1, value=0.2), cell(4, 1, value=0.18)]
    write_sweep(tmp_path / "sweep.csv", points)
    gained = [asdict(points[0]), asdict(points[1]) | {"gain_lo": 0.05, "gain_hi": 0.15}]
    (tmp_path / "frontier.json").write_text(json.dumps({"depth": {"points": gained}}))
    (tmp_path / "claims.json").write_text(json.dumps([claim(verdict="fails"), claim()]))
    page = sweep_page.render(read_sweep_folder(tmp_path))
    first = page.partition("<main>")[2].partition("<details")[0]
    assert "AbsRel 0.200 with 1 call. 4 calls instead of 1 cut the error by 10.0%" in first
    assert first.count("<svg") == 1 and "runs/" not in page
    answers = page.split('<span class="answer">')[1:]
    told = [text.partition("<")[0] for text in answers]
    assert told[:2] == ["lowest error, NFE x members: depth 4x1", "depth up to 4 calls"]
    assert told[-1] == "holds: 1, fails: 1"


def test_what_was_not_measured_is_left_out(tmp_path):
    cells = [*grid(), *(replace(one, task="flow", value=float("nan")) for one in grid())]
    write_sweep(tmp_path / "sweep.csv", cells)
    sweep = read_sweep_folder(tmp_path)
    assert sweep.tasks == ["depth"] and len(sweep.main("depth")) == 4


def test_the_fullest_family_and_what_tells_families_apart():
    few, many = [cell(2, 1, sampler="heun", checkpoint="a")], grid(checkpoint="a")
    family, own = fullest(few + many)
    assert (family.sampler, len(own)) == ("ddim", 4)
    other = few[0].family
    assert differing([family, other]) == {family: "ddim", other: "heun"}
    assert differing([family]) == {family: ""}


def test_budgets_lie_within_what_was_measured(tmp_path):
    write_sweep(tmp_path / "sweep.csv", grid())
    content = drawer(tmp_path, "what-a-budget-buys")
    assert "What a budget buys</h2>" in content
    assert "4 calls" in content and "16 calls" in content and "64 calls" not in content


def test_scores_of_the_uncertainty_stand_beside_the_error(tmp_path):
    beside = [one for one in grid(metric="crps") if one.members > 1]
    write_sweep(tmp_path / "sweep.csv", grid() + beside)
    assert drawer(tmp_path, "uncertainty").count("<svg") == 2
    write_sweep(tmp_path / "sweep.csv", grid())
    assert drawer(tmp_path, "uncertainty") == ""


def test_gains_show_their_intervals_and_luck_is_said(tmp_path):
    cells = [cell(1, 1, value=0.2), cell(1, 4, value=0.19), cell(4, 4, value=0.18)]
    write_sweep(tmp_path / "sweep.csv", cells)
    frontier = drawer(tmp_path, "worth-its-cost")
    assert "+5.0%" in frontier and "Here they are not paired" in frontier
    points = [asdict(one) for one in cells]
    points[1] |= {"gain_lo": -0.01, "gain_hi": 0.11}
    points[2] |= {"gain_lo": 0.02, "gain_hi": 0.09}
    fronts = {"depth": {"metric": "abs_rel", "points": points}}
    (tmp_path / "frontier.json").write_text(json.dumps(fronts))
    content = drawer(tmp_path, "worth-its-cost")
    assert "[-1.0%, +11.0%]" in content and "[+2.0%, +9.0%]" in content
    assert content.count("may be luck</div>") == 1 and "not paired" not in content


def test_rows_without_a_number_are_said_to_be_left_out(tmp_path):
    write_sweep(tmp_path / "sweep.csv", [*grid(), cell(8, 1, value=float("nan"))])
    content = drawer(tmp_path, "worth-its-cost")
    assert "sweep.csv:6 (value is no number)." in content


def claim(**changed) -> dict[str, Any]:
    side = {"nfe": 4, "members": 1, "temperature": 0.0, "views": "none"}
    found: dict[str, Any] = {"task": "depth", "metric": "abs_rel", "averaging": "per image"}
    found |= {"main": True, "statement": "more calls help", "given": "members 1", "n": 64}
    found |= {"cost": 4, "base_cost": 1, "base": side | {"nfe": 1}, "other": side}
    found |= {"value": -0.05, "lo": -0.07, "hi": -0.03, "verdict": "holds", "sentence": "So it is."}
    found |= {"p": 0.001, "p_holm": 0.004}
    return found | {"sampler": "ddim", "spacing": "trailing"} | changed


def shown(tmp_path, *claims) -> str:
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    return drawer(tmp_path, "claims")


def test_the_main_metric_stands_first_and_the_rest_is_folded(tmp_path):
    warm = {"nfe": 8, "members": 8, "temperature": 1.0, "views": "mirror"}
    content = shown(
        tmp_path,
        claim(),
        claim(value=-0.11, other=warm),
        claim(metric="brier", main=False, value=-0.22),
        claim(task="semantic", metric="miou", averaging="pooled", value=0.33, verdict="undecided"),
    )
    first, folded = content.split("<details", 1)
    assert "-5.0%" in first and "[-7.0%, -3.0%]" in first and "1 → 4" in first
    assert "-11.0%" not in first and "-22.0%" not in first
    assert "-11.0%" in folded and "-22.0%" in folded and "pooled over the set" in folded
    assert "✓ holds" in first and "~ undecided" in folded and "1x1 → 4x1" in first


def test_the_main_sentences_are_what_is_not_folded():
    warm = {"nfe": 8, "members": 8, "temperature": 1.0, "views": "mirror"}
    broken = {"verdict": "broken sampler", "sentence": "leading is a broken sampler."}
    every = [claim(), claim(other=warm, sentence="Later."), claim(main=False, sentence="Beside.")]
    every += [claim(**broken), claim(**broken)]
    sentences = main_sentences([Claim.of(row) for row in every])
    assert sentences == [broken["sentence"], "So it is."]


def test_a_broken_sampler_is_one_line_without_effects(tmp_path):
    broken = {"verdict": "broken sampler", "sentence": "leading is a broken sampler."}
    content = shown(tmp_path, claim(), claim(value=-0.3, **broken), claim(value=-0.4, **broken))
    assert content.count("leading is a broken sampler.") == 1
    assert "-30.0%" not in content and "-40.0%" not in content and "-5.0%" in content


def test_claims_of_an_earlier_version_are_not_shown_as_if_they_held(tmp_path):
    early = {"task": "depth", "statement": "both together help", "verdict": "holds"}
    content = shown(tmp_path, early | {"sentence": "Both together help."})
    assert "earlier version" in content and "Both together" not in content
