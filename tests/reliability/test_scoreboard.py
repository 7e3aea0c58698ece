"""benchmarks/reliability.py: what it says, writes and ends with, of faults that are made up."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "benchmarks" / "reliability.py"
    spec = importlib.util.spec_from_file_location("reliability_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def faults(script, monkeypatch, tmp_path):
    """Modules that report what a test gives for their kind; results and page in a folder."""
    given: dict[str, object] = {}

    class Module:
        def __init__(self, name: str) -> None:
            self.kind = name.rpartition(".")[2].replace("_", "-")

        def run(self, quick: bool, folder: Path) -> list[object]:
            assert folder.is_dir() and not any(folder.iterdir())
            found = given.get(self.kind, [script.Tally("things tried", 3, 3, "all hold")])
            if isinstance(found, Exception):
                raise found
            return found if isinstance(found, list) else [found]

    monkeypatch.setattr(script, "import_module", Module)
    monkeypatch.setattr(
        script.docs_numbers.reliability, "RELIABILITY", tmp_path / "reliability.json"
    )
    monkeypatch.setattr(script, "PAGE", tmp_path / "reliability.md")
    (tmp_path / "reliability.md").write_text(
        "# R\n\n<!-- numbers: reliability -->\nstale\n<!-- end -->\nAfter\n"
    )
    return given


def asked(script, capsys, *flags: str) -> tuple[int, dict]:
    status = script.main([*flags, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_all_kinds_are_tried_and_held(script, faults, capsys):
    status, found = asked(script, capsys, "--quick")
    assert status == 0 and found["ok"]
    assert [row["kind"] for row in found["kinds"]] == [
        "kills", "signals", "corruption", "nan", "world-size",
        "reshard", "malformed", "payloads", "ranks", "locks",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "outcome", ["missed", "nothing tried", "no figure", "the module fails", "no module"]
)
def test_a_bar_that_is_missed_is_the_exit_status(script, faults, capsys, outcome):
    tally = script.Tally
    faults["nan"] = {
        "missed": tally("NaN survived", 5, 4, "no update", "step 3"),
        "nothing tried": tally("NaN survived", 0, 0, "no update"),
        "no figure": [],
        "the module fails": RuntimeError("fell over"),
        "no module": ModuleNotFoundError("no nan"),
    }[outcome]
    status, found = asked(script, capsys, "--only", "nan", "--only", "locks")
    assert status == 1 and not found["ok"]
    assert [row["ok"] for row in found["kinds"]] == [False, True]
    assert script.main(["--only", "nan"]) == 1
    assert "missed: nan" in capsys.readouterr().out


def test_an_unknown_kind_is_refused(script, capsys):
    with pytest.raises(SystemExit) as exit:
        script.main(["--only", "comets"])
    assert exit.value.code == 2


def test_the_page_keeps_what_was_not_measured_anew(script, faults, capsys, tmp_path):
    faults["kills"] = script.Tally("kills survived", 200, 200, "bit for bit", "51 inside | a save")
    assert script.main(["--write"]) == 0
    faults["nan"] = script.Tally("NaN survived", 5, 4, "no update", "step 3")
    assert script.main(["--write", "--only", "nan", "--quick"]) == 1
    page = (tmp_path / "reliability.md").read_text()
    assert (
        page.startswith("# R\n") and page.endswith("<!-- end -->\nAfter\n") and "stale" not in page
    )
    assert r"| kills survived | 200 | 200 | bit for bit | 51 inside \| a save |" in page
    assert "| NaN survived | 5 | **4** | no update | step 3 |" in page and "quick" in page
    rows = json.loads((tmp_path / "reliability.json").read_text())
    assert list(rows) == list(script.KINDS) and rows["nan"]["quick"] and not rows["kills"]["quick"]
    assert script.docs_numbers.written(page) == page
