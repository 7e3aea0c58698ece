"""Pairs of losses or errors for loss-to-loss prediction: from two tables, or from run records.

Runs are paired by what they are and by what they have seen, never by wall time. A pairing says what
stands on both axes and what counts as the same:

* checkpoint: both numbers were measured on one set of weights;
* amount: the same model after the same number of images, in one run or in several;
* parent: a fine-tuned model and the checkpoint whose weights it started from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from stepsight.errors import UserError, suggest
from stepsight.scaling.records import ScalingRecord, column

# What must be the same along one axis, whatever is measured there.
LOSS_KIND = ("task",)  # a loss belongs to a checkpoint and a task, however that was sampled
VALUE_KIND = ("task", "dataset", "protocol", "metric", "sampler", "nfe", "members", "size")
PRETRAINING_TASK = "image"

Where = Mapping[str, str]


class PairingRule(NamedTuple):
    """What stands on both axes, and how its records are paired."""

    about: str
    x: str  # column of the records: loss, loss_bin_0, ..., or value
    y: str
    by: str
    x_where: Where = {}


ERRORS = "value", "value", "checkpoint"
PAIRINGS = {
    "pretrain-finetune": PairingRule(
        "pretraining loss to fine-tuning loss", "loss", "loss", "parent", {"task": PRETRAINING_TASK}
    ),
    "task-task": PairingRule("loss of one task to loss of another", "loss", "loss", "amount"),
    "loss-metric": PairingRule("validation loss to error", "loss", "value", "checkpoint"),
    "synthetic-real": PairingRule("error on scenes to error on a real set", *ERRORS),
    "real-real": PairingRule("error on one set to error on another", *ERRORS),
    "test-time": PairingRule("error at one sampling cost to another", *ERRORS),
}


class LossPair(NamedTuple):
    """Two numbers of one checkpoint, or of two that correspond."""

    label: str  # the run, or the model where several runs were averaged: what bootstraps resample
    x: float
    y: float


@dataclass(frozen=True)
class PairedLosses:
    """Pairs in order of x, what their axes are, and what a reader ought to be told."""

    pairs: tuple[LossPair, ...]
    x: str
    y: str
    notes: tuple[str, ...]


# key of what corresponds -> run -> the values measured there
_Axis = dict[Hashable, dict[str, list[float]]]
_Key = Callable[[ScalingRecord], tuple[Hashable, str]]  # what corresponds, and within it, the run


def join(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Inner join: places in both columns that hold the same key, in the order of `left`.

    Raises:
        UserError: a key stands twice in one of the columns, so that pairs would be arbitrary.
    """
    places = {}
    for keys in (right, left):
        places = {key: place for place, key in enumerate(keys)}
        if len(places) < len(keys):
            twice = next(key for place, key in enumerate(keys) if places[key] != place)
            raise UserError(
                f"Several rows of one group hold {twice}: which belongs to which is not said. "
                "Join on more columns, or leave rows out."
            )
    partner = {key: place for place, key in enumerate(right)}
    return [(place, partner[key]) for key, place in places.items() if key in partner]


