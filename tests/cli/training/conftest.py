"""A user's own folder, which all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from rooms import write_rooms


@pytest.fixture(scope="session")
def own(tmp_path_factory) -> Path:
    """The folder of `write_rooms`. Read it only."""
    return write_rooms(tmp_path_factory.mktemp("mine") / "rooms")
