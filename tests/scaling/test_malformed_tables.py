"""Tables and records that disks, transfers and people have changed: read, or refused in a line."""

from __future__ import annotations

import random
import sys
from itertools import islice
from pathlib import Path

import pytest

from stepsight.cli.scaling import GROUP
from stepsight.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.faults.table_cases import BYTES, CSV, cases, readers


def test_they_are_read_as_they_were_written(tmp_path):
    for reader in readers():
        (tmp_path / reader.name).write_bytes(reader.whole)
        reader.read(tmp_path / reader.name)


@pytest.mark.parametrize(
    ("count", "seed"), [(200, 0), pytest.param(4_000, 1, marks=pytest.mark.slow)]
)
def test_a_changed_file_is_read_or_refused(tmp_path, count, seed):
    refused = 0
    for number, case in enumerate(islice(cases(random.Random(seed)), count)):
        path = tmp_path / case.reader
        path.write_bytes(case.data)
        try:
            case.read(path)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 3000 and str(error).isprintable()
        except Exception as error:
            raise AssertionError(f"case {number}: {case.reader}, {case.change}") from error
        path.unlink(missing_ok=True)
    assert count / 4 < refused < count


@pytest.mark.parametrize(("count", "seed"), [(40, 0), pytest.param(400, 1, marks=pytest.mark.slow)])
def test_a_changed_table_is_fitted_or_refused(tmp_path, capsys, count, seed):
    """A refusal names the file, and one of a cell its line."""
    points = [f"m{k // 4},{10.0 ** (12 + k / 2)},{4 * 10.0 ** (-k / 20)}" for k in range(8)]
    whole, rng = "\n".join(["model,flops,error", *points]).encode(), random.Random(seed)
    path, refused = tmp_path / "runs.csv", 0
    for number in range(count):
        change = rng.choice([*BYTES.values(), *CSV.values()])
        path.write_bytes(change(rng, whole))
        flags = ["--csv", str(path), "--x", "flops", "--y", "error", "--form", "power"]
        try:
            assert GROUP.run(["fit", *flags, "--bootstrap", "0"]) == 0, number
        except UserError as error:
            refused += 1
            assert "runs.csv" in str(error) and str(error).isprintable()
            assert " is " not in str(error) or "runs.csv:" in str(error)
    capsys.readouterr()
    assert 0 < refused < count
