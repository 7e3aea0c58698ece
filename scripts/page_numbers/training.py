"""Calibration, what calls cost, and the recipe taken apart."""

from __future__ import annotations

from page_numbers.common import LABELS, MAIN, rows_of, table


def calibration() -> str:
    """Coverage of the stated 90 % intervals, and of the raw members', on scenes not fitted on."""
    rows = []
    for row in rows_of("calibration.csv"):
        raw, stated = (float(row[name]) for name in ("coverage_raw", "coverage"))
        ends = f"[{float(row['lo']):.3f}, {float(row['hi']):.3f}]"
        scale, rank = f"{float(row['scale']):.2f}", f"{float(row['spearman']):.2f}"
        rows.append(
            [row["task"], row["seed"], scale, f"{raw:.3f}", f"**{stated:.3f}** {ends}", rank]
        )
    header = ["task", "seed", "scale", "raw members cover", "stated interval covers", "Spearman"]
    return table(header, rows)


def cost() -> str:
    """What the backbone costs once an image, and each call."""
    rows = [
        [row["task"], row["encode_mflop"], row["call_mflop"], row["encode_ms"], row["call_ms"]]
        for row in rows_of("cost.csv")
    ]
    header = ["task", "once an image, MFLOP", "each call, MFLOP", "once, ms", "each call, ms"]
    return table(header, rows)


def ablation() -> str:
    """The recipe taken apart at equal core-seconds."""
    header = ["run", "setting", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    header[1:1] = ["core-seconds", "images"]
    rows = [
        [row["run"], row["core_seconds"], row["images"], row["setting"], *(row[t] for t in MAIN)]
        for row in rows_of("ablation.csv")
    ]
    return table(header, rows)
