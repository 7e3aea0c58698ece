"""One page on what training compute buys, from the records of runs and the folders of ladders.

Laws with their verdicts, forecasts against outcomes, relations between losses, and what failed.
With --forecast, a dated forecast of a larger run, which the report scores when it is made again
with the records of that run.
"""

from __future__ import annotations

import argparse

from stepsight.cli.door import output_folder
from stepsight.errors import UserError, suggest
from stepsight.measures import number
from stepsight.scaling.ladders.forecast import Forecast, Target

PLACE = ("params", "images", "name")
EXAMPLE = "params=2.5e6,images=96000,name=large"


def add_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("records", nargs="+", metavar="RECORDS", help="records.jsonl files or folders")
    own.add_argument("--out", required=True, help="folder of the page, its figures and forecasts")
    own.add_argument(
        "--forecast",
        action="append",
        default=[],
        metavar="params=N,images=N[,name=NAME]",
        help="forecast a run that has not been made; may be repeated",
    )
    own.add_argument("--bootstrap", type=int, default=200, help="resamples of the intervals")


def run(door: argparse.Namespace) -> int:
    """Write the page and print its summary. Raises UserError where there are no records."""
    from stepsight.report.scaling import page as scaling_page
    from stepsight.scaling.analysis.folder import new_forecasts, read_scaling

    out = output_folder(door.out)
    if door.bootstrap < 0:
        raise UserError(f"--bootstrap {door.bootstrap}: give 0 or more.")
    if door.forecast and not door.bootstrap:
        raise UserError("--forecast needs resamples for its interval: leave out --bootstrap 0.")
    targets = [target_of(text) for text in door.forecast]
    found = read_scaling(door.records, out)
    for target in targets:
        made, notes = new_forecasts(found, target, out, door.bootstrap)
        print("\n".join([*notes, *(_said(one) for one in made)]))
    if targets:
        found = read_scaling(door.records, out)
    analysis = scaling_page.analyse(found, door.bootstrap)
    page = scaling_page.write(analysis, out)
    print("\n".join([*scaling_page.summary(analysis), f"written to {page}"]))
    return 0


def _said(one: Forecast) -> str:
    ends = f"{one.level:.0%} interval {number(one.lo)} to {number(one.hi)}"
    return f"{one.run}: {one.quantity} forecast {number(one.value)} ({ends}), {one.verdict}"


def target_of(text: str) -> Target:
    """`params=2.5e6,images=96000,name=large` as a target; its name is optional.

    Raises:
        UserError: a part is missing, unknown, or no positive number.
    """
    parts = [part.partition("=") for part in text.split(",")]
    given = {name.strip(): value.strip() for name, _, value in parts}
    for name in given:
        if name not in PLACE:
            raise UserError(f"--forecast {text}: '{name}' is unknown.{suggest(name, PLACE)}")
    if missing := [name for name in PLACE[:2] if name not in given]:
        raise UserError(f"--forecast {text}: lacks {', '.join(missing)}. Write {EXAMPLE}.")
    params, images = (_positive(given[name], text) for name in PLACE[:2])
    return Target(given.get("name") or f"params-{params}-images-{images}", params, images)


def _positive(value: str, text: str) -> int:
    try:
        found = round(float(value))
    except (ValueError, OverflowError):
        found = 0
    if found < 1:
        raise UserError(f"--forecast {text}: '{value}' is no positive number. Write {EXAMPLE}.")
    return found
