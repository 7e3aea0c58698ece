"""Shards that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import PER_SHARD, Toys

from stepsight.data.sharded.writing import write_shards


@pytest.fixture
def toys(full_sample) -> Toys:
    return Toys(full_sample)


@pytest.fixture
def folder(toys, tmp_path) -> Path:
    write_shards(toys, tmp_path / "deep" / "d", split="train", per_shard=PER_SHARD)
    return tmp_path / "deep" / "d"
