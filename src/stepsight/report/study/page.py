"""The page of a study, or of a table of anyone's numbers: the figures first, then how they were
made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsight.measures import duration
from stepsight.report import figures, rendering
from stepsight.report.study.contents import KINDS, StudyFigure, figures_of
from stepsight.report.study.figures import draw, places_of
from stepsight.report.study.stages import StudyFolder, read_study
from stepsight.scaling.analysis import words

PAGE = "report.html"
REFRESH = 20  # seconds after which a page of an unfinished study is loaded again


def write(folder: Path) -> Path:
    """Write report.html and its figures as PNG into the folder of a study, finished or not.

    Raises `UserError` if there is no study.json, `DataFormatError` if a file is damaged.
    """
    study = read_study(folder)
    return _written(figures_of(study.points), folder, study.name, study)


def write_table(shown: Sequence[StudyFigure], out: Path, name: str) -> Path:
    """The same page of figures alone, as of a table of points."""
    out.mkdir(parents=True, exist_ok=True)
    return _written(shown, out, name, None)


def _written(shown: Sequence[StudyFigure], out: Path, name: str, study: StudyFolder | None) -> Path:
    places = places_of(shown)
    drawn = [(figure, draw(figure, places)) for figure in shown]
    for figure, picture in drawn:
        figures.to_png(picture, out / f"figure-{figure.slug}.png")
    values = {"title": name, "figures": drawn, "laws": _laws(shown)}
    values |= {"missing": _missing(shown), "words": words, "study": study}
    values |= _stages(study) if study else {"progress": "", "refresh": 0, "trouble": []}
    return rendering.write_page(out / PAGE, rendering.render("study", **values))


def _laws(shown: Sequence[StudyFigure]) -> list[StudyFigure]:
    """The figures that a law was fitted to."""
    return [row for row in shown if row.law is not None]


def _missing(shown: Sequence[StudyFigure]) -> list[str]:
    """The figures that there are no points for, and what they need."""
    there = {figure.name for figure in shown}
    return [f"{kind.title}: {kind.needs}" for name, kind in KINDS.items() if name not in there]


def _stages(study: StudyFolder) -> dict[str, Any]:
    """How far the study is: one line, what failed, and whether the page is to load itself again."""
    done, running = len(study.of("done")), study.of("running")
    seconds = sum(stage.seconds or 0 for stage in study.stages)
    parts = [f"{done} of {len(study.stages)} stages done, {duration(seconds)} in all"]
    parts += [f"working on {', '.join(stage.name for stage in running)}"] if running else []
    parts += [f"{left} left out for what failed"] if (left := len(study.of("left out"))) else []
    return {
        "progress": "; ".join(parts),
        "refresh": REFRESH if running else 0,
        "trouble": study.of("failed"),
    }