def pair(
    records: Sequence[ScalingRecord],
    pairing: str,
    *,
    x: str | None = None,
    y: str | None = None,
    x_where: Where | None = None,
    y_where: Where | None = None,
) -> PairedLosses:
    """Pairs of one of `PAIRINGS`. `x` and `y` are columns of the records, by default its own.

    The `where` mappings choose records by fields, such as {"task": "depth", "nfe": "8"}. Metrics
    that are better when higher enter as 1 - value. Runs of the same key are paired run by run where
    both axes hold the run; otherwise their means are, as with two specialists or several seeds.

    Raises:
        UserError: there is no such pairing or field; an axis holds nothing, or mixes tasks,
            protocols or settings; both axes are the same; or nothing on them corresponds.
    """
    if pairing not in PAIRINGS:
        raise UserError(f"There is no pairing '{pairing}'.{suggest(pairing, PAIRINGS)}")
    rule = PAIRINGS[pairing]
    axes = (x or rule.x, y or rule.y)
    lefts = _select(records, {**rule.x_where, **(x_where or {})}, "x", axes[0])
    rights = _select(records, y_where or {}, "y", axes[1])
    names = [_named(side[0], axis) for side, axis in zip((lefts, rights), axes)]
    if names[0] == names[1] and rule.by == "parent":
        lefts, rights = _before_and_after(lefts, rights)
        names = [f"{names[0]}, before", f"{names[1]}, after"]
    if names[0] == names[1] or not (lefts and rights):
        raise UserError(f"Both axes are {names[0]}. Choose what differs with --x-where, --y-where.")
    if rule.by == "parent":
        rights, notes = _equally_tuned(rights)
        keys = _parents(rights)
        lefts = lefts if _told(rights) else _last(lefts)
    else:
        notes, keys = [], (_KEYS[rule.by],) * 2
    table = _axis(lefts, axes[0], keys[0], notes), _axis(rights, axes[1], keys[1], notes)
    pairs = [pair for key in table[0] for pair in _matched(table[0][key], table[1].get(key, {}))]
    if not pairs:
        counts = " and ".join(f"{len(axis)} of {name}" for axis, name in zip(table, names))
        raise UserError(f"No pairs by {rule.by}: {counts}, none of which correspond.")
    notes += _unpaired(*table)
    ordered = tuple(sorted(pairs, key=lambda pair: pair.x))
    return PairedLosses(ordered, names[0], names[1], tuple(notes))


def _before_and_after(
    lefts: Sequence[ScalingRecord], rights: Sequence[ScalingRecord]
) -> tuple[list[ScalingRecord], list[ScalingRecord]]:
    """Of records of one task: the runs that others started from, and those others."""
    tuned = [record for record in rights if record.parent]
    parents = {record.parent for record in tuned}
    return [record for record in lefts if record.run in parents], tuned


def _checkpoint(record: ScalingRecord) -> tuple[Hashable, str]:
    return (record.run, record.config, record.seed, record.images_seen), record.run


def _amount(record: ScalingRecord) -> tuple[Hashable, str]:
    return (record.model, record.images_seen), f"{record.run} {record.config} {record.seed}"


_KEYS: dict[str, _Key] = {"checkpoint": _checkpoint, "amount": _amount}


def _told(tuned: Sequence[ScalingRecord]) -> bool:
    """Whether fine-tuned runs say what was spent on the weights that they started from."""
    return all(record.inherited_flops for record in tuned)


def _parents(tuned: Sequence[ScalingRecord]) -> tuple[_Key, _Key]:
    """A checkpoint is known by the compute spent up to it, the run by its name.

    Compute tells checkpoints apart also where a conversion renamed the run. Where fine-tuned runs
    do not say it, the same backbone is all that is left.
    """
    if not _told(tuned):
        return (lambda r: (r.model, r.run)), (lambda r: (r.model, r.parent))
    return (
        lambda r: ((r.model, _rounded(r.training_flops + (r.inherited_flops or 0.0))), r.run),
        lambda r: ((r.model, _rounded(r.inherited_flops or 0.0)), r.parent),
    )


def _rounded(flops: float) -> str:
    """Sums of the same terms in another order are the same compute."""
    return f"{flops:.9g}"


def _last(records: Sequence[ScalingRecord]) -> list[ScalingRecord]:
    """The records of the last checkpoint of every run."""
    most = {r.run: r.images_seen for r in sorted(records, key=lambda r: r.images_seen)}
    return [record for record in records if record.images_seen == most[record.run]]


