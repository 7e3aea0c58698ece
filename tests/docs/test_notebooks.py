"""The notebooks run, and what is stored in them is what they say today."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts.notebook_pages import FOLDER, executed, page


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """What a training sets for its processes ends with the test."""
    for name, value in (("OMP_NUM_THREADS", "1"), ("ACCELERATE_USE_CPU", "true")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")


def texts(notebook: dict[str, Any]) -> list[str]:
    found = (out for cell in notebook["cells"] for out in cell.get("outputs", ()))
    return ["".join(out["text"]) for out in found if out["output_type"] == "stream"]


def stored(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def test_reading_a_sweep_says_what_is_stored():
    found, before = executed(FOLDER / "read-a-sweep.ipynb"), stored("read-a-sweep")
    assert texts(found) == texts(before) and len(texts(found)) == 4
    written = page(before)
    assert written.count("```python") == 5 and written.count("![](data:image/png;base64,") == 1
    assert texts(before)[0] in written


@pytest.mark.slow
def test_own_data_end_to_end():
    found, before = executed(FOLDER / "own-data.ipynb"), stored("own-data")
    assert texts(found)[:2] == texts(before)[:2] and "depth     20 of 20" in texts(found)[1]
    assert texts(found)[-1].startswith("depth depth-affine-log@")
    assert page(found).count("data:image/png") == 2
