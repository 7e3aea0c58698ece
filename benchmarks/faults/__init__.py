"""What can go wrong with a run, done to it on purpose. One module per kind of fault.

Each has `run(quick, folder)`: it commits its faults on runs below `folder` and returns a `Tally`
for every bar that it holds them to. `benchmarks/reliability.py` runs them, and writes the page.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """How many of the faults of one kind ended as they should."""

    figure: str  # what was tried, such as "SIGKILLs survived bit for bit, one process"
    tried: int
    held: int
    bar: str  # what holding means, with its number where there is one
    worst: str = ""  # the worst number seen, or the first case that did not hold

    @property
    def ok(self) -> bool:
        return self.tried > 0 and self.held == self.tried