def _equally_tuned(tuned: Sequence[ScalingRecord]) -> tuple[list[ScalingRecord], list[str]]:
    """Fine-tuned models after the most images that all runs have reached.

    More fine-tuning is another curve; along one, only the pretraining may differ.
    """
    reached: dict[str, set[int]] = defaultdict(set)
    for record in tuned:
        reached[record.run].add(record.images_seen)
    common = set.intersection(*reached.values())
    if not common:
        known = sorted(set.union(*reached.values()))
        raise UserError(
            "The runs were fine-tuned for different numbers of images "
            f"({', '.join(map(str, known))}). Choose one with --y-where images_seen=N."
        )
    images = max(common)
    kept = [record for record in tuned if record.images_seen == images]
    return kept, [f"fine-tuned on {images} images each"]


def _select(
    records: Sequence[ScalingRecord], where: Where, axis: str, quantity: str
) -> list[ScalingRecord]:
    """The records of one axis, all of one kind."""
    kept = list(records)
    for name, wanted in where.items():
        if name not in _FIELDS:
            raise UserError(f"Records have no field '{name}'.{suggest(name, _FIELDS)}")
        known = {str(getattr(record, name)) for record in kept}
        kept = [record for record in kept if _is(getattr(record, name), wanted)]
        if not kept:
            raise UserError(f"{axis}: no records of {name} '{wanted}'.{suggest(wanted, known)}")
    if not kept:
        raise UserError("There are no records to pair.")
    for name in VALUE_KIND if quantity == "value" else LOSS_KIND:
        kinds = sorted({str(getattr(record, name)) for record in kept})
        if len(kinds) > 1:
            raise UserError(
                f"{axis} mixes records of {name} {', '.join(kinds)}. "
                f"Choose with --{axis}-where {name}={kinds[0]} or --where for both axes."
            )
    return kept


_FIELDS = {field.name for field in fields(ScalingRecord)} - {"loss_bins"}


def _is(value: object, wanted: str) -> bool:
    """Whether a field holds what was written; numbers may be written in any way."""
    if isinstance(value, str) or value is None:
        return (value or "") == wanted
    try:
        return value == float(wanted)
    except ValueError:
        return str(value) == wanted


def _named(record: ScalingRecord, quantity: str) -> str:
    if quantity != "value":
        return f"{record.task} {quantity}"
    setting = f"{record.sampler} {record.nfe} x {record.members}"
    size = f" at {record.size}" if record.size else ""
    metric = record.metric if record.lower_is_better else f"1 - {record.metric}"
    return f"{record.task} {record.dataset} {record.protocol} {metric}, {setting}{size}"


def _axis(records: Sequence[ScalingRecord], quantity: str, key: _Key, notes: list[str]) -> _Axis:
    """Errors by what they correspond to; what is no positive number is left out, and said."""
    axis: _Axis = defaultdict(lambda: defaultdict(list))
    left_out = 0
    for record, value in zip(records, column(records, quantity).tolist()):
        if quantity == "value" and not record.lower_is_better:
            if value > 1:
                raise UserError(
                    f"{record.metric} is better when higher and reaches {value:g}: as an error it "
                    "would be 1 - value. Use a metric between 0 and 1, or an error."
                )
            value = 1 - value
        if value > 0:
            what, run = key(record)
            axis[what][run].append(value)
        else:
            left_out += 1
    if left_out:
        notes.append(f"left out {left_out} records without a positive {quantity}")
    return axis


def _matched(xs: Mapping[str, list[float]], ys: Mapping[str, list[float]]) -> list[LossPair]:
    """Run by run where both axes hold the run, the means over runs otherwise."""
    common = [run for run in xs if run in ys]
    if common:
        return [LossPair(run, _mean(xs[run]), _mean(ys[run])) for run in common]
    if not (xs and ys):
        return []
    x, y = (_mean([_mean(values) for values in side.values()]) for side in (xs, ys))
    return [LossPair(" + ".join(xs), x, y)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _unpaired(xs: _Axis, ys: _Axis) -> list[str]:
    alone = len(xs.keys() ^ ys.keys())
    return [f"{alone} points have no partner"] if alone else []
