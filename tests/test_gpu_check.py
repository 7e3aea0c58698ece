"""scripts/gpu-check.sh: steps that fail alone, figures that are kept, and a page of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    path = ROOT / "benchmarks" / "gpu_check.py"
    spec = importlib.util.spec_from_file_location("gpu_check_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def steps(script, monkeypatch):
    """Steps that are lines of Python, which find the file of their rows in `rows`."""
    given: dict[str, str] = {}

    def command(name: str, tiny: bool, rows: Path) -> list[str]:
        code = f"import sys, time, subprocess\nrows = open({str(rows)!r}, 'a')\n{given[name]}"
        return [sys.executable, "-c", code]

    monkeypatch.setattr(script, "command_of", command)
    return given


ONE = 'print(\'{"what": "one", "figure": 1.0}\', file=rows, flush=True)\n'


def test_a_step_fails_alone_and_keeps_what_it_has_measured(script, steps):
    steps |= {"bad": ONE + "raise ValueError('no luck')", "hung": ONE + "time.sleep(60)"}
    steps |= {"good": ONE + ONE}
    began = time.monotonic()
    limits = {"bad": 20, "hung": 2, "good": 20}
    bad, hung, good = script.carried_out(["bad", "hung", "good"], True, limits)
    assert time.monotonic() - began < 30
    assert [len(one.rows) for one in (bad, hung, good)] == [1, 1, 2]
    assert "exit status 1" in bad.failed and "ValueError: no luck" in bad.failed
    assert hung.failed.startswith("not done after 2 s") and not good.failed


def test_what_a_hung_step_has_started_ends_with_it(script, steps, tmp_path):
    sign = tmp_path / "sign"
    child = f"import time; time.sleep(4); open({str(sign)!r}, 'w')"
    steps["hung"] = f"subprocess.run([sys.executable, '-c', {child!r}])"
    (hung,) = script.carried_out(["hung"], True, {"hung": 1.5})
    time.sleep(4)
    assert hung.failed and not sign.exists()


def test_all_steps_together_have_nine_minutes(script, steps, monkeypatch):
    assert script.BUDGET <= 9 * 60
    monkeypatch.setattr(script, "BUDGET", script.LEAST + 1.5)
    steps |= {"first": "time.sleep(60)", "second": ONE, "third": ONE}
    limits = {"first": 3, "second": 60, "third": 60}
    first, *others = script.carried_out([*limits], True, limits)
    assert first.failed.startswith("not done after 3 s")
    assert all("no time was left" in one.failed for one in others)


def test_the_page_tells_what_was_aimed_at(script):
    row, done = script.Row, script.Done
    machine = done("machine", 1.0, [row("device", note="NVIDIA H200"), row("product", 790.0)])
    rows = [row("MFU", 0.3, target=0.25), row("time", 2.0, "s", target=1.35, most=True)]
    text = script.page([machine, done("sampling", 2.0, rows, "exit status 1\nboom")], tiny=False)
    assert "NVIDIA H200" in text.splitlines()[0] and "dry run" not in text
    assert "| MFU | 0.3 | >= 0.25 | yes |  |" in text
    assert "| time | 2 s | <= 1.35 | **no** |  |" in text
    assert "boom" in text and "`scripts/gpu-check.sh`, 3 s." in text
    assert "A dry run" in script.page([machine], tiny=True)


def test_a_page_is_named_after_the_gpu_and_its_figures_lie_beside(script, tmp_path):
    names = {"NVIDIA H200": "h200", "NVIDIA A100-SXM4-80GB": "a100", "Graphics": "graphics"}
    assert {name: script.slug(name) for name in names} == names
    machine = script.Done("machine", rows=[script.Row("device", note="NVIDIA H200")])
    assert script.written([machine], False, tmp_path).name.endswith("-h200.md")
    assert json.loads((tmp_path / "gpu.json").read_text())["device"] == "NVIDIA H200"


def test_every_step_is_a_module(script):
    for name in script.STEPS:
        assert callable(import_module(f"gpu.{name}").run)


def test_without_a_gpu_a_step_says_so(script):
    from gpu import timing

    if not timing.torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="--tiny"):
            timing.device_of("gpu")


@pytest.mark.slow
def test_all_of_it_runs_at_tiny_sizes(tmp_path):
    results = sorted((ROOT / "benchmarks" / "results").iterdir())
    done = subprocess.run(
        [str(ROOT / "scripts" / "gpu-check.sh"), "--tiny", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "tiny.json").read_text())["rows"]
    steps = {row["step"] for row in found}
    text = (ROOT / "benchmarks" / "gpu_check.py").read_text()
    assert all(f'"{name}"' in text for name in steps) and len(steps) == 9
    (page,) = tmp_path.glob("*-tiny.md")
    assert "its figures mean nothing" in page.read_text() and "Failed" not in page.read_text()
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == results
