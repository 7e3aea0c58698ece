"""Our own ladder of docs/data: gains, laws, the dated forecast, and emergence in miniature.

Laws are those of docs/data/ladder-laws.json, which scripts/docs_laws.py fits to the points.
"""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from page_numbers import common
from page_numbers.common import bare, rows_of, share, table

LADDER, EMERGENCE, ZERO = "ladder-depth.csv", "ladder-emergence.csv", "ladder-zero-shot.csv"
FORECASTS, LAWS = "ladder-depth-forecasts.jsonl", "ladder-laws.json"
HELD_OUT = "DiT-160x5/8"
QUANTITIES = {"loss": "loss", "abs_rel": "AbsRel", "delta1": "1 - δ1"}
PRINTED = {"loss": "denoising loss", "abs_rel": "AbsRel", "delta1": "δ1"}


class Rung(NamedTuple):
    model: str
    params: float
    images: float
    flops: float
    loss: float
    abs_rel: float
    delta1: float  # 1 - it


@cache
def rungs() -> list[Rung]:
    """Of the ladder and of the run that was held out of it, by size and images."""
    runs: dict[str, dict[str, float]] = {}
    models = {}
    for row in rows_of(LADDER):
        models[row["run"]] = row["model"]
        one = runs.setdefault(row["run"], {"loss": float(row["loss"])})
        one |= {"params": float(row["params_active"]), "images": float(row["images_seen"])}
        value = float(row["value"])
        one |= {row["metric"]: 1 - value if row["metric"] == "delta1" else value}
        one["flops"] = float(row["training_flops"])
    return sorted((Rung(models[run], **one) for run, one in runs.items()), key=lambda r: r[1:3])


def _made() -> list[Rung]:
    """Those that the forecast was made from."""
    return [rung for rung in rungs() if rung.model != HELD_OUT]


def _by_model() -> dict[str, list[Rung]]:
    names = dict.fromkeys(rung.model for rung in _made())
    return {name: [rung for rung in _made() if rung.model == name] for name in names}


# ---------------------------------------------------------------------------- gains of a doubling


def _gains(rungs: list[Rung], quantity: str) -> list[float]:
    """Share of the error that each doubling of the images takes away."""
    values = [getattr(rung, quantity) for rung in rungs]
    return [1 - after / before for before, after in pairwise(values)]


def gains() -> str:
    """Gains of every doubling, and what they say of the shape of curves over images."""
    rows, said = [], []
    for model, own in _by_model().items():
        cells = [_percents(_gains(own, quantity)) for quantity in QUANTITIES]
        rows.append([model, f"{own[0].images:,.0f} to {own[-1].images:,.0f}", *cells])
    for quantity, name in QUANTITIES.items():
        steep = {model: _steepens(_gains(own, quantity)) for model, own in _by_model().items()}
        flat = [model for model, more in steep.items() if not more]
        at = f"{sum(steep.values())} of {len(steep)} sizes"
        said.append(f"in {name} at {at}{' (not ' + ', '.join(flat) + ')' if flat else ''}")
    header = ["model", "images", *QUANTITIES.values()]
    sentence = f"The last doubling gains more than the first {'; '.join(said)}.\n"
    return table(header, rows) + f"\n{sentence}"


def _steepens(gains: list[float]) -> bool:
    return gains[-1] > gains[0]


def _percents(shares: list[float]) -> str:
    return ", ".join(f"{share:.0%}".rstrip("%") for share in shares) + " %"


# ---------------------------------------------------------------------------- laws


@cache
def fitted() -> dict[str, Any]:
    """What scripts/docs_laws.py found."""
    return json.loads((common.DATA / LAWS).read_text(encoding="utf-8"))


def laws() -> str:
    """A row for every form of a law, the best first, and one for their average."""
    rows = []
    for law in fitted()["laws"]:
        exponents = [
            f"{name} {bare(value)} [{bare(lo)}, {bare(hi)}]"
            for name, (value, lo, hi) in law["exponents"].items()
        ]
        tested = law["backtest"]
        hits = f"{tested['hits']} of {tested['of']}, {share(tested['error'])}" if tested else "none"
        r2 = "" if law["r2"] is None else f"{law['r2']:.3f}"
        cells = [law["form"], ", ".join(exponents), r2, hits, law["verdict"]]
        rows.append([f"{QUANTITIES[law['quantity']]}, {law['against']}", *cells])
    header = ["quantity", "form", "exponents", "R²", "back-test: inside, error", "verdict"]
    return table(header, rows)


# ---------------------------------------------------------------------------- the forecast


