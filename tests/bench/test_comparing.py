"""Ratios against those of a file."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from stepsight.bench import comparing
from stepsight.errors import UserError


def row(side: str, ratio: float, bench: str = "step", **others: Any) -> dict[str, Any]:
    given = {"bench": bench, "case": "S/2", "side": side, "peer": "DiT", "kind": "speed"}
    return {**given, "ratio": ratio, "spread": 0.0, **others}


def document(*rows: dict[str, Any], **machine: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "machine": {"cpu": "Zen 4", "cores": 2, "gpu": "", **machine},
        "versions": {"torch": "2.15", "diffusers": "1", "timm": "1"},
        "load": [0.1, 0.2],
        "protocols": {one["bench"]: "" for one in rows},
        "rows": list(rows),
    }


@pytest.mark.parametrize(
    "before, now, spreads, answer",
    [
        (2.0, 2.0, (0, 0), "same"),
        (2.0, 1.71, (0, 0), "same"),
        (2.0, 1.69, (0, 0), "slower"),
        (2.0, 2.31, (0, 0), "faster"),
        (2.0, 1.69, (0.2, 0), "same"),  # the file's own rounds differed by more
        (2.0, 1.69, (0, 0.2), "same"),
        (2.0, 1.5, (0.2, 0), "slower"),
    ],
)
def test_a_ratio_is_the_same_within_its_tolerance(before, now, spreads, answer):
    old, new = (document(row("ours", r, spread=s)) for r, s in zip((before, now), spreads))
    (found,) = comparing.changes(old, new)
    assert found.answer == answer and found.gain == pytest.approx(now / before)
    assert comparing.slower([found]) == (answer == "slower")


@pytest.mark.parametrize("kind", ["memory", "exponent"])
def test_less_memory_and_slower_growth_are_better(kind):
    old = document(row("ours", 1.0, kind=kind))
    for now, answer in ((2.0, "slower"), (0.5, "faster")):
        (found,) = comparing.changes(old, document(row("ours", now, kind=kind)))
        assert found.answer == answer and found.gain == pytest.approx(1 / now)


def test_only_our_sides_of_benches_run_anew_are_judged():
    old = document(row("ours", 2), row("theirs", 2), row("ours, old", 2), row("ours", 1, "merge"))
    new = document(row("ours", 2), row("theirs", 0.1), row("ours, new", 2))
    found = {one.place: one.answer for one in comparing.changes(old, new)}
    assert found == {
        ("step", "S/2", "ours"): "same",
        ("step", "S/2", "ours, old"): "gone",
        ("step", "S/2", "ours, new"): "new",
    }
    assert not comparing.slower(comparing.changes(old, new))


def test_what_else_differs_is_noted():
    old = document(row("ours", 2))
    assert comparing.notes(old, deepcopy(old)) == []
    (note,) = comparing.notes(document(cpu="Xeon"), old)
    assert "another machine (cpu Xeon, here Zen 4)" in note
    (note,) = comparing.notes(document(gpu="H200"), old)
    assert "gpu H200, here none" in note
    other = deepcopy(old)
    other["versions"]["torch"], other["load"] = "2.11", [0.1, 4.0]
    notes = comparing.notes(other, old)
    assert notes[0] == "the file is of torch 2.11" and "busy" in notes[1]


@pytest.mark.parametrize(
    "content, said",
    [(None, "cannot be read"), ("{", "not valid JSON"), ("[]", "holds no ratios"), ("{}", "--out")],
)
def test_files_that_hold_no_ratios_are_refused(content: str | None, said: str, tmp_path: Path):
    path = tmp_path / "ratios.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        comparing.read(path)


def test_what_was_written_is_read(tmp_path: Path):
    path = tmp_path / "ratios.json"
    path.write_text(json.dumps(document(row("ours", 2))))
    assert comparing.read(path) == document(row("ours", 2))
