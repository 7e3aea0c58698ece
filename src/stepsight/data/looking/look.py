"""Looks at a tree: what its files are, which belong together, and how they are to be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.looking.codes import (
    Meaning,
    read_flows,
    read_label_maps,
    read_masks,
    read_normal_maps,
)
from stepsight.data.looking.contents import LARGEST, Form, stored
from stepsight.data.looking.depth import read_unit, summary
from stepsight.data.looking.found import Answers, FoundTree, Truth
from stepsight.data.looking.names import words
from stepsight.data.looking.roles import assign
from stepsight.data.looking.samples import Line, lines_of
from stepsight.data.looking.tree import files_of, kinds_of
from stepsight.data.looking.trying import try_reading
from stepsight.errors import UserError

SEEN = 12  # files of a quantity whose values are looked at
QUANTITIES = ("depth", "flow", "normals", "labels", "modal", "amodal")


NO_ANSWERS = Answers()


def look(path: Path, answers: Answers = NO_ANSWERS) -> FoundTree:
    """What a folder holds, as the reader `folder` takes it.

    Raises `UserError` where nothing opens, with the cause: no pictures, no truth beside them, or
    truth of which nobody can tell what it means.
    """
    root = path.expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"{path}: not a folder. Name the folder that holds pictures and truth.")
    kinds = kinds_of(root, files_of(root))
    by_role = assign(kinds)
    found = FoundTree(root, pictures=sum(len(kind.names) for kind in by_role["image"]))
    found.problems += [error for kind in kinds if kind.form is None for error in kind.errors]
    lines = lines_of(by_role, found)
    _encode(found, by_role, lines, answers)
    split = all(line.picture.split for line in lines)
    found.samples = [line.as_json(found.truth, split) for line in lines if line.kept(found.truth)]
    _counts(found)
    if not found.samples:
        raise UserError(_nothing(path, found))
    try_reading(found)
    return found


def _encode(found: FoundTree, by_role: Any, lines: Sequence[Line], answers: Answers) -> None:
    """Find out how each quantity is stored, and enter those of which that can be told."""
    held: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        for role, path in line.files.items():
            held[role].append(path)
    pairs = [line for line in lines if {"modal", "amodal"} <= line.files.keys()]
    if not pairs and {"modal", "amodal"} & held.keys():
        found.problems.append("amodal: needs the visible and the whole mask of an object.")
    held["amodal"] = [line.files["amodal"] for line in pairs]
    for quantity in QUANTITIES:
        if paths := held.get(quantity):
            kind = next((k for k in by_role[quantity] if k.form is not None), None)
            if quantity != "modal" and kind is not None:
                _enter(found, quantity, kind, paths, len(lines), answers)


def _enter(
    found: FoundTree, quantity: str, kind: Any, paths: list[str], of: int, answers: Answers
) -> None:
    files = _values(found.root, paths)
    if not files:
        return
    meaning = _meaning(quantity, kind, files, found.root, answers)
    if meaning.problem:
        found.problems.append(f"{quantity}: {meaning.problem}.")
        if not meaning.options:
            return
    found.options |= meaning.options
    found.legend = found.legend or meaning.legend
    container = " ".join(dict.fromkeys(Path(path).suffix.lower() for path in paths))
    invalid = meaning.options.get("invalid", ())
    found.truth[quantity] = Truth(
        len(paths),
        of,
        container,
        meaning.encoding,
        tuple(invalid),
        meaning.evidence,
        meaning.certain,
    )


def _values(root: Path, paths: Sequence[str]) -> list[np.ndarray]:
    """Stored values of a few files, spread over all; of large ones every so many pixels."""
    chosen = [paths[number * len(paths) // SEEN] for number in range(SEEN)]
    files = []
    for path in dict.fromkeys(chosen):
        try:
            values = stored(root / path)
        except UserError:
            continue  # reading the sample says so
        step = 1 + int((values.size / LARGEST) ** 0.5)
        files.append(values[::step, ::step])
    return files


def _meaning(
    quantity: str, kind: Any, files: list[np.ndarray], root: Path, answers: Answers
) -> Meaning:
    form: Form = kind.form
    match quantity:
        case "depth":
            return _depth(form, files, _said(kind, root), answers)
        case "flow":
            return read_flows(kind.suffix, files, answers)
        case "normals":
            return read_normal_maps(form, files)
        case "labels":
            return read_label_maps(form, files, _said(kind, root), kind.suffix, answers)
    return read_masks(form, files, answers)


def _said(kind: Any, root: Path) -> list[str]:
    """The words of the names of files, their folders, and the tree's own folder."""
    return [*words(root.name), *(word for name in kind.names[:1] for word in words(name.path))]


def _depth(form: Form, files: list[np.ndarray], said: Iterable[str], answers: Answers) -> Meaning:
    if form.look == "colour" or form.channels > 1:
        return Meaning(problem="a picture of depth in colours, from which no distance can be read")
    if form.type == "uint8" and not answers.depth_unit:
        return Meaning(
            problem="8-bit: 256 steps of grey drawn for the eye. Say --depth-unit if not"
        )
    found = summary((values[..., 0] for values in files), answers.invalid)
    reading = read_unit(found, said, ())
    invalid = answers.invalid or reading.invalid
    options: dict[str, Any] = {"invalid": list(invalid)} if invalid else {}
    if answers.depth_unit:
        encoding = {"unit": answers.depth_unit}
        evidence = [*reading.evidence[:2], f"depth is in {answers.depth_unit}, as you say."]
        return Meaning(options | {"depth_unit": answers.depth_unit}, encoding, evidence)
    if reading.unit:
        encoding = {"unit": reading.unit}
        options |= {"depth_unit": reading.unit}
        problem = reading.problem
        return Meaning(options, encoding, reading.evidence, reading.certain, problem=problem)
    return Meaning(problem=reading.problem or _asked(reading.evidence, reading.left))


def _asked(evidence: Sequence[str], left: dict[str, tuple[float, float]]) -> str:
    metres = [f"{low:.2g} to {high:.3g} m in {unit}" for unit, (low, high) in left.items()]
    what = ", or ".join(metres) or "no distances that anybody measures"
    return f"{' '.join(evidence)} They are {what}, and no file says which. Say --depth-unit"


def _counts(found: FoundTree) -> None:
    for quantity, truth in found.truth.items():
        if truth.files < truth.of:
            said = f"{truth.files} of {truth.of} pictures have {quantity}."
            found.problems.append(said)


def _nothing(path: Path, found: FoundTree) -> str:
    if not found.pictures:
        cause = "no picture was found" if not found.problems else ""
    else:
        cause = "" if found.problems else f"{found.pictures} pictures, and no truth beside them"
    return f"{path}: {' '.join(filter(None, [cause, *found.problems[:4]]))}"
