"""The comparisons with others' code: every importer has one, the page is theirs, and what is above
its bar or not there is told."""

from __future__ import annotations

import json

import pytest
import torch

from conformance import __main__ as command
from conformance.rows import ROWS, Agreement, Row, all_rows, relative, run
from stepsight.conversion.families import FAMILIES
from stepsight.conversion.recognise import FILES
from stepsight.diffusion.config import CONVENTIONS
from stepsight.metrics.protocol import PROTOCOLS

# Read by the code of a family that has stored answers; there are none of these.
UNANSWERED = {"lotus-disparity-g", "lotus-disparity-d", "lotus-normal-d", "genpercept-disparity"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return all_rows()


def test_every_importer_has_an_oracle(rows):
    compared = {row.name for row in rows if row.kind in ("importer", "network", "sampler")}
    for name in {*FAMILIES, *FILES} - UNANSWERED:
        assert any(name.lower() in one.lower() for one in compared), name


def test_every_scheduler_has_an_oracle(rows):
    compared = " ".join(row.name for row in rows if row.kind == "sampler")
    assert all(name in compared for name in CONVENTIONS)


def test_protocols_that_are_compared_are_there(rows):
    named = {row.name.partition(",")[0] for row in rows if row.kind == "protocol"}
    known = {name.partition("-")[0] for name in PROTOCOLS} | set(PROTOCOLS)
    assert named <= known


def test_every_row_says_what_it_compares(rows):
    assert [row.name for row in rows if len(row.says) < 20 or not row.oracle] == []


def test_the_page_is_that_of_the_stored_agreement(rows):
    stored = json.loads(command.STORED.read_text())
    named = {f"{row.kind} {row.name}": row for row in rows}
    assert command.PAGE.read_text() == command.page(named, stored)
    assert named.keys() == stored.keys()
    above = [name for name, kept in stored.items() if kept["worst"] > named[name].bar]
    assert above == []


def test_what_is_not_there_is_skipped_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr("conformance.rows.GOLDEN", tmp_path)
    row = Row("importer", "x", "somebody", 1.0, lambda folder: {}, golden="absent")
    assert row.lacks is not None and "absent" in row.lacks and "STEPSIGHT_GOLDEN" in row.lacks
    row = Row("importer", "x", "somebody", 1.0, lambda: {}, needs=("no_such_package",))
    assert row.lacks is not None and "no_such_package" in row.lacks


def test_a_difference_above_the_bar_or_no_number_does_not_hold():
    row = Row("sampler", "x", "somebody", 0.5, lambda: {"a": 0.1, "b": 0.6})
    assert not run(row).holds and run(row).worst == 0.6
    assert not Agreement(row, {"a": float("nan")}, 0.0).holds
    assert relative(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 5.0])) == pytest.approx(0.2)
    with pytest.raises(AssertionError):
        relative(torch.zeros(2), torch.zeros(3))


def test_no_row_is_registered_twice(rows):
    assert len(ROWS) == len(rows)
