"""Write the tables of README.md and docs/*.md from the files of docs/data.

    uv run python scripts/docs_numbers.py            # rewrite what stands between the marks
    uv run python scripts/docs_numbers.py --check    # exit status 1 if anything would change

A table stands between `<!-- numbers: NAME -->` and `<!-- end -->`; `TABLES` says what NAME is made
of. Numbers in prose beside it are to be read off it.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data"
BLOCK = re.compile(r"(<!-- numbers: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MAIN = {"depth": "abs_rel", "flow": "epe", "amodal": "iou", "semantic": "miou"}
LABELS = {"abs_rel": "AbsRel", "epe": "EPE px", "iou": "IoU", "miou": "mIoU"}
LABELS |= {"crps": "CRPS", "brier": "Brier", "edge_f1": "edge F1"}
CALLS = (1, 2, 4, 8)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rows_of(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def told(value: float) -> str:
    """Three figures, as tables of the field have them."""
    return f"{value:.3f}" if value < 10 else f"{value:.3g}"


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def setting(row: dict[str, Any]) -> str:
    views = "" if row["views"] == "none" else f", {row['views']}"
    return f"{row['nfe']} x {row['members']}, T {float(row['temperature']):g}{views}"


# ---------------------------------------------------------------------------- the default run


def default() -> str:
    """The default run's results, both seeds, beside the trivial predictors."""
    header = ["task", "protocol", "setting", "seed 0", "seed 1", "trivial predictors", "ratio"]
    rows = []
    runs = json.loads((DATA / "default-results.json").read_text())
    for task, metric in MAIN.items():
        first, second = ([one for one in run if one["task"] == task][0] for run in runs)
        trivial = {name: own[metric] for name, own in first["baselines"].items() if metric in own}
        shown = ", ".join(f"{name.replace('_', ' ')} {told(x)}" for name, x in trivial.items())
        ratios = [first["ratios"][name] for name in trivial]
        ratio = ", ".join(
            f"{one['ratio']:.2f} [{one['lo']:.2f}, {one['hi']:.2f}]" for one in ratios
        )
        rows.append(
            [
                task,
                first["protocol"].partition("@")[0],
                setting(first),
                f"{LABELS[metric]} **{told(first['metrics'][metric])}** {_interval(first, metric)}",
                f"{told(second['metrics'][metric])} {_interval(second, metric)}",
                shown,
                ratio,
            ]
        )
    return table(header, rows)


def world() -> str:
    """The same checkpoints on a world that no choice of the recipe saw."""
    rows = []
    runs = json.loads((DATA / "other-world-results.json").read_text())
    for task, metric in MAIN.items():
        own = [next(one for one in run if one["task"] == task) for run in runs]
        shown = [f"{told(one['metrics'][metric])} {_interval(one, metric)}" for one in own]
        rows.append([task, LABELS[metric], *shown])
    return table(["task", "metric", "seed 0", "seed 1"], rows)


def _interval(row: dict[str, Any], metric: str) -> str:
    lo, hi = row["intervals"][metric]
    return f"[{told(lo)}, {told(hi)}]"


def claims() -> str:
    """What the engine says of one member from zeros with mirrored views; both statements of 4 to 8
    calls."""
    rows = []
    for one in json.loads((DATA / "zero-seed-0" / "claims.json").read_text()):
        steps = one["base"]["nfe"], one["other"]["nfe"]
        wanted = one["main"] and one["views"] == "mirror" and steps in ((1, 4), (4, 8))
        wanted = wanted and not one["statement"].startswith("the best setting")
        if wanted:
            rows.append(
                [
                    one["task"],
                    f"{steps[0]} to {steps[1]}",
                    LABELS[one["metric"]],
                    one["averaging"],
                    f"{percent(one['value'])} [{percent(one['lo'])}, {percent(one['hi'])}]",
                    f"{one['statement']}: {one['verdict']}",
                ]
            )
    header = ["task", "calls", "metric", "averaging", "change [95 %]", "claim"]
    return table(header, rows)


