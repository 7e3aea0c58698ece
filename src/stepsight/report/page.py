"""Scores as HTML: the tables that the report of a run and the page of an evaluation share.

A table holds one task under one protocol. How far protocols differ on the same predictions is shown
apart from them, as a list and not as a ranking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stepsight.measures import MEASURES, main_of, measure, number
from stepsight.report.markup import Html, Pictures, join, mark, page, table, tag
from stepsight.report.run_folder import Row
from stepsight.report.verdict import Standing, standings

HEADER = ("task, data", "setting", "score", "against trivial predictors", "uncertainty", "also")
EXPLAINED = (
    "Scores with their 95 % intervals. A predictor counts as beaten when the whole interval of "
    "the ratio (ours / theirs) is on the good side of 1."
)
DIFFER = (
    "The same predictions, each line under a rule of its own. The numbers are not comparable with "
    "each other, only with others of the same protocol id."
)


def write_page(path: Path, results: Sequence[Row], grids: Iterable[Path]) -> Path:
    """Write the page of an evaluation; it needs no other file."""
    pictures = Pictures()
    shown = [pictures.show(grid, f"{grid.stem}: best, median and worst images") for grid in grids]
    whose = ", ".join(dict.fromkeys(f"{row['task']} on {row['data']}" for row in results))
    body = join(
        tag("header", tag("h1", f"Evaluation: {whose}")),
        tag("section", score_tables(results), *shown),
    )
    path.write_text(page(f"Evaluation of {whose}", body), encoding="utf-8")
    return path


def score_tables(results: Sequence[Row]) -> Html:
    """A table for each task and protocol, then how far protocols differ."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in results:
        groups.setdefault((row["task"], row["protocol"]), []).append(row)
    tables = [
        join(
            tag("h3", f"{task}: {protocol}"),
            tag("p", str(rows[0].get("protocol_text") or ""), _class="small"),
            table(HEADER, map(_result, rows)),
        )
        for (task, protocol), rows in groups.items()
    ]
    return join(tag("p", EXPLAINED), *tables, _differences(results))


def differences(results: Sequence[Row]) -> list[list[Row]]:
    """Results on the same predictions under two protocols or more, in groups."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in results:
        same = ("task", "data", "checkpoint", "sampler", "nfe", "members")
        groups.setdefault(tuple(str(row.get(name)) for name in same), []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _differences(results: Sequence[Row]) -> Html:
    groups = differences(results)
    if not groups:
        return Html()
    parts = [table(("protocol", "its main metric", "images"), map(_line, rows)) for rows in groups]
    return join(tag("h3", "How far protocols differ"), tag("p", DIFFER), *parts)


def _line(row: Row) -> Iterator[str]:
    yield row["protocol"]
    metric = main_of(row)
    yield _plain_score(row, metric) if metric else "-"
    yield images_text(row)


def _result(row: Row) -> Iterator[Html]:
    """The cells of one evaluation."""
    label = tag("div", f"▲ {row['label']}", _class="mark unsure") if row.get("label") else ""
    yield join(tag("div", tag("b", row["task"])), tag("div", row["data"]), label)
    size = "x".join(map(str, row.get("size") or []))
    yield join(
        tag("div", setting_text(row), _class="line"),
        tag("div", f"{images_text(row)} {size}", _class="small line"),
        tag("div", str(row.get("checkpoint") or ""), _class="small"),
    )
    main = main_of(row)
    yield _score(row, main) if main else Html("-")
    yield join(*map(_standing, standings(row))) or Html("-")
    spread = row.get("uncertainty") or {}
    told = (row.get("calibration") or {}).get("sentence")
    yield join(
        *(tag("div", f"{measure(k).label} {number(v)}") for k, v in spread.items()),
        tag("div", told, _class="small") if told else "",
    )
    others = [name for name in row["metrics"] if name not in (main, "n_images")]
    yield tag("div", " · ".join(_plain_score(row, name) for name in others), _class="small")


def setting_text(row: Row) -> str:
    """What was spent on a prediction, as far as that is known."""
    members = f"{row['members']} member{'s' if row['members'] > 1 else ''}"
    spent = f"{row['nfe']} NFE x {members}" if row["nfe"] else members
    start = "" if row.get("temperature") is None else f", T {row['temperature']:g}"
    views = row.get("views") or "none"
    return f"{row['sampler']}, {spent}{start}" + ("" if views == "none" else f", {views}")


def images_text(row: Row) -> str:
    """How many images were scored, and of how many if there are more."""
    known = row.get("expected") not in (None, row["n"])
    return f"{row['n']} of {row['expected']} images" if known else f"{row['n']} images"


def _score(row: Row, metric: str) -> Html:
    ceiling = (row.get("ceiling") or {}).get(metric)
    best = f"ceiling {number(ceiling)}" if ceiling is not None else ""
    return join(
        tag("div", f"{measure(metric).axis.split(',')[0]} {_better(metric)}", _class="small"),
        tag("div", number(row["metrics"][metric]), _class="value"),
        tag("div", interval_text((row.get("intervals") or {}).get(metric)), _class="small line"),
        tag("div", best, _class="small"),
    )


def _plain_score(row: Row, metric: str) -> str:
    return f"{measure(metric).label} {number(row['metrics'][metric])}{_better(metric)}"


def _standing(standing: Standing) -> Html:
    ratio = ""
    if standing.ratio:
        value, *interval = standing.ratio
        ratio = f", ratio {number(value)} {interval_text(interval)}"
    return tag(
        "div",
        mark(standing.outcome),
        f" {standing.baseline} ",
        tag("span", f"{number(standing.other)}{ratio}", _class="small"),
    )


def _better(metric: str) -> str:
    if metric not in MEASURES:
        return ""
    return "↑" if measure(metric).higher_is_better else "↓"


def interval_text(ends: Iterable[float | None] | None) -> str:
    """`[low, high]`, empty where either end is unknown."""
    known = [number(float(end)) for end in ends or () if end is not None]
    return f"[{', '.join(known)}]" if len(known) == 2 else ""
