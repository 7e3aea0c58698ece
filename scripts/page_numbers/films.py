"""Flicker of films, from the page of its measurement."""

from __future__ import annotations

from page_numbers.common import RESULTS

PAGE = RESULTS / "2026-11-30-films.md"
FLICKER, WARPED = 2, 3  # columns of the second table


def _tables() -> list[list[str]]:
    """Lines of the page's tables."""
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return [[line for line in part.splitlines() if line.startswith("|")] for part in parts]


def films() -> str:
    """Frame by frame and as a film."""
    return "".join(f"{line}\n" for line in _tables()[0])


def named() -> dict[str, str]:
    """Ratios of other ways."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in _tables()[1]]
    ratios = {row[1]: row for row in rows}
    one, hard = ratios["`--nfe 1`"], ratios["`--level hard --seed 7`"]
    figures = {"one-call": one[FLICKER], "hard": hard[FLICKER], "hard-warped": hard[WARPED]}
    return {name: ratio.partition(" ")[0].removeprefix("0") for name, ratio in figures.items()}
