"""How to spend compute: on parameters or samples, on training or sampling.

With --law, constants of a law of parameters and samples, or --points, a table of runs to fit it to:
for each --budget the compute-optimal model; for --target, --queries and --sampling the cheapest
model and sampling that give so many answers at that error. With --profiles, a table of IsoFLOP
runs: the optimum of each budget, and the power laws through them. With --measured, a table of
configurations with training cost, cost a query and error: which is the cheapest for how many
queries, without any law.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.cli.scaling.assignments import constants
from stepsight.cli.scaling.rows import where
from stepsight.cli.scaling.tables import Rows, numbers, read_table, texts
from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import (
    FORMS,
    TRAINING_FACTOR,
    TrainingLaw,
    allocate,
)
from stepsight.scaling.compute_allocation.isoflop import isoflop
from stepsight.scaling.compute_allocation.serving import (
    LEAST,
    MOST,
    SamplingLaw,
    cheapest_ranges,
    serve,
)
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.interpolation import Setting

MAX_EXTRAPOLATION = 30.0
BOOTSTRAP = 200
ANSWER = {"budget", "factor", "target", "queries", "sampling", "query_factor", "least", "most"}
COLUMNS = {"params", "samples", "loss"}
# What each source reads besides itself; --json is for all.
READS = {
    "law": {"form"} | ANSWER,
    "points": {"form", "where"} | COLUMNS | ANSWER,
    "profiles": {"where", "compute", "budget", "factor", "bootstrap"} | COLUMNS,
    "measured": {"where", "training", "query", "error", "name", "target", "queries"},
}


def add_flags(own: argparse.ArgumentParser) -> None:
    source = own.add_mutually_exclusive_group(required=True)
    source.add_argument("--law", metavar="E=..,A=..,alpha=..,B=..,beta=..", help="constants")
    source.add_argument("--points", type=Path, help="a table of runs, to fit the law to")
    source.add_argument("--profiles", type=Path, help="a table of IsoFLOP runs")
    source.add_argument("--measured", type=Path, help="a table of configurations and their costs")
    own.add_argument("--form", choices=FORMS, help=f"of the law, by default {FORMS[0]}")
    own.add_argument(
        "--where",
        action="append",
        metavar="COL=VALUE",
        help="only these rows of the table; also COL!=VALUE, COL<VALUE, COL>VALUE",
    )
    for name, about in (
        ("params", "column of parameters"),
        ("samples", "column of samples; of profiles by default budget / (factor x parameters)"),
        ("loss", "column of losses"),
        ("compute", "with --profiles: column of nominal budgets in FLOPs"),
        ("training", "with --measured: column of training costs"),
        ("query", "with --measured: column of costs of one query, in the same unit"),
        ("error", "with --measured: column of errors, lower is better"),
        ("name", "with --measured: columns COL[,COL] that name a row"),
    ):
        own.add_argument(f"--{name}", metavar="COL", help=about)
    own.add_argument("--budget", help="training FLOPs, one or several: 1e18,1e20")
    own.add_argument(
        "--factor",
        type=float,
        help=f"training FLOPs a parameter and sample, by default {TRAINING_FACTOR:g}; "
        "where a sample is an image times its tokens and the share of parameters acting on each",
    )
    own.add_argument("--target", type=float, help="error to reach")
    own.add_argument("--queries", type=float, help="answers to give at that error")
    own.add_argument(
        "--sampling",
        metavar="A=..,a=..,B=..,b=..",
        help="what T steps and M members leave: A T^-a + B M^-b",
    )
    own.add_argument(
        "--query-factor", type=float, help="FLOPs a parameter and model call, by default factor / 3"
    )
    own.add_argument("--least", metavar="TxM", help="least steps x members, by default 1x1")
    own.add_argument("--most", metavar="TxM", help="most, by default {}x{}".format(*MOST))
    own.add_argument("--bootstrap", type=int, help=f"with --profiles: by default {BOOTSTRAP}")
    own.add_argument("--json", action="store_true", help="print JSON")


def run(door: argparse.Namespace) -> int:
    """Print the answer. Raises UserError where something is missing or does not belong."""
    source = next(name for name in READS if getattr(door, name) is not None)
    foreign = sorted(
        name
        for name in set.union(*READS.values()) - READS[source]
        if getattr(door, name) is not None
    )
    if foreign:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise UserError(f"--{source} has no use for {flags}.")
    found = {
        "law": _of_law,
        "points": _of_points,
        "profiles": _of_profiles,
        "measured": _of_measured,
    }[source](door)
    print(json.dumps(plain(found), indent=2) if door.json else "\n".join(_lines(found)))
    return 0


def _of_law(door: argparse.Namespace) -> dict[str, Any]:
    law = TrainingLaw.of(constants("--law", door.law), door.form or FORMS[0])
    return _answer(door, law, [], math.inf)


def _of_points(door: argparse.Namespace) -> dict[str, Any]:
    from stepsight.scaling.laws.fits import fit

    _need(door, "params", "samples", "loss")
    rows = _rows(door, door.points)
    params, samples, loss = (
        numbers(door.points, rows, getattr(door, name)) for name in ("params", "samples", "loss")
    )
    form = door.form or FORMS[0]
    fitted = fit(form, np.stack([params, samples], axis=1), loss, bootstrap=0)
    notes = [f"fit of {fitted.n} runs: {fitted.verdict}, R2 {fitted.r2:.4f}", *fitted.warnings]
    reach = float((params * samples).max()) * _factor(door)
    return _answer(door, TrainingLaw.of(fitted.params, form), notes, MAX_EXTRAPOLATION * reach)


def _answer(
    door: argparse.Namespace, law: TrainingLaw, notes: list[str], reach: float
) -> dict[str, Any]:
    """Optima of budgets and the deployment asked for; beyond `reach` FLOPs a note warns."""
    factor = _factor(door)
    optima = [allocate(law, budget, factor)._asdict() for budget in _budgets(door.budget)]
    found: dict[str, Any] = {"law": vars(law) | {"a": law.a, "b": law.b, "G": law.G}}
    found |= {"factor": factor, "optima": optima}
    spent = [one["budget"] for one in optima]
    if door.target is not None:
        _need(door, "queries", "sampling")
        answer = serve(
            law,
            SamplingLaw.of(constants("--sampling", door.sampling)),
            door.target,
            door.queries,
            factor=factor,
            query_factor=door.query_factor,
            least=_setting("--least", door.least, LEAST),
            most=_setting("--most", door.most, MOST),
        )
        least = answer.least and answer.least._asdict()
        found["serving"] = vars(answer) | {"best": answer.best._asdict(), "least": least}
        spent.append(answer.best.training)
    elif not optima:
        raise UserError("Ask for something: --budget, or --target with --queries and --sampling.")
    else:
        idle = ("queries", "sampling", "query_factor", "least", "most")
        if any(getattr(door, name) is not None for name in idle):
            raise UserError("Queries and sampling are about an error to reach: say --target.")
    if max(spent) > reach:
        times = f"{MAX_EXTRAPOLATION:g} times the largest run"
        notes.append(f"extrapolating: {max(spent):.3g} FLOPs is over {times}")
    return found | {"warnings": notes}


def _of_profiles(door: argparse.Namespace) -> dict[str, Any]:
    _need(door, "params", "loss", "compute")
    rows = _rows(door, door.profiles)
    budget, params, loss = (
        numbers(door.profiles, rows, getattr(door, name)) for name in ("compute", "params", "loss")
    )
    if door.samples:
        if door.factor is not None:
            raise UserError("--factor stands for --samples where a table has no such column.")
        samples = numbers(door.profiles, rows, door.samples)
    else:
        samples = budget / (_factor(door) * params)
    count = BOOTSTRAP if door.bootstrap is None else door.bootstrap
    one = isoflop(budget, params, samples, loss, bootstrap=count)
    optima = [
        {"budget": asked, "params": one.params(asked), "samples": one.samples(asked)}
        for asked in _budgets(door.budget)
    ]
    found = one.to_dict() | {"optima": optima}
    if optima and max(row["budget"] for row in optima) > MAX_EXTRAPOLATION * one.budgets[1]:
        note = f"extrapolating over {MAX_EXTRAPOLATION:g} times beyond the largest budget"
        found["warnings"] = [*found["warnings"], note]
    return found


def _of_measured(door: argparse.Namespace) -> dict[str, Any]:
    _need(door, "training", "query", "error", "target")
    rows = _rows(door, door.measured)
    costs = [
        numbers(door.measured, rows, getattr(door, name)) for name in ("training", "query", "error")
    ]
    columns = door.name.split(",") if door.name else []
    names = [" ".join(own) for own in zip(*(texts(door.measured, rows, c) for c in columns))]
    ranges = [
        {
            "name": names[one.place] if names else f"row {one.place + 1}",
            **dict(zip(("training", "query", "error"), (float(c[one.place]) for c in costs))),
            "start": one.start,
            "end": one.end,
        }
        for one in cheapest_ranges(costs[0], costs[1], costs[2], door.target)
    ]
    found: dict[str, Any] = {"target": door.target, "ranges": ranges}
    if door.queries is not None:
        if not door.queries >= 0:
            raise UserError(f"--queries {door.queries:g}: write a number of answers.")
        own = next(one for one in reversed(ranges) if one["start"] <= door.queries)
        total = own["training"] + door.queries * own["query"]
        found["best"] = own | {"queries": door.queries, "total": total}
    return found


def _rows(door: argparse.Namespace, path: Path) -> Rows:
    """The rows of a table that --where chooses."""
    return where(path, read_table(path), door.where or ())


def _factor(door: argparse.Namespace) -> float:
    factor = TRAINING_FACTOR if door.factor is None else door.factor
    if not 0 < factor < math.inf:
        raise UserError(f"--factor {factor:g}: FLOPs a parameter and sample are positive.")
    return factor


def _need(door: argparse.Namespace, *names: str) -> None:
    missing = [f"--{name}" for name in names if getattr(door, name) is None]
    if missing:
        raise UserError(f"This needs {' and '.join(missing)} too.")


def _budgets(text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise UserError(f"--budget {text}: write FLOPs, such as 1e18,1e20.") from error


def _setting(flag: str, text: str | None, default: Setting) -> Setting:
    if text is None:
        return default
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise UserError(f"{flag} {text}: write steps x members without spaces, such as 8x4.")
    return int(found[1]), int(found[2])


def _lines(found: dict[str, Any]) -> Iterable[str]:
    """The answer in words and rows."""
    if "law" in found:
        law = found["law"]
        yield f"law       {law['form']}: N* ~ C^{law['a']:.4g}, D* ~ C^{law['b']:.4g}"
    if "profiles" in found:
        for one in found["profiles"]:
            place = "" if one["inside"] else "  outside of the sizes"
            yield f"{one['budget']:.3g}  {_model(one)}, loss {one['loss'] or math.nan:.4g}{place}"
        for name in "ab":
            lo, hi = (math.nan if end is None else end for end in found["intervals"][name])
            yield f"{name}         {found[name]:.4g} [{lo:.4g}, {hi:.4g}]"
    for one in found.get("optima", ()):
        loss = f", loss {one['loss']:.4g}" if "loss" in one else ""
        yield f"budget    {one['budget']:.3g}: {_model(one)}{loss}"
    if "serving" in found:
        yield from _served(found["serving"])
    for one in found.get("ranges", ()):
        yield f"{one['start']:.3g} to {one['end']:.3g} queries: {one['name']}, {one['error']:.4g}"
    if "best" in found:
        best = found["best"]
        yield f"{best['queries']:.3g} queries: {best['name']}, total {best['total']:.4g}"
    yield from (f"  {warning}" for warning in found.get("warnings", ()))


def _model(one: dict[str, Any]) -> str:
    params, samples = (math.nan if one[k] is None else one[k] for k in ("params", "samples"))
    return f"{params:.4g} parameters, {samples:.4g} samples"


def _served(answer: dict[str, Any]) -> Iterable[str]:
    yield f"target    {answer['target']:g} for {answer['queries']:g} queries"
    for name in ("best", "least"):
        if one := answer[name]:
            setting = f"{one['steps']} steps x {one['members']} members"
            costs = f"{one['training']:.4g} training + {one['serving']:.4g} serving"
            yield f"{name:<10}{_model(one)}, {setting}: {costs} = {one['total']:.4g} FLOPs"
    if answer["break_even"] is not None:
        yield f"          from {answer['break_even']:.3g} queries on the least sampling is cheapest"
    elif answer["least"]:
        yield "          more sampling than the least pays for any number of queries"
    yield from (f"  {warning}" for warning in answer["warnings"])
