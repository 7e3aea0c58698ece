"""A panel of pictures that is quickly written, for whoever shows panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stepsight.legends import ClassColour, Legend
from stepsight.report.panels import PanelTile, PicturePanel, write_panel

_BAR = Legend("values", ("#9e0142", "#ffffbf", "#5e4fa2"), 1.3, 11.0, "m", log=True)
_SPREAD = Legend("values", ("#000004", "#bc3754", "#fcffa4"), 0.0, 0.25)
_WHEEL = Legend("flow", ("#ff0000", "#00ff00", "#0000ff"), 0.0, 6.5, "px")
_MASK = Legend(
    "mask", classes=(ClassColour("visible", "#56b4e9"), ClassColour("hidden", "#e69f00"))
)
SCALES = {"depth": _BAR, "flow": _WHEEL, "amodal": _MASK}
METRICS = {"depth": "abs_rel", "flow": "epe", "amodal": "iou_amodal"}


def a_panel(task: str = "depth") -> PicturePanel:
    """One of depth, flow or amodal, in which one call is the best setting for depth."""
    one, most = "1 x 1, T 0", "4 x 4, T 1"
    name = "most calls" if task == "depth" else "best setting"
    tiles = [
        PanelTile("image", "the image"),
        PanelTile("truth", f"its {task}, as it is"),
        PanelTile("one call", "of one call", one, 0.21, 0.24, task == "depth"),
        PanelTile(name, "of 16 calls", most, 0.2, 0.25, task != "depth"),
        PanelTile("spread", "where members differ", most),
        PanelTile("error", "where it errs", most),
    ]
    chosen = f"median image by {METRICS[task]} of 512"
    about = task, "procedural worlds", f"{task}-usual", "scene-0003", chosen, METRICS[task]
    return PicturePanel(*about, tuple(tiles), SCALES[task], _SPREAD, _SPREAD)


def write_a_panel(folder: Path, task: str = "depth") -> PicturePanel:
    """Write it with pictures of 48 x 64 pixels to `panels/` of a folder."""
    panel = a_panel(task)
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None]
    shades = [np.tile(ramp // (i + 1), (48, 1, 3)) for i in range(len(panel.tiles))]
    return write_panel(folder, panel, shades)
