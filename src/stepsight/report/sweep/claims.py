"""The claims of a sweep as tables: what was claimed, given what, the effect, and the verdict.

Each task shows the claims about its main metric that a reader needs first, and folds the others:
those of several members or of a warmer start, and those of the proper scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stepsight.measures import measure
from stepsight.report.markup import Html, fold, join, listing, mark, note, table, tag
from stepsight.report.sweep.folder import SweepFolder
from stepsight.report.sweep.tables import percents
from stepsight.scaling.sampling.questions import CALLS, HARMLESS, MARGIN
from stepsight.scaling.sampling.sweeps import Family

Row = Mapping[str, Any]

CLAIMS = (
    "Every claim is about the metric as its protocol averages it, paired by image; effects are "
    "relative, with 95 % bootstrap intervals. A verdict is that of a one-sided p of 2.5 % after "
    "Holm's correction for all claims of a task and metric, so that an interval beside 0 may stay "
    "undecided. Harm is to be worse by more than "
    f"{MARGIN:.1%}. The best setting of a cost was chosen on one half of the images and tested on "
    "the other."
)
OLD = (
    "These claims were made by an earlier version, which compared otherwise. Sweep again to have "
    "them: uv run evaluate.py --checkpoint RUN --sweep."
)
BROKEN = "broken sampler"
HEADER = ("claim", "given", "calls", "effect", "verdict")


def claim_section(sweep: SweepFolder) -> Html:
    """The claims about test-time compute, each decided."""
    if not sweep.claims:
        return note("The claims have not been put to the test yet.")
    if any("given" not in claim for claim in sweep.claims):
        return note(OLD)
    tasks = dict.fromkeys(claim["task"] for claim in sweep.claims)
    return join(
        *(_of_task([one for one in sweep.claims if one["task"] == task]) for task in tasks),
        tag("p", CLAIMS, _class="small"),
    )


def spoken(claims: Sequence[Row]) -> list[str]:
    """The sentences that a reader needs first: of every task the claims about its main metric that
    are not folded, and each broken sampler once."""
    tasks = dict.fromkeys(one["task"] for one in claims)
    sorted_out = (_sorted([one for one in claims if one["task"] == task]) for task in tasks)
    return [
        said
        for own in sorted_out
        for said in (*own.causes, *(one["sentence"] for one in own.first))
    ]


class _Sorted(NamedTuple):
    """The claims of a task."""

    causes: list[str]  # why samplers are broken
    first: list[Row]
    others: list[Row]
    proper: list[Row]  # about proper scores


def _sorted(claims: Sequence[Row]) -> _Sorted:
    causes = dict.fromkeys(one["sentence"] for one in claims if one["verdict"] == BROKEN)
    sound = [one for one in claims if one["verdict"] != BROKEN]
    main = [one for one in sound if one["main"]]
    first = [one for one in main if _comes_first(one, main)]
    others = [one for one in main if one not in first]
    return _Sorted(list(causes), first, others, [one for one in sound if not one["main"]])


def _of_task(claims: Sequence[Row]) -> Html:
    task, own = claims[0]["task"], _sorted(claims)
    folded = {"several members and other starts": own.others, "proper scores": own.proper}
    return join(
        tag("h3", task),
        listing(own.causes) if own.causes else "",
        _by_metric(own.first),
        *(fold(f"{task}, {what}", _by_metric(some)) for what, some in folded.items() if some),
    )


def _comes_first(one: Row, claims: Iterable[Row]) -> bool:
    """Of calls, those of the fewest members at the lowest temperature."""
    if one["statement"] not in (CALLS, HARMLESS):
        return True
    plainest = min((_side(other)[::-1] for other in claims), default=())
    return _side(one)[::-1] == plainest


def _side(one: Row) -> tuple[int, float]:
    return one["other"]["members"], one["other"]["temperature"]


def _by_metric(claims: Sequence[Row]) -> Html:
    """A table a metric, under its name."""
    parts = []
    for metric in dict.fromkeys(one["metric"] for one in claims):
        own = [one for one in claims if one["metric"] == metric]
        said = f"{measure(metric).axis}, {_averaging(own[0])}"
        several = len({_way(one) for one in own}) > 1
        rows = (_row(one, f", {_way(one)}" if several else "") for one in own)
        parts += [tag("p", said, _class="small"), table(HEADER, rows)]
    return join(*parts)


def _averaging(one: Row) -> str:
    return "pooled over the set" if one["averaging"] == "pooled" else "mean over images"


def _row(one: Row, way: str) -> Iterator[str]:
    yield one["statement"]
    yield join(tag("div", one["given"]), tag("div", f"{_setting(one)}{way}", _class="small line"))
    yield f"{one['base_cost']} → {one['cost']}"
    yield join(
        tag("span", _percent(one["value"]), _class="value"),
        tag("div", _interval(one), _class="small line"),
        tag("div", f"{one['n']} images", _class="small"),
    )
    yield mark(one["verdict"])


def _setting(one: Row) -> str:
    """From which NFE x members to which."""
    base, other = one["base"], one["other"]
    text = f"{base['nfe']}x{base['members']} → {other['nfe']}x{other['members']}"
    unlike = {name for name in ("temperature", "views") if base[name] != other[name]}
    return text + "".join(f", {name} {other[name]}" for name in sorted(unlike))


def _way(one: Row) -> str:
    """How it samples, besides temperature and views."""
    return " ".join(part for part in Family.of(one).parts[:-2] if part)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:+.1%}"


def _interval(one: Row) -> str:
    return "" if one["lo"] is None or one["hi"] is None else percents(one["lo"], one["hi"])
