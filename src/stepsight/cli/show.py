"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from stepsight.measures import headline, main_of, measure, number
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.report.page import DIFFER, differences, images_text, setting_text

WIDTH = 110


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """A table a task and protocol: the predictor and the trivial ones, with intervals and ratios.

    Scores of different protocols never share one. How far protocols differ on the same predictions
    follows, as a list.
    """
    page = StringIO()
    console = Console(file=page, width=WIDTH)
    for one in results:
        console.print(_scores(one))
    for group in differences(results):
        console.print(f"\nHow far protocols differ: {group[0]['task']} on {group[0]['data']}")
        console.print(DIFFER)
        for one in group:
            console.print(f"  {_line(one)}", markup=False, highlight=False)
    return page.getvalue()


def _scores(one: dict[str, Any]) -> Table:
    names = headline(one["task"], one["metrics"], _order(one["protocol"]))
    title = f"{one['task']} on {one['data']}: {one['protocol']}, {images_text(one)}"
    table = Table(title=title, caption=_caption(one), title_justify="left", caption_justify="left")
    table.add_column("predictor")
    for name in names:
        table.add_column(measure(name).label, justify="right")
    table.add_column("ours / it", justify="right")
    table.add_row("model" if one["nfe"] else "files", *[_score(one, name) for name in names], "")
    if one["ceiling"]:
        table.add_row("resize only", *[number(one["ceiling"][name]) for name in names], "")
    for baseline, metrics in one["baselines"].items():
        ratio = one["ratios"][baseline]
        span = f"{number(ratio['ratio'])} [{number(ratio['lo'])}, {number(ratio['hi'])}]"
        table.add_row(baseline, *[number(metrics[name]) for name in names], span)
    return table


def _order(protocol: str) -> tuple[str, ...]:
    """The metrics that the protocol of that id names, the main one first."""
    row = PROTOCOLS.get(protocol.partition("@")[0])
    return row.metrics if row else ()


def _caption(one: dict[str, Any]) -> str:
    parts = [
        f"{setting_text(one)}, worked at {one['size'][0]}x{one['size'][1]}, "
        f"{'checkpoint' if one['nfe'] else 'files'} {one['checkpoint']}.",
        one["protocol_text"],
    ]
    if one["uncertainty"]:
        spread = (f"{measure(name).label} {number(x)}" for name, x in one["uncertainty"].items())
        parts.append(f"Uncertainty: {', '.join(spread)}.")
    if told := one.get("calibration"):
        parts.append(told["sentence"])
    if one["label"]:
        parts.append(f"{one['label']}.")
    return " ".join(parts)


def _line(one: dict[str, Any]) -> str:
    """A protocol's own main metric, with what has to be said beside it."""
    metric = main_of(one)
    shown = "-" if metric is None else f"{measure(metric).label} {_score(one, metric)}"
    label = f" ({one['label']})" if one["label"] else ""
    return f"{one['protocol']}: {shown}, {images_text(one)}{label}"


def _score(one: dict[str, Any], name: str) -> str:
    span = one["intervals"].get(name)
    ends = f" [{number(span[0])}, {number(span[1])}]" if span else ""
    return number(one["metrics"][name]) + ends
