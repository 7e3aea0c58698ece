"""The graph of a study as its file tells it: stages, what each needs, and the miniature of it all.

    name: ...                                # of the study
    out: runs/paper                          # its folder; --out names another
    at_once: 2                               # stages at a time where there is no GPU
    slurm: {timeout_min: 2880}               # parameters of submitit's executor
    stages:
      latents: {kind: latents, config: configs/paper/pretrain.yaml}
      pretrain:
        kind: train
        config: configs/paper/pretrain.yaml  # or several, of which later ones win
        each: {size: [a1, a2]}               # a stage for each value: pretrain-a1, pretrain-a2
        set: {model.name: "DiT-{size}/2", training.latents: "{latents}"}
        labels: {of: [pretraining], size: "{size}"}
      depth:
        kind: train
        config: configs/paper/depth.yaml
        from: pretrain-a2@0.5                # its weights after half of its images
      sweep: {kind: sweep, from: ["depth*"], options: {nfe: "1,2,4"}}
    miniature:                               # what differs in small
      scale: 1/1000
      stages: {pretrain: {config: configs/pipeline/small.yaml}}

`{x}` is a value of `each`, the folder `{out}`, or the folder of the stage of that name, which is
then needed. `from` names a stage, a folder (with a slash in it), or for `sweep` and `laws` several,
also as patterns. `options` are flags of the command. In the miniature a stage's `config` comes
after that of the study; `set`, `options` and `labels` are laid over it; other keys replace it; a
stage that is null is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from stepsight.config.files import find
from stepsight.errors import UserError, suggest
from stepsight.scaling.reading import known, mapping

KINDS = ("train", "latents", "upcycle", "sweep", "laws")
SEVERAL = ("sweep", "laws")  # kinds that are of several stages
KEYS = {
    "study": ("name", "out", "at_once", "slurm", "stages", "miniature"),
    "stage": ("kind", "config", "each", "set", "from", "needs", "options", "labels"),
    "miniature": ("scale", "stages"),
}
LAID_OVER = ("set", "options", "labels")  # keys of the miniature that leave the others' entries
CONFIGURED = ("train", "latents")  # kinds that have settings; others take flags alone
NAME = re.compile(r"\w[\w.@+-]*")  # of a stage, which names its folder
TAKEN = ("configs", "logs", "slurm", "figures", "out")  # what else lies in the folder of a study
NESTED = 8  # words within words
NEAR = 10  # times the miniature's scale up to which it is the miniature that is scaled
INNERMOST = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Start:
    """Weights that a stage starts from, or that it looks at."""

    stage: str = ""  # "": a folder from elsewhere
    folder: str = ""
    share: float = 1.0  # of the images of the stage; 1: what it ended with


@dataclass(frozen=True)
class Stage:
    """One command of the study."""

    name: str
    kind: str
    files: tuple[str, ...] = ()  # of its configuration
    settings: dict[str, Any] = field(default_factory=dict)  # by dotted name, over those
    starts: tuple[Start, ...] = ()
    needs: tuple[str, ...] = ()  # stages
    options: dict[str, Any] = field(default_factory=dict)  # flags
    labels: dict[str, Any] = field(default_factory=dict)  # what tells it from others, for its page


@dataclass(frozen=True)
class Study:
    """The stages, each after those that it needs."""

    name: str
    file: str
    out: Path
    scale: Fraction
    lengths: Fraction  # what numbers of images are multiplied by
    stages: tuple[Stage, ...]
    at_once: int = 1
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def read_study(file: str, scale: Fraction = Fraction(1), out: str | None = None) -> Study:
    """The study of a YAML file, or its miniature.

    Raises:
        UserError: the file does not exist, or says what no study has.
    """
    path = find(file)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())}).") from error
    table = known(content, KEYS["study"], file)
    if missing := [key for key in ("name", "out", "stages") if not table.get(key)]:
        raise UserError(f"{file}: lacks '{missing[0]}'.")
    blocks, lengths = _blocks(table, scale, file)
    usual = (
        str(table["out"]) if scale == 1 else f"{table['out']}-{scale.numerator}-{scale.denominator}"
    )
    folder = Path(out or usual)
    at_once = table.get("at_once", 1)
    if type(at_once) is not int or at_once < 1:
        raise UserError(f"{file}: at_once {at_once}: give a positive number.")
    slurm = mapping(table.get("slurm") or {}, f"{file}: slurm")
    stages = tuple(_sorted(_stages(blocks, folder, file), file))
    return Study(str(table["name"]), file, folder, scale, lengths, stages, at_once, slurm)


def _blocks(
    table: Mapping[str, Any], scale: Fraction, file: str
) -> tuple[dict[str, dict[str, Any]], Fraction]:
    """The blocks of stages at a scale, and what their numbers of images are multiplied by."""
    where = f"{file}: stages"
    blocks = {
        name: known(block, KEYS["stage"], f"{where}.{name}")
        for name, block in mapping(table["stages"], where).items()
    }
    small = known(table.get("miniature") or {}, KEYS["miniature"], f"{file}: miniature")
    if not small:
        return blocks, scale
    usual = fraction(small.get("scale"), f"{file}: miniature.scale")
    if scale > NEAR * usual:
        return blocks, scale
    where = f"{file}: miniature.stages"
    changed = mapping(small.get("stages") or {}, where)
    first = {name: {} for name in changed if name not in blocks}  # what the others then start from
    merged = first | blocks
    for name, block in changed.items():
        if block is None:
            del merged[name]
        else:
            merged[name] = _laid_over(merged[name], known(block, KEYS["stage"], f"{where}.{name}"))
    return merged, scale / usual


def fraction(value: Any, where: str) -> Fraction:
    """`1/1000`, 0.001. Raises UserError for what is no share."""
    try:
        found = Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"{where} {value}: give a share such as 1/1000.") from error
    if not 0 < found <= 1:
        raise UserError(f"{where} {value}: above 0, at most 1.")
    return found


def _laid_over(block: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**block, **small}
    merged["config"] = [*_listed(block.get("config")), *_listed(small.get("config"))]
    return merged | {
        key: {**(block.get(key) or {}), **(small.get(key) or {})}
        for key in LAID_OVER
        if key in block or key in small
    }


def _stages(blocks: Mapping[str, Mapping[str, Any]], out: Path, file: str) -> Iterator[Stage]:
    """Every block once for each combination of the values of its `each`."""
    expanded = [
        ("-".join([name, *map(str, words.values())]), name, words, extra)
        for name, block in blocks.items()
        for words, extra in _combinations(block.get("each") or {}, f"{file}: stages.{name}.each")
    ]
    kinds = {name: str(blocks[block].get("kind")) for name, block, *_ in expanded}
    for name, block, *_ in expanded:
        if not NAME.fullmatch(name) or name in TAKEN:
            raise UserError(f"{file}: stages.{block}: no folder of a stage can be named {name!r}.")
        if sum(name == other for other, *_ in expanded) > 1:
            raise UserError(f"{file}: stages.{block}: two stages are named {name}.")
    for name, block, words, extra in expanded:
        yield _stage(name, blocks[block], words, extra, kinds, out, f"{file}: stages.{block}")


def _combinations(each: Any, where: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Values by word, and the settings that come with them (`{a1: {...}}` in place of `[a1]`)."""
    table = mapping(each, where)
    for word, values in table.items():
        if not isinstance(values, list | dict) or not values:
            raise UserError(f"{where}.{word}: give a list of values.")
    for values in product(*table.values()):
        words = dict(zip(table, values))
        extra: dict[str, Any] = {}
        for word, value in words.items():
            extra |= (table[word].get(value) or {}) if isinstance(table[word], dict) else {}
        yield words, extra


