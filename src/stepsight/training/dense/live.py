"""The report of a run that is still working: a page to look at from the first validation on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

SHARE = 0.05  # of the time of a run that its page may cost
FIRST = 1.0  # seconds that the first page is taken to cost, with what has to be imported for it


class LiveReport:
    """Writes report.html into a run folder now and then, which loads itself again until the run
    has ended.

    It costs a run at most `SHARE` of its time, so that one of a few seconds has no page before its
    end; and what is wrong with a page is said and stops nothing.
    """

    def __init__(self) -> None:
        self._since, self._cost = time.monotonic(), FIRST

    def update(self, folder: Path, warn: Callable[[str], None]) -> None:
        """Write the page, unless the last one is too young for what it costs."""
        began = time.monotonic()
        if began - self._since < self._cost / SHARE:
            return
        try:
            from stepsight.report.page import write_report  # with matplotlib, which no step needs

            write_report(folder, working=True)
        except Exception as error:  # of whatever kind: the run is worth more than its page
            said = f"{type(error).__name__}: {error}"
            warn(f"the page of the run so far could not be written: {said}")
        self._since = time.monotonic()
        self._cost = self._since - began
