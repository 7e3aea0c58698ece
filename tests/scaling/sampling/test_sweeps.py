"""sweep.csv: what is written reads back, and what is no sweep is refused by name."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest

from stepsight.errors import DataFormatError, UserError
from stepsight.scaling.sampling.sweeps import (
    COLUMNS,
    REQUIRED,
    Family,
    differing,
    left_out,
    main_metrics,
    main_of,
    read_sweep,
    select,
    write_sweep,
)

INTERFACE = (
    "task,sampler,spacing,schedule,nfe,members,total_calls,gflop_per_image,ms_per_image,"
    "peak_gb,metric,value,lo,hi"
)


def test_round_trip_to_the_last_bit(tmp_path, cell):
    known = dict(
        checkpoint="runs/a b,c",
        size="48x64",
        merge="median",
        protocol="depth@1",
        images=9,
        temperature=0.1,
    )
    cells = [cell(value=0.1 + 0.2, lo=1 / 3, hi=math.inf), cell(nfe=7, **known)]
    write_sweep(tmp_path / "sweep.csv", cells)
    assert read_sweep(tmp_path / "sweep.csv") == cells
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_the_interface_comes_first_and_is_enough(tmp_path, cell):
    assert ",".join(REQUIRED) == INTERFACE and COLUMNS[: len(REQUIRED)] == REQUIRED
    path = tmp_path / "sweep.csv"
    path.write_text(
        f"{INTERFACE},note\ndepth,ddim,trailing,trained,4,2,8,1.5,20,,abs_rel,.2,,,hm\n"
    )
    (one,) = read_sweep(path)
    assert (one.nfe, one.members, one.value, one.images, one.checkpoint) == (4, 2, 0.2, None, "")
    assert math.isnan(one.peak_gb) and math.isnan(one.lo)


def test_unknown_numbers_stay_unknown(tmp_path, cell):
    write_sweep(tmp_path / "sweep.csv", [cell(value=math.nan, ms_per_image=math.nan)])
    (one,) = read_sweep(tmp_path / "sweep.csv")
    assert math.isnan(one.value) and math.isnan(one.ms_per_image)


def test_errors_point_one_way(cell):
    assert cell(metric="abs_rel", value=0.2).error == 0.2
    assert cell(metric="iou", value=0.7).error == pytest.approx(0.3)


def test_refusals_name_the_place(tmp_path, cell):
    path = tmp_path / "sweep.csv"
    with pytest.raises(UserError, match="does not exist"):
        read_sweep(path)
    path.write_text("task,nfe\ndepth,1\n")
    with pytest.raises(DataFormatError, match="lacks sampler"):
        read_sweep(path)
    for column, text, reason in (
        ("nfe", "four", "nfe cannot be 'four'"),
        ("members", "", "empty"),
        ("total_calls", "-5", "total_calls cannot be -5, below 1"),
        ("nfe", "0", "nfe cannot be 0"),
        ("ms_per_image", "-1.5", "ms_per_image cannot be -1.5"),
        ("gflop_per_image", "-1", "gflop_per_image cannot be -1"),
        ("temperature", "-1", "temperature cannot be -1"),
        ("gflop_per_image", "0", "gflop_per_image cannot be 0: costs are above 0"),
        ("latency_ms", "0.0", "latency_ms cannot be 0.0: costs are above 0"),
        ("total_calls", "9", "total_calls is 9, and nfe x members is 8"),
        ("lo", "0.25", "abs_rel 0.2 with lo 0.25 and hi 0.21: lo is above hi"),
        ("lo", "", "an interval has two ends"),
        ("value", "0.1", "abs_rel 0.1 with lo 0.19 and hi 0.21: value lies far outside"),
    ):
        write_sweep(path, [cell()])
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        rows[0][column] = text
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        with pytest.raises(DataFormatError, match=f"sweep.csv:2: .*{reason}"):
            read_sweep(path)


def test_selection(cell):
    cells = [cell(), cell(metric="delta1"), cell(task="flow", metric="epe", value=math.nan)]
    assert select(cells, "depth", "delta1") == cells[1:2]
    with pytest.raises(UserError, match="Did you mean 'depth'"):
        select(cells, "dept", "abs_rel")
    with pytest.raises(UserError, match="no 'rmse' of depth"):
        select(cells, "depth", "rmse")
    with pytest.raises(UserError, match="no 'epe' of flow"):
        select(cells, "flow", "epe")
    with pytest.raises(UserError, match="2 data sets or protocols"):
        select([cells[0], replace(cells[0], protocol="other")], "depth", "abs_rel")


def test_main_metrics_are_those_measured(cell):
    cells = [cell(metric="rmse"), cell(metric="delta1"), cell(metric="abs_rel")]
    assert main_of(cells, "depth") == "abs_rel"
    assert (
        main_of([cell(metric="abs_rel", value=math.nan), cell(metric="delta1")], "depth")
        == "delta1"
    )
    assert main_metrics([*cells, cell(task="flow", metric="epe")]) == {
        "depth": "abs_rel",
        "flow": "epe",
    }
    assert main_of([], "depth") == ""


def test_a_setting_given_twice_is_refused_by_its_lines(tmp_path, cell):
    path = tmp_path / "sweep.csv"
    write_sweep(path, [cell(value=0.233), cell(metric="delta1"), cell(value=0.1)])
    with pytest.raises(DataFormatError, match=r"sweep.csv:2 and .*sweep.csv:4 both give abs_rel"):
        read_sweep(path)
    others = [cell(temperature=0.0), cell(views="mirror"), cell(nfe=8), cell(protocol="other")]
    write_sweep(path, [cell(), *others])
    assert len(read_sweep(path)) == 5


def test_rows_without_a_number_are_told_by_their_lines(tmp_path, cell):
    empty = {"value": math.nan, "lo": math.nan, "hi": math.nan}
    cells = [cell(), cell(nfe=8, **empty), cell(nfe=8, metric="delta1", **empty)]
    write_sweep(tmp_path / "sweep.csv", [*cells, cell(nfe=16, latency_ms=math.nan)])
    cells = read_sweep(tmp_path / "sweep.csv")
    nowhere, unpriced = left_out(cells, "depth", "abs_rel", "latency_ms")
    assert nowhere == f"{tmp_path / 'sweep.csv'}:3 (value is no number)"
    assert unpriced.endswith("sweep.csv:5 (latency_ms is no number)")
    assert left_out(cells, "depth", "abs_rel", "total_calls") == [nowhere]
    assert len(select(cells, "depth", "abs_rel")) == 2


@pytest.mark.parametrize(
    "dearer, said",
    [
        ({"gflop_per_image": 4.0}, "gflop_per_image is 4 for 8 calls and 4 for 16. More calls"),
        ({"ms_per_image": 0.035}, "ms_per_image is 19 for 8 calls and 0.035 for 16. .*units"),
        ({"latency_ms": 55000.0}, "latency_ms is 31 for 8 calls and 55000 for 16. .*units"),
    ],
)
def test_costs_that_do_not_grow_with_calls_are_refused_by_their_lines(tmp_path, cell, dearer, said):
    path = tmp_path / "sweep.csv"
    write_sweep(path, [cell(), cell(nfe=8, **dearer)])
    with pytest.raises(DataFormatError, match=f"sweep.csv:2 and .*sweep.csv:3: {said}"):
        read_sweep(path)
    write_sweep(path, [cell(), cell(nfe=8, sampler="euler", **dearer)])
    assert len(read_sweep(path)) == 2  # another sampler may cost less


def test_early_files_read_as_what_they_were(tmp_path, cell):
    """Without columns of the start: noise as it was trained on, and the picture as it is."""
    path = tmp_path / "sweep.csv"
    path.write_text(f"{INTERFACE}\ndepth,ddim,trailing,trained,4,2,8,1.5,20,1,abs_rel,.2,.1,.3\n")
    (one,) = read_sweep(path)
    assert (one.temperature, one.views) == (1.0, "none")
    assert str(one.family) == "ddim trailing trained T 1"


def test_families_as_people_read_them(cell):
    cold, walked = cell(temperature=0.0).family, cell(temperature=0.5, views="mirror").family
    assert str(cold) == "ddim trailing trained T 0"
    assert differing([cold, walked]) == {cold: "T 0", walked: "T 0.5, mirror views"}
    third = cell(temperature=1 / 3).family
    assert float(third.temperature) == 1 / 3
    assert Family.of({"sampler": "ddim", "temperature": 0.5, "views": "mirror"}).parts[-2:] == (
        "T 0.5",
        "mirror views",
    )
    assert Family.of(walked._asdict()) == walked