def _stage(
    name: str,
    block: Mapping[str, Any],
    words: Mapping[str, Any],
    extra: Mapping[str, Any],
    kinds: Mapping[str, str],
    out: Path,
    where: str,
) -> Stage:
    kind, needs = block.get("kind"), list[str]()
    if kind not in KINDS:
        raise UserError(f"{where}.kind {kind}: no such kind.{suggest(str(kind), KINDS)}")
    for key in LAID_OVER:
        mapping(block.get(key) or {}, f"{where}.{key}")
    unread = ("from",) if kind == "latents" else () if kind in CONFIGURED else ("config", "set")
    if told := [key for key in unread if block.get(key)]:
        raise UserError(f"{where}: a stage of kind {kind} has no '{told[0]}'. Leave it out.")

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(one) for one in value]
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        if not isinstance(value, str):
            return value
        if value[1:-1] in words and value == f"{{{value[1:-1]}}}":
            return words[value[1:-1]]  # a number stays one
        text = value
        for _ in range(NESTED):
            value = INNERMOST.sub(lambda found: named(found[1]), value)
        if INNERMOST.search(value):
            raise UserError(
                f"{where}: '{text}' is filled without end, by words made of themselves."
            )
        return value

    def named(word: str) -> str:
        if word in words:
            return str(words[word])
        if word not in (*kinds, "out"):
            raise UserError(f"{where}: '{{{word}}}' is no stage.{suggest(word, [*words, *kinds])}")
        needs.extend([word] if word in kinds else [])
        return str(out / word) if word in kinds else str(out)

    settings = filled({**(block.get("set") or {}), **extra})
    options, labels = filled(block.get("options") or {}), filled(block.get("labels") or {})
    files = tuple(filled(_listed(block.get("config"))))
    patterns = filled(_listed(block.get("from")))
    starts = tuple(start for one in patterns for start in _starts(one, kinds, where))
    if (
        kind not in SEVERAL
        and len(starts) > 1
        or kind != "train"
        and not starts
        and kind != "latents"
    ):
        raise UserError(f"{where}.from: a stage of kind {kind} starts from {_wanted(kind)}.")
    if kind in CONFIGURED and not files:
        raise UserError(f"{where}: lacks 'config'.")
    others = [
        start.stage
        for one in _listed(block.get("needs"))
        for start in _starts(one, kinds, where, "needs")
    ]
    needs += [start.stage for start in starts if start.stage] + others
    unique = tuple(dict.fromkeys(needs))
    return Stage(name, kind, files, settings, starts, unique, options, labels)


