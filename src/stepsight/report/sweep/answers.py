"""The answers of a sweep, a line for each drawer of its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stepsight.report.rendering import counted
from stepsight.scaling.sampling.wording import count


def answers(content: Mapping[str, Any]) -> dict[str, str]:
    """By drawer, of what `page.gather` found."""
    tasks = content["tasks"]
    return {
        "sweep": _joined((view["task"], _setting(view["best"])) for view in tasks),
        "frontier": _joined((view["task"], _worth(view["front"])) for view in tasks),
        "budget": _planned([view for view in tasks if view["plans"]]),
        "uncertainty": _covered(tasks) or "the error beside what the members say about it",
        "strategies": counted(row["verdict"] for row in content["strategies"] if row["verdict"]),
        "laws": counted(fit["verdict"] for _, fit in content["laws"]),
        "claims": counted(c.verdict for claims in content["claims"] for c in claims.first),
    }


def _joined(told: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{task} {text}" for task, text in told)


def _worth(front: list[Any]) -> str:
    """The last setting whose gain is more than luck."""
    sure = [point for point in front[1:] if point.sure]
    last = (sure or front)[-1 if sure else 0].cell.total_calls
    return f"up to {count(last, 'call')}" if sure else f"{count(last, 'call')}, no significant gain"


def _planned(tasks: list[Any]) -> str:
    """The cheapest settings that are nearly as good as the best of the largest budget."""
    cheapest = [(view["task"], _setting(view["plans"][-1].cheapest)) for view in tasks]
    return f"cheapest within 2 % of the best: {_joined(cheapest)}" if cheapest else ""


def _setting(choice: Any) -> str:
    return f"{choice.nfe}x{choice.members}"


def _covered(tasks: list[Any]) -> str:
    """How much the 90 % intervals of the most members hold."""
    known = ((view["task"], view["covered"]) for view in tasks)
    told = _joined((task, f"{share:.0%}") for task, share in known if share is not None)
    return f"90 % intervals hold {told}" if told else ""