def forecast() -> str:
    """Forecasts as they were made, beside what docs/data holds of the outcome."""
    rows, off, inside = [], [], []
    (outcome,) = (rung for rung in rungs() if rung.model == HELD_OUT)
    for row in _forecasts():
        if row["metric"] in PRINTED:
            error = getattr(outcome, row["metric"])
            reached = error if row["lower_is_better"] else 1 - error
            off.append(row["value"] / reached - 1)
            worse = off[-1] > 0 if row["lower_is_better"] else off[-1] < 0
            inside.append((row["lo"] <= reached <= row["hi"], worse))
            said = f"{'inside' if inside[-1][0] else 'outside'}, {_off(off[-1])}"
            ends = f"[{bare(row['lo'])}, {bare(row['hi'])}]"
            rows.append([PRINTED[row["metric"]], bare(row["value"]), ends, bare(reached), said])
    about = f"{HELD_OUT}, {outcome.params / 1e6:.2f} M parameters, {outcome.images:,.0f} images"
    hits, worse = (sum(column) for column in zip(*inside))
    said = f"{hits} of {len(inside)} lie inside; {worse} were forecast too pessimistically.\n"
    return table([about, "forecast", "90 % interval", "outcome", ""], rows) + f"\n{said}"


def _forecasts() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (common.DATA / FORECASTS).read_text().splitlines()]


def _off(off: float) -> str:
    return f"{share(abs(off))} too {'high' if off > 0 else 'low'}"


def named() -> dict[str, str]:
    """Figures of sentences."""
    made, rows, found = _made(), _forecasts(), fitted()
    (outcome,) = (rung for rung in rungs() if rung.model == HELD_OUT)
    sizes, amounts = ([getattr(rung, name) for rung in made] for name in ("params", "images"))
    off = found["envelope"] / outcome.loss - 1
    today = found["today"]
    return {
        "params": f"{min(sizes) / 1e6:.2f} to {max(sizes) / 1e6:.1f} M",
        "images": f"{min(amounts):,.0f} to {max(amounts):,.0f}",
        "samples": f"{float(rows_of(LADDER)[0]['samples']):,.0f}",
        "decades": f"{math.log10(max(sizes) / min(sizes)):.1f}",
        "rungs": str(len(made)),
        "reach": f"{rows[0]['reach']:.1f}",
        "share": share(sum(rung.flops for rung in made) / outcome.flops),
        "envelope": f"{bare(found['envelope'])}, {_off(off)}",
        "today": f"{bare(today['value'])} [{bare(today['lo'])}, {bare(today['hi'])}]",
        "outcome": bare(outcome.loss),
    }


# ---------------------------------------------------------------------------- emergence


def onset() -> str:
    """Models without any fine-tuning beside what the elbow says of five images."""
    rows, found = rows_of(ZERO), fitted()["emergence"]
    losses = [float(row["loss"]) for row in rows]
    base, slope, few = found["B"], found["A"], found["few_shot"]
    expected = [base + slope * max(0.0, few - loss) for loss in losses]
    shown = [
        ["δ1, zero-shot", *(f"{float(row['delta1']):.3f}" for row in rows)],
        ["predicted, B + A max(0, E(5) - L)", *(f"{value:.3f}" for value in expected)],
    ]
    return table(["loss of the model", *(f"{loss:.4f}" for loss in losses)], shown)


def emergence() -> dict[str, str]:
    """Figures of sentences."""
    found, rows = fitted()["emergence"], rows_of(EMERGENCE)
    trivial = [float(row["trivial"]) for row in rows if row["metric"] == "delta1"]
    lo, hi = found["few_shot_interval"]
    few, many = (bare(elbow, 2) for elbow in found["elbows"])
    return {
        "verdict": found["verdict"],
        "runs": str(len(rows) // 2),
        "r2": bare(found["r2"]),
        "base": f"{found['B']:.2f}".removeprefix("0"),
        "mean-map": f"{sum(trivial) / len(trivial):.2f}".removeprefix("0"),
        "slope": bare(found["A"] / 100),
        "elbow-few": few,
        "elbow-many": many,
        "companion": found["companion"],
        "onset": bare(found["few_shot"], 2),
        "width": bare(hi - lo, 2),
        "between": _between(found),
        "against": "; ".join(found["warnings"]) or "nothing",
    }


def _between(found: dict[str, Any]) -> str:
    """Losses between which zero-shot values leave B, and on which side of them E(5) lies."""
    rows = sorted(rows_of(ZERO), key=lambda row: -float(row["loss"]))
    above = [float(row["delta1"]) > found["B"] + 2 * found["sigma"] for row in rows]
    first = above.index(True)
    worse, better = (float(rows[place]["loss"]) for place in (first - 1, first))
    inside = better <= found["few_shot"] <= worse
    where = "where E(5) lies" if inside else "E(5) lies elsewhere"
    return f"between losses of {bare(worse)} and {bare(better)}, {where}"
