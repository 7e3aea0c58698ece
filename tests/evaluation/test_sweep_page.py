"""The page of a sweep: made of the files of its folder alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stepsight.evaluation import sweep_page
from stepsight.evaluation.sweep_folder import differing, fullest, read_sweep_folder
from stepsight.scaling.sampling.sweeps import REQUIRED, Cell, write_sweep

SHARED: dict[str, Any] = {"spacing": "trailing", "schedule": "cosine", "metric": "abs_rel"}


def cell(nfe: int, members: int, sampler: str = "ddim", task: str = "depth", **more) -> Cell:
    calls, value = nfe * members, 0.2 - 0.01 * members + 0.001 * nfe
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
    assert page.count("<svg") == 4 and "Strategies" not in page and "<script" not in page
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
    title, content = sweep_page.sections(read_sweep_folder(tmp_path))["Budget"]
    assert "budget" in title
    assert "4nfe" in content and "16nfe" in content and "64nfe" not in content


def test_scores_of_the_uncertainty_stand_beside_the_error(tmp_path):
    beside = [one for one in grid(metric="crps") if one.members > 1]
    write_sweep(tmp_path / "sweep.csv", grid() + beside)
    sections = sweep_page.sections(read_sweep_folder(tmp_path))
    assert sections["Uncertainty"][1].count("<svg") == 1
    write_sweep(tmp_path / "sweep.csv", grid())
    assert sweep_page.sections(read_sweep_folder(tmp_path))["Uncertainty"][1] == ""