def _wanted(kind: str) -> str:
    return "one or more stages" if kind in SEVERAL else "one stage"


def _starts(text: Any, kinds: Mapping[str, str], where: str, key: str = "from") -> Iterator[Start]:
    """What an entry of `from` or `needs` names. Raises UserError for nothing."""
    if "/" in str(text) and key == "from":
        yield Start(folder=str(text))
        return
    pattern, _, share = str(text).partition("@")
    names = [name for name in kinds if fnmatchcase(name, pattern)]
    if not names:
        raise UserError(f"{where}.{key}: there is no stage {pattern}.{suggest(pattern, kinds)}")
    for name in names:
        if share and kinds[name] != "train":
            raise UserError(f"{where}.{key}: {name} is no training, of which there are parts.")
        yield Start(name, share=float(fraction(share, f"{where}.{key}")) if share else 1.0)


def _sorted(stages: Iterator[Stage], file: str) -> list[Stage]:
    """Each stage after those that it needs, else as they are told. Raises UserError."""
    by_name = {stage.name: stage for stage in stages}
    order = TopologicalSorter({name: stage.needs for name, stage in by_name.items()})
    try:
        order.prepare()
    except CycleError as error:
        raise UserError(f"{file}: {' needs '.join(reversed(error.args[1]))}.") from error
    found, waiting = list[Stage](), [*by_name.values()]
    while waiting:
        done = {stage.name for stage in found}
        ready = next(stage for stage in waiting if done.issuperset(stage.needs))
        waiting.remove(ready)
        found.append(ready)
    return found


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
