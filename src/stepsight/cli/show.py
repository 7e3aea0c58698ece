"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table

from stepsight.measures import headline, measure, number, spoken
from stepsight.metrics.protocol import PROTOCOLS
from stepsight.report.scores import DIFFER, differences, images_text, setting_text
from stepsight.results import Result

WIDTH = 110


def results_table(results: Sequence[Result]) -> str:
    """A table a task and protocol: the predictor and the trivial ones, with intervals and ratios.

    Scores of different protocols never share one. How far protocols differ on the same predictions
    follows, as a list.
    """
    page = StringIO()
    console = Console(file=page, width=WIDTH)
    for result in results:
        console.print(_scores(result))
    for group in differences(results):
        console.print(f"\nHow far protocols differ: {group[0].task} on {group[0].data}")
        console.print(DIFFER)
        for result in group:
            console.print(f"  {_line(result)}", markup=False, highlight=False)
    return page.getvalue()


def _scores(result: Result) -> Table:
    names = headline(result.task, result.metrics, _order(result.protocol))
    title = f"{result.task} on {result.data}: {result.protocol}, {images_text(result)}"
    table = Table(
        title=title, caption=_caption(result), title_justify="left", caption_justify="left"
    )
    table.add_column("predictor")
    for name in names:
        table.add_column(measure(name).label, justify="right")
    table.add_column("ours / it", justify="right")
    table.add_row("model" if result.nfe else "files", *[_score(result, name) for name in names], "")
    if result.ceiling:
        table.add_row("resize only", *[number(result.ceiling[name]) for name in names], "")
    for baseline, metrics in result.baselines.items():
        ratio = result.ratios[baseline]
        span = f"{number(ratio.ratio)} [{number(ratio.lo)}, {number(ratio.hi)}]"
        table.add_row(spoken(baseline), *[number(metrics[name]) for name in names], span)
    return table


def _order(protocol: str) -> tuple[str, ...]:
    """The metrics that the protocol of that id names, the main one first."""
    row = PROTOCOLS.get(protocol.partition("@")[0])
    return row.metrics if row else ()


def _caption(result: Result) -> str:
    size = f"worked at {'x'.join(map(str, result.size))}, " if result.size else ""
    parts = [
        f"{setting_text(result)}, {size}"
        f"{'checkpoint' if result.nfe else 'files'} {result.checkpoint}.",
        result.protocol_text,
    ]
    if result.uncertainty:
        spread = (f"{measure(name).label} {number(x)}" for name, x in result.uncertainty.items())
        parts.append(f"Uncertainty: {', '.join(spread)}.")
    if result.calibration:
        parts.append(result.calibration["sentence"])
    if result.label:
        said = result.label.removesuffix(".")
        parts.append(f"{said[:1].upper()}{said[1:]}.")
    return " ".join(parts)


def _line(result: Result) -> str:
    """A protocol's own main metric, with what has to be said beside it."""
    metric = result.main
    shown = "-" if metric is None else f"{measure(metric).label} {_score(result, metric)}"
    label = f" ({result.label})" if result.label else ""
    return f"{result.protocol}: {shown}, {images_text(result)}{label}"


def _score(result: Result, name: str) -> str:
    span = result.intervals.get(name)
    ends = f" [{number(span[0])}, {number(span[1])}]" if span else ""
    return number(result.metrics[name]) + ends
