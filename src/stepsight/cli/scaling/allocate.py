"""`stepsight scaling allocate`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import arg

from stepsight.cli.entry import at_least, exactly_one, setting
from stepsight.cli.scaling.tables import Table, constants
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

MAX_EXTRAPOLATION = 30.0
BOOTSTRAP = 200
RATES = {"lr", "learning_rate"}  # columns of what is tuned, and may not follow the size unseen
SERVING = ("queries", "sampling", "query_factor", "least", "most")
ANSWER = {"budget", "factor", "target", *SERVING}
COLUMNS = {"params", "samples", "loss"}
# What each source reads besides itself; --json is for all.
READS = {
    "law": {"form"} | ANSWER,
    "points": {"form", "where", "runs", "bootstrap"} | COLUMNS | ANSWER,
    "profiles": {"where", "compute", "budget", "factor", "bootstrap"} | COLUMNS,
    "measured": {"where", "training", "query", "error", "name", "target", "queries"},
}


@dataclass(frozen=True)
class Args:
    """How to spend compute: on parameters or samples, on training or sampling.

    With --law, constants of a law of parameters and samples, or --points, a table of runs to fit it
    to: for each --budget the compute-optimal model; for --target, --queries and --sampling the
    cheapest model and sampling that give so many answers at that error. With --profiles, a table of
    IsoFLOP runs: the optimum of each budget, and the power laws through them. Tables give 95 %
    intervals; constants have none, as they hide how they vary together. With --measured, a
    table of configurations with training cost, cost per query and error: which is the cheapest for
    how many queries, without any law.
    """

    law: str | None = None  # constants, E=..,A=..,alpha=..,B=..,beta=..
    points: Path | None = None  # a table of runs, to fit the law to
    profiles: Path | None = None  # a table of IsoFLOP runs
    measured: Path | None = None  # a table of configurations and their costs
    form: Literal["chinchilla", "kaplan"] | None = None  # of the law; default: chinchilla
    where: tuple[str, ...] = ()  # only rows of COL=VALUE; also COL!=VALUE, COL<VALUE, COL>VALUE
    params: str | None = None  # column of parameters
    # column of samples; of profiles by default budget / (factor x parameters)
    samples: str | None = None
    loss: str | None = None  # column of losses
    runs: str | None = None  # with --points: column of runs, which resamples draw whole
    compute: str | None = None  # with --profiles: column of nominal budgets in FLOPs
    training: str | None = None  # with --measured: column of training costs
    query: str | None = None  # with --measured: column of costs of one query, in the same unit
    error: str | None = None  # with --measured: column of errors, lower is better
    name: str | None = None  # with --measured: columns COL[,COL] that name a row
    budget: str | None = None  # training FLOPs, one or several: 1e18,1e20
    factor: Annotated[
        float | None,
        arg(
            help=f"training FLOPs per parameter and sample, by default {TRAINING_FACTOR:g}; where "
            "a sample is an image times its tokens and the share of parameters acting on each"
        ),
    ] = None
    target: float | None = None  # error to reach
    queries: float | None = None  # answers to give at that error
    sampling: str | None = None  # A=..,a=..,B=..,b=..: T steps and M members leave A T^-a + B M^-b
    query_factor: float | None = None  # FLOPs per parameter and model call; default: factor / 3
    least: str | None = None  # least steps x members, as TxM; default: 1x1
    most: Annotated[str | None, arg(help="most, by default {}x{}".format(*MOST))] = None
    bootstrap: int | None = None  # of --points, --profiles: resamples, 0 for none; default: 200
    json: bool = False  # print JSON


def run(args: Args) -> int:
    """Print the answer. Raises UserError where something is missing or does not belong."""
    source = exactly_one(args, *READS)
    unread = set.union(*READS.values()) - READS[source]
    if foreign := sorted(name for name in unread if getattr(args, name) not in (None, ())):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise UserError(f"--{source} has no use for {flags}.")
    at_least(0, "--bootstrap", args.bootstrap)
    kinds = {"points": _of_points, "profiles": _of_profiles, "measured": _of_measured}
    answer = kinds.get(source, _of_law)(args)
    print(json.dumps(plain(answer), indent=2) if args.json else "\n".join(_lines(answer)))
    return 0


def _of_law(args: Args) -> dict[str, Any]:
    law = TrainingLaw.of(constants("--law", str(args.law)), args.form or FORMS[0])
    factor = _factor(args)
    optima = [allocate(law, budget, factor)._asdict() for budget in _budgets(args.budget)]
    note = "constants alone give no intervals: they vary together; give the runs with --points"
    return _answer(args, law, {"optima": optima}, [note], math.inf)


def _of_points(args: Args) -> dict[str, Any]:
    from stepsight.scaling.compute_allocation.fitted import confounded, fit_training_law

    params, samples, loss = _columns(args, args.points, "params", "samples", "loss").values()
    table = Table.read(args.points, args.where)
    found = fit_training_law(
        args.form or FORMS[0],
        params,
        samples,
        loss,
        groups=table.texts(args.runs) if args.runs else None,
        bootstrap=_resamples(args),
    )
    fit, factor = found.fit, _factor(args)
    notes = [f"fit of {fit.n} runs: {fit.verdict}, R2 {fit.r2:.4f}", *fit.warnings]
    if args.target is not None:
        notes.append("the deployment is that of the fitted law itself: it has no interval")
    for name in sorted(table.rows[0].keys() & RATES):
        notes += confounded(name, table.numbers(name), params, samples)
    if found.lost:
        notes.append(f"{found.lost} of {len(fit.draws)} resamples have no optimum: a term vanishes")
    more = {
        "optima": [found.optimum(budget, factor) for budget in _budgets(args.budget)],
        "intervals": found.intervals,
        "level": found.level,
        "verdict": fit.verdict,
        "backtest": fit.backtest and vars(fit.backtest),
    }
    reach = float((params * samples).max()) * factor
    return _answer(args, found.law, more, notes, MAX_EXTRAPOLATION * reach)


def _answer(
    args: Args, law: TrainingLaw, more: dict[str, Any], notes: list[str], reach: float
) -> dict[str, Any]:
    """The optima in `more` and the deployment asked for; beyond `reach` FLOPs a note warns."""
    factor, optima = _factor(args), more["optima"]
    answer: dict[str, Any] = {"law": vars(law) | {"a": law.a, "b": law.b, "G": law.G}}
    answer |= {"factor": factor} | more
    spent = [optimum["budget"] for optimum in optima]
    if args.target is not None:
        queries = _needed(args, "queries", "sampling")
        served = serve(
            law,
            SamplingLaw.of(constants("--sampling", str(args.sampling))),
            args.target,
            queries,
            factor=factor,
            query_factor=args.query_factor,
            least=setting("--least", args.least) if args.least else LEAST,
            most=setting("--most", args.most) if args.most else MOST,
        )
        least = served.least and served.least._asdict()
        answer["serving"] = vars(served) | {"best": served.best._asdict(), "least": least}
        spent.append(served.best.training)
    elif not optima:
        raise UserError("Ask for something: --budget, or --target with --queries and --sampling.")
    elif idle := [name for name in SERVING if getattr(args, name) is not None]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise UserError(f"{flags}: of an error to reach, so say --target.")
    if max(spent) > reach:
        times = f"{MAX_EXTRAPOLATION:g} times the largest run"
        notes.append(f"extrapolating: {max(spent):.3g} FLOPs is over {times}")
    return answer | {"warnings": notes}


def _of_profiles(args: Args) -> dict[str, Any]:
    names = ("params", "loss", "compute", "samples")[: 4 if args.samples else 3]
    params, loss, budget, *samples = _columns(args, args.profiles, *names).values()
    if args.samples and args.factor is not None:
        raise UserError("--factor replaces --samples where a table has no such column.")
    samples = samples[0] if samples else budget / (_factor(args) * params)
    fitted = isoflop(budget, params, samples, loss, bootstrap=_resamples(args))
    asked = _budgets(args.budget)
    answer = fitted.to_dict() | {"optima": [fitted.optimum(c) for c in asked]}
    if max(asked, default=0) > MAX_EXTRAPOLATION * fitted.budgets[1]:
        note = f"extrapolating over {MAX_EXTRAPOLATION:g} times beyond the largest budget"
        answer["warnings"] = [*answer["warnings"], note]
    return answer


def _of_measured(args: Args) -> dict[str, Any]:
    target = _needed(args, "target")
    _needed(args, "training", "query", "error")
    table = Table.read(args.measured, args.where)
    free = table.checked(str(args.training), lambda cost: cost >= 0, "0 or more")  # as found
    costs = {"training": free}
    costs |= {name: table.positive(getattr(args, name)) for name in ("query", "error")}
    names = [f"row {place + 1}" for place in range(len(table.rows))]
    if args.name:
        columns = (table.texts(column) for column in args.name.split(","))
        names = [" ".join(cells) for cells in zip(*columns)]
    ranges = [
        {
            "name": names[cheapest.place],
            **{name: float(column[cheapest.place]) for name, column in costs.items()},
            "start": cheapest.start,
            "end": cheapest.end,
        }
        for cheapest in cheapest_ranges(*costs.values(), target=target)
    ]
    answer: dict[str, Any] = {"target": target, "ranges": ranges}
    if args.queries is not None:
        if not args.queries >= 0:
            raise UserError(f"--queries {args.queries:g}: write a number of answers.")
        best = next(row for row in reversed(ranges) if row["start"] <= args.queries)
        total = best["training"] + args.queries * best["query"]
        answer["best"] = best | {"queries": args.queries, "total": total}
    return answer


def _columns(args: Args, path: Path | None, *names: str) -> dict[str, np.ndarray]:
    """The columns that those flags name, of the rows that --where chooses. Raises UserError."""
    _needed(args, *names)
    table = Table.read(path, args.where)
    return {name: table.numbers(getattr(args, name)) for name in names}


def _factor(args: Args) -> float:
    factor = TRAINING_FACTOR if args.factor is None else args.factor
    if not 0 < factor < math.inf:
        raise UserError(f"--factor {factor:g}: FLOPs per parameter and sample are positive.")
    return factor


def _resamples(args: Args) -> int:
    return BOOTSTRAP if args.bootstrap is None else args.bootstrap


def _needed(args: Args, *names: str) -> Any:
    """The value of the first of the flags. Raises UserError unless all are given."""
    missing = [f"--{name}" for name in names if getattr(args, name) is None]
    if missing:
        raise UserError(f"missing: {' and '.join(missing)}.")
    return getattr(args, names[0])


def _budgets(text: str | None) -> list[float]:
    try:
        budgets = [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise UserError(f"--budget {text}: write FLOPs, such as 1e18,1e20.") from error
    if not all(0 < budget < math.inf for budget in budgets):
        raise UserError(f"--budget {text}: FLOPs are above 0. Write them such as 1e18,1e20.")
    return budgets


def _lines(answer: dict[str, Any]) -> Iterable[str]:
    """The answer in words and rows."""
    if law := answer.get("law"):
        yield f"law       {law['form']}: N* ~ C^{law['a']:.4g}, D* ~ C^{law['b']:.4g}"
    for row in answer.get("profiles", ()):
        place = "" if row["inside"] else "  outside of the sizes"
        yield f"{row['budget']:.3g}  {_model(row)}, loss {row['loss'] or math.nan:.4g}{place}"
    values = answer.get("law", answer)
    for name, ends in answer.get("intervals", {}).items():
        yield f"{name:<9} {values[name]:.4g}{_ends(ends)}"
    if past := answer.get("backtest"):
        told = f"{past['hits']} of {past['of']} hidden runs inside 90%"
        yield f"back-test {told}, up to {past['reach']:.3g} times beyond the rest"
    for row in answer.get("optima", ()):
        loss = f", loss {row['loss']:.4g}{_ends(row.get('loss_interval'))}" if "loss" in row else ""
        denied = row.get("verdict", "law")
        caveat = "" if denied == "law" else f"  ({denied})"
        yield f"budget    {row['budget']:.3g}: {_model(row)}{loss}{caveat}"
    if "serving" in answer:
        yield from _served(answer["serving"])
    for row in answer.get("ranges", ()):
        yield f"{row['start']:.3g} to {row['end']:.3g} queries: {row['name']}, {row['error']:.4g}"
    if best := answer.get("best"):
        yield f"{best['queries']:.3g} queries: {best['name']}, total {best['total']:.4g}"
    yield from (f"  {warning}" for warning in answer.get("warnings", ()))


def _model(row: dict[str, Any]) -> str:
    params, samples = (
        f"{math.nan if row[name] is None else row[name]:.4g} {word}{_ends(row.get(interval))}"
        for name, word, interval in (
            ("params", "parameters", "params_interval"),
            ("samples", "samples", "samples_interval"),
        )
    )
    return f"{params}, {samples}"


def _ends(ends: tuple[float | None, float | None] | None) -> str:
    """An interval in brackets; nothing where there is none."""
    if ends is None:
        return ""
    lo, hi = (math.nan if end is None else end for end in ends)
    return f" [{lo:.4g}, {hi:.4g}]"


def _served(answer: dict[str, Any]) -> Iterable[str]:
    yield f"target    {answer['target']:g} for {answer['queries']:g} queries"
    for name in ("best", "least"):
        if row := answer[name]:
            sampling = f"{row['steps']} steps x {row['members']} members"
            costs = f"{row['training']:.4g} training + {row['serving']:.4g} serving"
            yield f"{name:<10}{_model(row)}, {sampling}: {costs} = {row['total']:.4g} FLOPs"
    if answer["break_even"] is not None:
        yield f"          from {answer['break_even']:.3g} queries on the least sampling is cheapest"
    elif answer["least"]:
        yield "          more sampling than the least pays for any number of queries"
    yield from (f"  {warning}" for warning in answer["warnings"])
