"""`stepsight scaling report`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from stepsight.cli.entry import at_least, output_folder
from stepsight.cli.scaling.tables import assignments
from stepsight.errors import UserError, suggest
from stepsight.measures import number
from stepsight.scaling.analysis.words import forecast_basis
from stepsight.scaling.ladders.forecast import Forecast, ForecastTarget

PLACE = ("params", "images", "name")
EXAMPLE = "params=2.5e6,images=96000,name=large"


@dataclass(frozen=True)
class Args:
    """One page on what training compute buys, from the records of runs and the folders of ladders.

    Laws with their verdicts, forecasts against outcomes, relations between losses, and what failed.
    With --forecast, a dated forecast of a larger run, which the report scores when it is made again
    with the records of that run. Of a CSV of anyone's points, or a sweep.csv: the figures of the
    paper, each with its law.
    """

    # records.jsonl files or folders; or CSV files, whose rows are points: figure,line,x,y
    records: Positional[Annotated[tuple[str, ...], arg(metavar="RECORDS...")]]
    out: Path  # folder of the page, its figures and forecasts
    forecast: tuple[str, ...] = ()  # a run that has not been made: params=N,images=N[,name=NAME]
    bootstrap: int = 200  # resamples of the intervals


def run(args: Args) -> int:
    """Write the page and print its summary. Raises UserError where there are no records."""
    at_least(0, "--bootstrap", args.bootstrap)
    if tables := [path for path in args.records if path.endswith(".csv")]:
        return _of_tables(args, tables)
    from stepsight.report.scaling.contents import analyse, summary
    from stepsight.report.scaling.page import write
    from stepsight.scaling.analysis.folder import new_forecasts, read_scaling

    out = output_folder(args.out)
    targets = [target_of(text) for text in args.forecast]
    folder = read_scaling(args.records, out)
    for target in targets:
        made, notes = new_forecasts(folder, target, out)
        print("\n".join([*notes, *map(_line, made)]))
    analysis = analyse(read_scaling(args.records, out) if targets else folder, args.bootstrap)
    page = write(analysis, out)
    print("\n".join([*summary(analysis), f"written to {page}"]))
    return 0


def _of_tables(args: Args, tables: Sequence[str]) -> int:
    """Write the page of points."""
    from stepsight.report.study.contents import figures_of
    from stepsight.report.study.page import write_table
    from stepsight.report.study.table import read_points

    if len(tables) < len(args.records) or args.forecast:
        raise UserError("a table of points has a page of its own, without records and forecasts.")
    points = [point for path in tables for point in read_points(Path(path))]
    shown = figures_of(points, args.bootstrap)
    page = write_table(
        shown, output_folder(args.out), ", ".join(Path(path).stem for path in tables)
    )
    print(
        "\n".join([*(f"{row.kind.title}: {row.sentence}" for row in shown), f"written to {page}"])
    )
    return 0


def _line(made: Forecast) -> str:
    ends = f"{made.level:.0%} interval {number(made.lo)} to {number(made.hi)}"
    text = f"{made.run}: {made.quantity} forecast {number(made.value)} ({ends}), {made.verdict}"
    return f"{text}; {forecast_basis(made)}"


def target_of(text: str) -> ForecastTarget:
    """`params=2.5e6,images=96000,name=large` as a target; its name is optional.

    Raises:
        UserError: a part is missing, unknown, or no positive number.
    """
    given = assignments("--forecast", [text])
    for name in given:
        if name not in PLACE:
            raise UserError(f"--forecast {text}: '{name}' is unknown.{suggest(name, PLACE)}")
    if missing := [name for name in PLACE[:2] if name not in given]:
        raise UserError(f"--forecast {text}: lacks {', '.join(missing)}. Write {EXAMPLE}.")
    sizes = []
    for value in (given[name] for name in PLACE[:2]):
        with suppress(ValueError, OverflowError):
            sizes.append(round(float(value)))
        if not sizes or sizes[-1] < 1:
            raise UserError(f"--forecast {text}: '{value}' is no positive number. Write {EXAMPLE}.")
    params, images = sizes
    return ForecastTarget(given.get("name") or f"params-{params}-images-{images}", params, images)
