"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from stepsight.evaluation.measures import headline, measure, number


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """A table a protocol: the model and its trivial predictors, with intervals and ratios.

    Scores of different protocols never share a column.
    """
    page = StringIO()
    console = Console(file=page, width=110)
    for one in results:
        names = headline(one["task"], one["metrics"])
        title = f"{one['task']} on {one['data']}: {one['protocol']}, {one['n']} images"
        caption = (
            f"{one['sampler']}, {one['nfe']} NFE x {one['members']} members, worked at "
            f"{one['size'][0]}x{one['size'][1]}, checkpoint {one['checkpoint']}. "
            f"{one['protocol_text']}"
        )
        if one["label"]:
            caption += f" {one['label']}."
        table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
        table.add_column("predictor")
        for name in names:
            table.add_column(measure(name).label, justify="right")
        table.add_column("model / it", justify="right")
        table.add_row("model", *[_score(one, name) for name in names], "")
        if one["ceiling"]:
            table.add_row("resize only", *[number(one["ceiling"][name]) for name in names], "")
        for baseline, metrics in one["baselines"].items():
            ratio = one["ratios"][baseline]
            span = f"{number(ratio['ratio'])} [{number(ratio['lo'])}, {number(ratio['hi'])}]"
            table.add_row(baseline, *[number(metrics[name]) for name in names], span)
        console.print(table)
    return page.getvalue()


def _score(one: dict[str, Any], name: str) -> str:
    span = one["intervals"].get(name)
    ends = f" [{number(span[0])}, {number(span[1])}]" if span else ""
    return number(one["metrics"][name]) + ends
