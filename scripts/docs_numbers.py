"""Write the tables of README.md and docs/*.md from the files of docs/data and benchmarks/results.

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

from stepsight.results import Result

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data"
RESULTS = ROOT / "benchmarks" / "results"
RELIABILITY = RESULTS / "reliability.json"
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


def figures(value: float) -> str:
    """Three figures, as tables of the field have them."""
    return f"{value:.3f}" if value < 10 else f"{value:.3g}"


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def setting(result: Result) -> str:
    views = "" if result.views == "none" else f", {result.views}"
    return f"{result.nfe} x {result.members}, T {result.temperature:g}{views}"


def runs_of(name: str) -> list[list[Result]]:
    """The results of several runs."""
    return [[Result.of(row) for row in run] for run in json.loads((DATA / name).read_text())]


# ---------------------------------------------------------------------------- the default run


def default() -> str:
    """The default run's results, both seeds, beside the trivial predictors."""
    header = ["task", "protocol", "setting", "seed 0", "seed 1", "trivial predictors", "ratio"]
    rows, runs = [], runs_of("default-results.json")
    for task, metric in MAIN.items():
        first, second = (next(one for one in run if one.task == task) for run in runs)
        trivial = {name: x[metric] for name, x in first.baselines.items() if metric in x}
        ratios = (first.ratios[name] for name in trivial)
        rows.append(
            [
                task,
                first.protocol.partition("@")[0],
                setting(first),
                f"{LABELS[metric]} **{figures(first.metrics[metric])}** {_interval(first, metric)}",
                f"{figures(second.metrics[metric])} {_interval(second, metric)}",
                ", ".join(f"{name.replace('_', ' ')} {figures(x)}" for name, x in trivial.items()),
                ", ".join(f"{x.ratio:.2f} [{x.lo:.2f}, {x.hi:.2f}]" for x in ratios),
            ]
        )
    return table(header, rows)


def world() -> str:
    """The same checkpoints on a world that no choice of the recipe saw."""
    rows, runs = [], runs_of("other-world-results.json")
    for task, metric in MAIN.items():
        results = [next(one for one in run if one.task == task) for run in runs]
        shown = [f"{figures(one.metrics[metric])} {_interval(one, metric)}" for one in results]
        rows.append([task, LABELS[metric], *shown])
    return table(["task", "metric", "seed 0", "seed 1"], rows)


def _interval(result: Result, metric: str) -> str:
    lo, hi = result.intervals[metric]
    return f"[{figures(lo)}, {figures(hi)}]"


def claims() -> str:
    """What the engine says of one member from zeros with mirrored views; both statements of 4 to 8
    calls."""
    rows = []
    for claim in json.loads((DATA / "zero-seed-0" / "claims.json").read_text()):
        steps = claim["base"]["nfe"], claim["other"]["nfe"]
        wanted = claim["main"] and claim["views"] == "mirror" and steps in ((1, 4), (4, 8))
        if wanted and not claim["statement"].startswith("the best setting"):
            calls, metric = f"{steps[0]} to {steps[1]}", LABELS[claim["metric"]]
            rows.append([claim["task"], calls, metric, claim["averaging"], *_decided(claim)])
    header = ["task", "calls", "metric", "averaging", "change [95 %]", "claim"]
    return table(header, rows)


def proper() -> str:
    """Claims on the proper scores: more calls given 8 members, more members given calls."""
    rows = []
    for claim in json.loads((DATA / "noise-seed-0" / "claims.json").read_text()):
        calls = claim["statement"] == "more calls help" and claim["base"]["members"] == 8
        members = claim["statement"] == "more members help"
        members = members and (claim["main"] or claim["base"]["nfe"] in (1, 4))
        if claim["temperature"] > 0 and (calls or members):
            sides = (claim["base"], claim["other"])
            change = " to ".join(f"{side['nfe']} x {side['members']}" for side in sides)
            metric = LABELS.get(claim["metric"], claim["metric"])
            rows.append([claim["task"], metric, change, *_decided(claim)])
    return table(["task", "metric", "calls x members", "change [95 %]", "claim"], rows)


def _decided(claim: dict[str, Any]) -> tuple[str, str]:
    """The change with its interval, and the verdict."""
    value, lo, hi = (percent(claim[name]) for name in ("value", "lo", "hi"))
    return f"{value} [{lo}, {hi}]", f"{claim['statement']}: {claim['verdict']}"


# ---------------------------------------------------------------------------- sweeps


def calls() -> str:
    """One member from zeros over the calls, with and without views; both seeds."""
    header = ["seed", "views", "calls", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    rows = []
    for seed in (0, 1):
        cells = rows_of(f"zero-seed-{seed}/sweep.csv")
        for views in ("none", "mirror"):
            for nfe in CALLS:
                values = [_cell(cells, task, views, nfe, 1, 0.0) for task in MAIN]
                rows.append([str(seed), views, str(nfe), *values])
    return table(header, rows)


def members() -> str:
    """Members from noise over calls and members."""
    cells = rows_of("noise-seed-0/sweep.csv")
    header = ["calls x members", *(f"{task} {LABELS[m]}" for task, m in MAIN.items())]
    rows = []
    for nfe in CALLS:
        for count in (1, 8):
            values = [_cell(cells, task, "none", nfe, count, 1.0) for task in MAIN]
            rows.append([f"{nfe} x {count}", *values])
    return table(header, rows)


def _cell(
    cells: Sequence[dict[str, str]], task: str, views: str, nfe: int, count: int, t: float
) -> str:
    (cell,) = (
        cell
        for cell in cells
        if (cell["task"], cell["metric"], cell["views"]) == (task, MAIN[task], views)
        and (int(cell["nfe"]), int(cell["members"]), float(cell["temperature"])) == (nfe, count, t)
    )
    value, lo, hi = (figures(float(cell[name])) for name in ("value", "lo", "hi"))
    return f"{value} [{lo}, {hi}]"


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


# ---------------------------------------------------------------------------- reliability


def reliability() -> str:
    """What was done to runs on purpose, and how many times it held (benchmarks/reliability.py)."""
    header = ["figure", "tried", "held", "bar", "worst seen", "protocol", "when"]
    rows, kinds = [], json.loads(RELIABILITY.read_text()) if RELIABILITY.is_file() else {}
    for kind, row in kinds.items():
        protocol = f"`{kind}`: {row['protocol']}"
        when = f"{row['date']}, {'quick' if row['quick'] else 'full'}, {row['seconds']:.0f} s"
        for one in row["tallies"]:
            held = f"{one['held']}" if one["ok"] else f"**{one['held']}**"
            cells = [one["figure"], str(one["tried"]), held, one["bar"], one["worst"]]
            rows.append([*cells, protocol, when])
        if row["error"]:
            rows.append([kind, "0", "**0**", "it can be tried", row["error"], protocol, when])
    rows = [[cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in rows]
    machines = "; ".join(sorted({row["machine"] for row in kinds.values()}))
    return table(header, rows) + (f"\nMeasured on: {machines}.\n" if machines else "")


# ---------------------------------------------------------------------------- performance

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
    "reliability": reliability,
    "floors": floors,
    "recomputation": recomputation,
    "gpu": gpu,
}


def written(text: str) -> str:
    """A page with its tables made anew."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


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
