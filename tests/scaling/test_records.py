"""The ledger: round trips, many runs, and lines that are not what they should be."""

from __future__ import annotations

import csv
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stepsight.errors import DataFormatError, UserError
from stepsight.scaling.records import SCHEMA, append, column, read, to_csv


def test_round_trip_is_exact(tmp_path, record):
    path = tmp_path / "run" / "records.jsonl"
    full = record(loss=0.08125, loss_bins=(0.1, None, 0.3), lo=0.2, hi=0.21, seconds=1 / 3)
    append(path, [record(), full])
    append(path, [record(metric="delta1", lower_is_better=False)])
    records, notes = read(path)
    assert records == [record(), full, record(metric="delta1", lower_is_better=False)]
    assert notes == []


def test_lines_are_flat_json(tmp_path, record):
    append(tmp_path / "r.jsonl", [record(loss_bins=(0.5, 0.25))])
    line = json.loads((tmp_path / "r.jsonl").read_text())
    assert not any(isinstance(value, dict | list) for value in line.values())
    assert line["loss_bin_0"] == 0.5 and line["loss_bin_1"] == 0.25
    assert line["schema"] == SCHEMA


def test_bins_keep_their_order_beyond_ten(tmp_path, record):
    bins = tuple(float(n) for n in range(12))
    append(tmp_path / "r.jsonl", [record(loss_bins=bins)])
    assert read(tmp_path / "r.jsonl").records[0].loss_bins == bins


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_reads_as_not_measured(tmp_path, record, value):
    append(tmp_path / "r.jsonl", [record(value=value, loss_bins=(value,))])
    read_back = read(tmp_path / "r.jsonl").records[0]
    assert read_back.value is None and read_back.loss_bins == (None,)


def test_folders_and_files_of_many_runs_merge(tmp_path, record):
    for run in ("a", "b", "c"):
        append(tmp_path / run / "records.jsonl", [record(run=run)])
    (tmp_path / "a" / "metrics.jsonl").write_text("not a ledger\n")
    records, _ = read(tmp_path / "c", tmp_path, tmp_path / "a" / "records.jsonl")
    assert [r.run for r in records] == ["c", "a", "b"]


def test_copies_of_a_line_count_once(tmp_path, record):
    append(tmp_path / "a.jsonl", [record()])
    append(tmp_path / "b.jsonl", [record(), record(seed=1)])
    records, _ = read(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert records == [record(), record(seed=1)]


def test_a_torn_last_line_is_dropped_with_a_note(tmp_path, record):
    path = tmp_path / "r.jsonl"
    append(path, [record(), record(seed=1)])
    path.write_bytes(path.read_bytes()[:-40])
    records, notes = read(path)
    assert records == [record()]
    assert len(notes) == 1 and f"{path}:2" in notes[0]


@pytest.mark.parametrize("cut", [1, 2, 40, 300])
def test_appending_after_a_crash_loses_no_complete_record(tmp_path, record, cut):
    path = tmp_path / "r.jsonl"
    append(path, [record(), record(seed=1)])
    path.write_bytes(path.read_bytes()[:-cut])
    append(path, [record(seed=2)])
    survivors = [0, 1, 2] if cut == 1 else [0, 2]
    assert [r.seed for r in read(path).records] == survivors


def test_concurrent_writers_do_not_interleave(tmp_path, record):
    path = tmp_path / "r.jsonl"
    batches = [[record(seed=100 * n + k) for k in range(20)] for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda batch: append(path, batch), batches))
    records, notes = read(path)
    assert sorted(r.seed for r in records) == sorted(r.seed for batch in batches for r in batch)
    assert notes == []


