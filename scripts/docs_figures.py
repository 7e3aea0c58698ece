"""Draw docs/figures/default-run.png: the median image of every task that a run was evaluated on.

uv run python scripts/docs_figures.py runs/default-0001
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from stepsight.evaluation.pictures import PaintedPanel, grid
from stepsight.report.panels import FOLDER, read_panels

TARGET = Path(__file__).parents[1] / "docs" / "figures" / "default-run.png"


def draw(run: Path, target: Path = TARGET) -> Path:
    """Compose the panels of a run's evaluation. Returns the picture's path."""
    rows = []
    panels = read_panels(run / "eval")
    if not panels:
        raise SystemExit(f"{run}: no panels in eval/{FOLDER}. Give a run that was evaluated.")
    for panel in panels:
        files = [run / "eval" / FOLDER / tile.file for tile in panel.tiles]
        rows.append(PaintedPanel(panel, [np.asarray(Image.open(file)) for file in files]))
    return grid(rows, target)


if __name__ == "__main__":
    print(draw(Path(sys.argv[1])))
