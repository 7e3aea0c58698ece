"""Floors of training steps, recomputation, and what a GPU reached."""

from __future__ import annotations

import json

from page_numbers.common import RESULTS, percent, table

REASONS = {  # why the passes take longer than their products of matrices
    "split-32": "small convolutions, norms, resampling",
    "DiT-S/2": "attention, norms, GELU",
    "DiT-S/2-8E2A": "attention, norms, GELU; rows sorted by expert, casts of all experts",
    "DiT-B/2": "attention, norms, GELU",
}
PASSES, UPDATE = ("forward", "backward"), ("clip, optimizer", "average")


def floors() -> str:
    """Training steps beside the time of their products (benchmarks/steps.py)."""
    rows = []
    for row in json.loads((RESULTS / "steps.json").read_text()):
        if row["recompute"] == "none":
            floor, seconds = row["floor_seconds"], row["seconds"]
            times = [f"{1e3 * floor:.0f}", f"{1e3 * seconds:.0f}", f"{floor / seconds:.2f}"]
            step = f"{row['model']}, {row['batch']} pictures, {row['precision']}"
            passes, update = (sum(row["parts"][n] for n in names) for names in (PASSES, UPDATE))
            reasons = [f"{floor / passes:.2f}: {REASONS[row['model']]}", f"{update / seconds:.0%}"]
            rows.append([step, *times, *reasons])
    header = ["training step", "floor, ms", "measured, ms", "ratio"]
    return table([*header, "of the passes alone", "optimizer, average"], rows)


def recomputation() -> str:
    """Memory saved and time lost by recomputing, and how well the memory was planned."""
    rows, kept = [], json.loads((RESULTS / "steps.json").read_text())
    whole = {(row["model"], row["precision"]): row for row in kept if row["recompute"] == "none"}
    for row in kept:
        first = whole[row["model"], row["precision"]]
        saved = percent(row["peak_bytes"] / first["peak_bytes"] - 1)
        lost = percent(row["seconds"] / first["seconds"] - 1)
        changes = ["", ""] if row is first else [saved, lost]
        peak, planned = row["peak_bytes"] / 1e6, row["planned_bytes"] / row["peak_bytes"]
        names = [row["model"], row["precision"], row["recompute"]]
        rows.append([*names, f"{peak:.0f}", *changes, f"{planned:.2f}"])
    header = ["model", "precision", "recompute", "peak, MB", "memory", "time", "planned / measured"]
    return table(header, rows)


def gpu() -> str:
    """What scripts/gpu-check.sh measured, where there is a target."""
    file = RESULTS / "gpu.json"
    if not file.is_file():
        return "Not measured yet: no GPU was at hand.\n"
    found, rows = json.loads(file.read_text()), []
    for row in found["rows"]:
        if row["target"] is not None:
            sign = "<=" if row["most"] else ">="
            figure, target = f"{row['figure']:.3g} {row['unit']}", f"{sign} {row['target']:g}"
            rows.append([row["step"], row["what"], figure.strip(), target])
    page = f"[{found['device']}, {found['date']}](../benchmarks/results/{found['page']})"
    return f"{page}:\n\n" + table(["step", "what", "measured", "target"], rows)