@pytest.mark.parametrize(
    "line, reason",
    [
        ("nonsense", "not a JSON line"),
        ('{"a": }', "not a JSON line"),
        ("[1, 2]", "JSON object"),
        ('{"run": "a"}', "schema"),
        (f'{{"schema": {SCHEMA}, "run": "a"}}', "lacks"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path, record, line, reason):
    path = tmp_path / "r.jsonl"
    append(path, [record()])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataFormatError, match=reason) as caught:
        read(path)
    assert f"{path}:2" in str(caught.value)


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"nfe": "8"}, "nfe cannot be"),
        ({"seed": True}, "seed cannot be"),
        ({"task": None}, "task cannot be"),
        ({"loss_bin_0": "low"}, "loss_bin_0 cannot be"),
        ({"metrik": 1}, "unknown field 'metrik'. Did you mean 'metric'"),
    ],
)
def test_wrong_fields_are_refused(tmp_path, record, changed, reason):
    (tmp_path / "r.jsonl").write_text(json.dumps(record().flat() | changed) + "\n")
    with pytest.raises(DataFormatError, match=reason.replace("?", r"\?")):
        read(tmp_path / "r.jsonl")


def test_a_newer_schema_is_refused(tmp_path, record):
    row = record().flat() | {"schema": SCHEMA + 1, "new": 1}
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="Upgrade stepsight"):
        read(tmp_path / "r.jsonl")


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nowhere")


def test_columns_are_numeric(record):
    records = [record(loss=0.5, loss_bins=(1.0,)), record()]
    np.testing.assert_array_equal(column(records, "loss"), [0.5, np.nan])
    np.testing.assert_array_equal(column(records, "loss_bin_0"), [1.0, np.nan])
    with pytest.raises(UserError, match="Did you mean 'training_flops'"):
        column(records, "training_flop")
    with pytest.raises(UserError, match="no numeric column 'task'"):
        column(records, "task")


def test_csv_holds_the_union_of_columns(tmp_path, record):
    to_csv(tmp_path / "t.csv", [record(), record(loss_bins=(0.5,), value=0.1)])
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows] == ["0.206", "0.1"]
    assert [row["loss_bin_0"] for row in rows] == ["", "0.5"]
    assert rows[0]["lo"] == ""


def test_an_evaluation_that_was_resumed_adds_its_records_once(tmp_path, record):
    path = tmp_path / "r.jsonl"
    append(path, [record(seconds=0.1, time="2026-01-01"), record(metric="rmse")])
    append(path, [record(seconds=0.2, time="2026-01-02"), record(metric="rmse"), record(nfe=16)])
    append(path, [record(seconds=0.2, value=0.3)])
    kept = [record(seconds=0.1, time="2026-01-01"), record(metric="rmse"), record(nfe=16)]
    records, notes = read(path)
    assert records == [*kept, record(seconds=0.2, value=0.3)] and notes == []


def test_lines_that_an_earlier_version_repeated_count_once(tmp_path, record):
    path = tmp_path / "r.jsonl"
    rows = [record(time=f"2026-01-0{day}", seconds=day / 7).flat() for day in (1, 2, 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    records, notes = read(path, path)
    assert [(r.time, r.seconds) for r in records] == [("2026-01-01", 1 / 7)]
    assert notes == [f"{path}: 2 lines repeat an evaluation, and are left out"]


@pytest.mark.parametrize("rest", ['{"run": "b", "nfe"', "\0\0\0\0", '{"a": {"b": 1}'])
def test_what_a_crash_left_of_a_line_is_removed(tmp_path, record, rest):
    path = tmp_path / "r.jsonl"
    append(path, [record()])
    with path.open("a") as file:
        file.write(rest)
    append(path, [record(seed=1)])
    assert read(path) == ([record(), record(seed=1)], [])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"value": 10**400}, "value cannot be 1000"),
        ({"nfe": 2**70}, "nfe cannot be"),
        ({"task": "\ud800"}, "task cannot be"),
    ],
)
def test_what_no_array_and_no_file_can_hold_is_refused(tmp_path, record, changed, reason):
    (tmp_path / "r.jsonl").write_text(json.dumps(record().flat() | changed) + "\n")
    with pytest.raises(DataFormatError, match=reason):
        read(tmp_path / "r.jsonl")


@pytest.mark.parametrize("line", ["[" * 100_000, "9" * 10_000])
def test_lines_that_no_parser_takes_are_refused(tmp_path, line):
    (tmp_path / "r.jsonl").write_text(line + "\n")
    with pytest.raises(DataFormatError, match="r.jsonl:1: not a JSON line"):
        read(tmp_path / "r.jsonl")
