"""Tables on the command line: what is wrong with a cell is said with its line and column, and the
advice of the message works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepsight.cli.scaling import GROUP
from stepsight.cli.scaling.tables import Table
from stepsight.errors import DataFormatError
from stepsight.scaling.reading import read_table


@pytest.fixture
def table(tmp_path: Path):
    def write(*lines: str, name: str = "runs.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


POINTS = [f"{10.0**k:g},{4 * 10.0 ** (-0.1 * k):.6g}" for k in range(8)]


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "inf", "-inf", "n/a", "1,5e3"])
@pytest.mark.parametrize("column", ["flops", "loss"])
def test_a_bad_cell_is_named_and_can_be_left_out(table, column, cell, capsys):
    quoted = f'"{cell}"' if "," in cell else cell
    row = f"{quoted},.3" if column == "flops" else f"1e5,{quoted}"
    path = table("flops,loss", *POINTS[:3], row, *POINTS[3:])
    flags = ["fit", "--csv", str(path), "--x", "flops", "--y", "loss", "--bootstrap", "0"]
    with pytest.raises(DataFormatError, match=rf"runs\.csv:5: {column} is ") as refusal:
        GROUP.run(flags)
    advice = re.search(r"--where '(.*)'\.$", str(refusal.value))
    assert advice, refusal.value
    assert GROUP.run([*flags, "--where", advice[1], "--json"]) == 0
    assert '"n": 8' in capsys.readouterr().out


def test_several_bad_cells_are_counted(table):
    path = table("flops,loss", *POINTS, *(f"{k},x" for k in range(9)))
    with pytest.raises(DataFormatError) as refusal:
        Table.read(path).numbers("loss")
    told = "loss is 'x' (and line 11 'x', line 12 'x', line 13 'x', line 14 'x', 4 more)"
    assert told in str(refusal.value)
    assert "--where" not in str(refusal.value)  # of a command that has no such flag


def test_suffixes_and_units_are_no_numbers(table):
    path = table("params,loss", "125M,.3", "1e9,.2")
    with pytest.raises(DataFormatError, match=r":2: params is '125M'.*such as 1\.25e8 for 125M"):
        Table.read(path, ()).numbers("params")


@pytest.mark.parametrize(
    "lines, message",
    [
        (["a,b", "1,2", "1,2,3"], r"runs\.csv:3: 3 cells, and 2 columns"),
        (["a,b,a", "1,2,3"], r"several columns are called a"),
        (["a;b", "1;2"], r"separated by ';'"),
    ],
)
def test_nothing_beyond_the_header_is_dropped(table, lines, message):
    with pytest.raises(DataFormatError, match=message):
        read_table(table(*lines))


def test_a_byte_order_mark_and_trailing_commas_do_no_harm(table):
    rows = read_table(table("\ufeffa,b", "1,2,", "3"))
    assert rows.columns == ["a", "b"]
    assert rows.numbered == {2: {"a": "1", "b": "2"}, 3: {"a": "3", "b": ""}}


@pytest.mark.parametrize(
    "flags",
    [
        ["allocate", "--points", "{}", "--params", "n", "--samples", "d", "--loss", "loss"]
        + ["--budget", "1e18"],
        ["loss-to-loss", "--csv", "{}", "--x", "d", "--y", "loss"],
        ["frontier", "--csv", "{}", "--x", "d", "--y", "loss"],
        ["fit", "--csv", "{}", "--form", "emergence", "--x", "n,d", "--y", "loss"],
    ],
)
def test_every_command_names_the_line(table, flags):
    path = table("n,d,loss", "1,2,.3", "1,3,nan", "2,3,.2")
    with pytest.raises(DataFormatError, match=r"runs\.csv:3: loss is 'nan'"):
        GROUP.run([flag.format(path) for flag in flags])
