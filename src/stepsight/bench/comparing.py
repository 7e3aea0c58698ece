"""Ratios measured now against those of a file: which of ours became slower (standard library)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stepsight.errors import UserError

TOLERANCE = 0.15  # of a ratio; the rounds' own spread where that is larger
LESS_IS_BETTER = ("memory", "exponent")
Answer = Literal["same", "faster", "slower", "new", "gone"]
Place = tuple[str, str, str]  # bench, case, side


@dataclass(frozen=True)
class RatioChange:
    """A ratio then and now; how many times better it became."""

    place: Place
    before: float | None
    now: float | None
    gain: float
    tolerance: float
    answer: Answer


def read(path: Path) -> dict[str, Any]:
    """A document that `stepsight bench --out` wrote. Raises UserError for another file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict) or found.get("format") != 1 or "rows" not in found:
        raise UserError(f"{path} holds no ratios. Write some with stepsight bench --out FILE.")
    return found


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[RatioChange]:
    """What became of our sides, in the order of the file and with what is new at the end.

    Only benches that were run anew are looked at: a file may hold more of them.
    """
    again = set(now["protocols"])
    old = {place: row for place, row in _ours(before).items() if place[0] in again}
    new = _ours(now)
    return [_change(place, old.get(place), new.get(place)) for place in dict.fromkeys([*old, *new])]


def _ours(document: Mapping[str, Any]) -> dict[Place, Mapping[str, Any]]:
    return {
        (row["bench"], row["case"], row["side"]): row
        for row in document["rows"]
        if row["side"].startswith("ours") and row["side"] != row["peer"]
    }


def _change(
    place: Place, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> RatioChange:
    if new is None:
        return RatioChange(place, old["ratio"] if old else None, None, 1.0, 0.0, "gone")
    if old is None:
        return RatioChange(place, None, new["ratio"], 1.0, 0.0, "new")
    gain = new["ratio"] / old["ratio"]
    if old["kind"] in LESS_IS_BETTER:
        gain = 1 / gain
    tolerance = max(TOLERANCE, old["spread"], new["spread"])
    answer: Answer = "same"
    if gain < 1 - tolerance:
        answer = "slower"
    elif gain > 1 + tolerance:
        answer = "faster"
    return RatioChange(place, old["ratio"], new["ratio"], gain, tolerance, answer)


def notes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what the measurements differ besides the code."""
    there, here = before["machine"], now["machine"]
    differing = [key for key in here if there.get(key) != here[key]]
    said = []
    if differing:
        parts = (
            f"{key} {there.get(key) or 'none'}, here {here[key] or 'none'}" for key in differing
        )
        said.append(f"the file is of another machine ({'; '.join(parts)}): ratios travel, roughly")
    packages = ("torch", "diffusers", "timm")
    other = [name for name in packages if before["versions"].get(name) != now["versions"][name]]
    said += [f"the file is of {name} {before['versions'].get(name)}" for name in other]
    if max(*before["load"], *now["load"]) > 1.5:
        said.append("the machine was busy: wall times are doubtful, CPU times less so")
    return said


def slower(found: Sequence[RatioChange]) -> bool:
    return any(one.answer == "slower" for one in found)
