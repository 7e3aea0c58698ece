"""The ladder at a twentieth of its target: forecasts as they were dated, and what came of them.

`ladder-twentieth-forecasts.jsonl` is the ladder's forecasts.jsonl, `ladder-twentieth.csv` the
records.csv of its report once the target is trained, `ladder-twentieth-cost.json` the core-seconds
of ladder.json.
"""

from __future__ import annotations

import json
from typing import Any

from page_numbers import common
from page_numbers.common import bare, rows_of, share, table

FORECASTS, OUTCOMES = "ladder-twentieth-forecasts.jsonl", "ladder-twentieth.csv"
COST = "ladder-twentieth-cost.json"
SHOWN = ("loss", "abs_rel", "delta1", "epe", "iou")
LABELS = common.LABELS | {"delta1": "δ1"}
Row = dict[str, Any]


def twentieth() -> str:
    """A row for every quantity: the forecast, the outcome if there is one, and how far off."""
    path = common.DATA / FORECASTS
    if not path.is_file():
        return "Not measured yet.\n"
    made = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    measured = rows_of(OUTCOMES) if (common.DATA / OUTCOMES).is_file() else []
    rows, held = [], []
    for row in (one for one in made if one["metric"] in SHOWN):
        reached = _outcome(row, measured)
        inside = None if reached is None else row["lo"] <= reached <= row["hi"]
        held += [] if inside is None else [inside]
        off = "" if reached is None else f", {share(abs(row['value'] / reached - 1), 1)} off"
        said = {None: "waiting", True: f"inside{off}", False: f"**outside**{off}"}[inside]
        cells = [bare(row["value"]), f"[{bare(row['lo'])}, {bare(row['hi'])}]"]
        cells += ["" if reached is None else bare(reached), said, row["verdict"]]
        rows.append([row["task"], LABELS.get(row["metric"], row["metric"]), *cells])
    first = made[0]
    about = f"{first['params_active'] / 1e6:.2f} M parameters, {first['images_seen']:,} images, "
    about += (
        f"{first['reach']:.3g} times the ladder's farthest rung by their product; the ladder cost "
    )
    about += f"{share(first['spent'], 1)} of its training FLOPs; forecast "
    about += f"{first['made'][:16].replace('T', ' ')} UTC."
    runs = json.loads((common.DATA / COST).read_text(encoding="utf-8"))
    took = [0.0, 0.0]
    for run in runs:
        took[run["name"].startswith("held-out/")] += run["core_seconds"]
    about += f" {took[0]:,.0f} core-seconds for the ladder, {took[1]:,.0f} for the target,"
    about += " evaluation and start included."
    hits = f" {sum(held)} of {len(held)} inside." if held else ""
    header = ["task", "quantity", "forecast", "90 % interval", "outcome", "", "verdict"]
    return table(header, rows) + f"\n{about}{hits}\n"


def _outcome(forecast: Row, measured: list[dict[str, str]]) -> float | None:
    """Of the run that was forecast, measured in the same way."""
    same = ("params_active", "images_seen", "task")
    for row in measured:
        if all(str(forecast[name]) == str(row[name]) for name in same):
            if forecast["metric"] == "loss" and row["loss"]:
                return float(row["loss"])
            way = (row["metric"], row["protocol"], row["nfe"], row["members"])
            wanted = (forecast["metric"], forecast["protocol"])
            if way == (*wanted, str(forecast["nfe"]), str(forecast["members"])) and row["value"]:
                return float(row["value"])
    return None
