"""docs/protocols.md names every protocol, and no protocol that there is not."""

import re
from pathlib import Path

import pytest

from stepsight.metrics.protocol import PROTOCOLS

DOCS = Path(__file__).parents[2] / "docs" / "protocols.md"


@pytest.fixture(scope="module")
def named():
    return set(re.findall(r"`([a-z0-9-]+)`", DOCS.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_documented(named, name):
    assert name in named


def test_documented_counts_are_those_of_the_protocols():
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    for row in PROTOCOLS.values():
        if row.count is None or row.name.startswith("lotus"):
            continue
        told = [line for line in lines if line.startswith("|") and f"`{row.name}`" in line]
        assert len(told) == 1 and f"{row.count:,}" in told[0], row.name


@pytest.mark.parametrize("row", PROTOCOLS.values(), ids=lambda row: row.name)
def test_every_protocol_tells_where_it_comes_from(row):
    assert row.source and row.description.endswith((".", ")"))
    assert row.data is not None or (row.split is None and row.count is None)
