"""Numbers for JSON, which knows neither nan nor infinity."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """`value` with nan and infinity as None, at any depth of dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
