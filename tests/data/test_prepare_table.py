"""The table of preparations, and the page that describes every data set."""

from __future__ import annotations

import re
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from stepsight.data.config import TABLE as SOURCES
from stepsight.data.prepare import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"


@pytest.mark.parametrize("name", TABLE)
def test_every_preparation_makes_a_data_set_that_can_be_read(name):
    module, _, function = TABLE[name].partition(":")
    parameters = signature(getattr(import_module(module), function)).parameters
    assert list(parameters) == ["root", "out", "report", "workers", "strict"]
    assert name in SOURCES


def test_every_data_set_has_its_section_and_every_section_a_data_set():
    headings = re.findall(r"^##+ (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    described = {name.strip() for heading in headings for name in re.split(r"[:,]", heading)}
    undescribed = set(SOURCES) - described - {"scenes", "shards"}
    assert not undescribed and "Shards" in described
