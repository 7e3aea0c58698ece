"""A figure beside what is aimed at (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured. target: at least that much; `most`: at most."""

    what: str
    figure: float = 0.0
    unit: str = ""
    target: float | None = None
    most: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.figure <= self.target if self.most else self.figure >= self.target

    def cells(self) -> tuple[str, ...]:
        """Of a table: what, figure, target, reached, note."""
        sign = "<=" if self.most else ">="
        target = "" if self.target is None else f"{sign} {self.target:g}"
        reached = {True: "yes", False: "**no**", None: ""}[self.reached]
        return self.what, f"{self.figure:.4g} {self.unit}".strip(), target, reached, self.note