def proper() -> str:
    """Claims on the proper scores: more calls given 8 members, more members given calls."""
    rows = []
    for one in json.loads((DATA / "noise-seed-0" / "claims.json").read_text()):
        calls = one["statement"] == "more calls help" and one["base"]["members"] == 8
        members = one["statement"] == "more members help"
        members = members and (one["main"] or one["base"]["nfe"] in (1, 4))
        if one["temperature"] > 0 and (calls or members):
            rows.append(
                [
                    one["task"],
                    LABELS.get(one["metric"], one["metric"]),
                    f"{_place(one['base'])} to {_place(one['other'])}",
                    f"{percent(one['value'])} [{percent(one['lo'])}, {percent(one['hi'])}]",
                    f"{one['statement']}: {one['verdict']}",
                ]
            )
    return table(["task", "metric", "calls x members", "change [95 %]", "claim"], rows)


def _place(place: dict[str, Any]) -> str:
    return f"{place['nfe']} x {place['members']}"


# ---------------------------------------------------------------------------- sweeps


def calls() -> str:
    """One member from zeros over the calls, with and without views; both seeds."""
    header = ["seed", "views", "calls", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    rows = []
    for seed in (0, 1):
        cells = rows_of(f"zero-seed-{seed}/sweep.csv")
        for views in ("none", "mirror"):
            for nfe in CALLS:
                own = [_cell(cells, task, views, nfe, 1, 0.0) for task in MAIN]
                rows.append([str(seed), views, str(nfe), *own])
    return table(header, rows)


def members() -> str:
    """Members from noise over calls and members."""
    cells = rows_of("noise-seed-0/sweep.csv")
    header = ["calls x members", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    rows = []
    for nfe in CALLS:
        for count in (1, 8):
            own = [_cell(cells, task, "none", nfe, count, 1.0) for task in MAIN]
            rows.append([f"{nfe} x {count}", *own])
    return table(header, rows)


def _cell(
    cells: Sequence[dict[str, str]], task: str, views: str, nfe: int, count: int, t: float
) -> str:
    found = [
        cell
        for cell in cells
        if (cell["task"], cell["metric"], cell["views"]) == (task, MAIN[task], views)
        and (int(cell["nfe"]), int(cell["members"]), float(cell["temperature"])) == (nfe, count, t)
    ]
    (cell,) = found
    return f"{told(float(cell['value']))} [{told(float(cell['lo']))}, {told(float(cell['hi']))}]"


def calibration() -> str:
    """Coverage of the stated 90 % intervals, and of the raw members', on scenes not fitted on."""
    rows = []
    for one in rows_of("calibration.csv"):
        raw, stated = (float(one[name]) for name in ("coverage_raw", "coverage"))
        ends = f"[{float(one['lo']):.3f}, {float(one['hi']):.3f}]"
        scale, rank = f"{float(one['scale']):.2f}", f"{float(one['spearman']):.2f}"
        rows.append(
            [one["task"], one["seed"], scale, f"{raw:.3f}", f"**{stated:.3f}** {ends}", rank]
        )
    header = ["task", "seed", "scale", "raw members cover", "stated interval covers", "Spearman"]
    return table(header, rows)


def cost() -> str:
    """What the backbone costs once an image, and each call."""
    rows = [
        [one["task"], one["encode_mflop"], one["call_mflop"], one["encode_ms"], one["call_ms"]]
        for one in rows_of("cost.csv")
    ]
    header = ["task", "once an image, MFLOP", "each call, MFLOP", "once, ms", "each call, ms"]
    return table(header, rows)


def ablation() -> str:
    """The recipe taken apart at equal core-seconds."""
    header = ["run", "setting", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    header[1:1] = ["core-seconds", "images"]
    rows = [
        [one["run"], one["core_seconds"], one["images"], one["setting"], *(one[t] for t in MAIN)]
        for one in rows_of("ablation.csv")
    ]
    return table(header, rows)


TABLES: dict[str, Callable[[], str]] = {
    "default": default,
    "world": world,
    "claims": claims,
    "proper": proper,
    "calls": calls,
    "members": members,
    "calibration": calibration,
    "cost": cost,
    "ablation": ablation,
}


def written(text: str) -> str:
    """A page with its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def main(arguments: Sequence[str]) -> int:
    changed = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            changed.append(page.name)
            if "--check" not in arguments:
                page.write_text(new, encoding="utf-8")
    print(
        f"{'would change' if '--check' in arguments else 'wrote'}: {', '.join(changed) or 'none'}"
    )
    return int(bool(changed) and "--check" in arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
