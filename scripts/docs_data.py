"""Take from finished runs what the pages show of them: files of docs/data.

    uv run python scripts/docs_data.py RUN-SEED-0 RUN-SEED-1

Each run has its evaluation and sweep, and under zero/ a sweep of one member from zeros over the
whole evaluation split; the first one also has members from noise under noise/:

    uv run evaluate.py --checkpoint RUN --sweep --members 1 --temperature 0 --views none,mirror \\
        --data.images 512 --out RUN/zero    (256 for seed 1)
    uv run evaluate.py --checkpoint RUN-SEED-0 --sweep --members 1,8 --temperature 1 \\
        --data.images 256 --out RUN-SEED-0/noise
    uv run evaluate.py --checkpoint RUN --data.name scenes --data.option seed=7 \\
        --data.images 512 --out RUN/world
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsight import checkpoint

DATA = Path(__file__).parents[1] / "docs" / "data"
KEPT = ("task", "data", "protocol", "nfe", "members", "temperature", "views", "n", "metric")
KEPT += ("metrics", "intervals", "baselines", "ratios", "calibration")
INTERVALS = ("depth", "flow")
SPREAD = ("4", "8")  # calls and members whose intervals were fitted


def results(runs: Sequence[Path], folder: str, name: str) -> None:
    """What evaluations found, without paths and digests."""
    every = [json.loads((run / folder / "results.json").read_text()) for run in runs]
    kept = [[{key: row[key] for key in KEPT} for row in rows] for rows in every]
    (DATA / name).write_text(json.dumps(kept, indent=1) + "\n")


def sweep(folder: Path, run: Path) -> None:
    """A sweep with its claims and the rows they rest on."""
    folder.mkdir(exist_ok=True)
    _write(folder / "sweep.csv", _rows(run / "sweep.csv"))
    claims = json.loads((run / "claims.json").read_text())
    kept = [row | {"checkpoint": ""} for row in claims]
    (folder / "claims.json").write_text(json.dumps(kept, indent=1) + "\n")
    _write(folder / "per_sample.csv", _rows(run / "per_sample.csv"))
    plain = (folder / "per_sample.csv").read_bytes()
    (folder / "per_sample.csv.gz").write_bytes(gzip.compress(plain, mtime=0))
    (folder / "per_sample.csv").unlink()


def calibration(runs: Sequence[Path]) -> None:
    """What the stated intervals cover on scenes that they were not fitted on."""
    rows = []
    for seed, run in enumerate(runs):
        fitted = checkpoint.read(run, lazy=True).meta["calibration"]
        cells = _rows(run / ("noise" if seed == 0 else "sweep") / "sweep.csv")
        for task in INTERVALS:
            measured = {
                cell["metric"]: cell
                for cell in cells
                if (cell["task"], cell["nfe"], cell["members"]) == (task, *SPREAD)
            }
            covered = measured["coverage_90"]
            rows.append(
                {
                    "task": task,
                    "seed": seed,
                    "scale": fitted[task]["scale"],
                    "coverage_raw": measured["coverage_90_raw"]["value"],
                    "coverage": covered["value"],
                    "lo": covered["lo"],
                    "hi": covered["hi"],
                    "spearman": measured["spread_error"]["value"],
                    "images": covered["images"],
                }
            )
    _write(DATA / "calibration.csv", rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row | {"checkpoint": ""} for row in csv.DictReader(file)]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Sequence[str]) -> int:
    runs = [Path(argument) for argument in arguments]
    if len(runs) != 2:
        print(__doc__)
        return 2
    results(runs, "eval", "default-results.json")
    results(runs, "world", "other-world-results.json")
    for seed, run in enumerate(runs):
        sweep(DATA / f"zero-seed-{seed}", run / "zero")
    sweep(DATA / "noise-seed-0", runs[0] / "noise")
    calibration(runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
