"""How each quantity of a tree is stored: values of a few files are looked at, and what they say is
entered as options of the reader, or as a problem."""

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
    read_outlines,
)
from stepsight.data.looking.contents import FileForm, stored
from stepsight.data.looking.depth import read_unit, summary
from stepsight.data.looking.documents import Documents
from stepsight.data.looking.found import Answers, FoundTree, Truth
from stepsight.data.looking.names import MAPS, split_part, words
from stepsight.data.looking.samples import Line
from stepsight.data.looking.tree import FileKind
from stepsight.errors import UserError

SEEN = 12  # files of a quantity whose values are looked at
LARGEST = 1 << 20  # values of a file
MASKS = {"modal", "amodal", *(f"{name}_valid" for name in MAPS)}
QUANTITIES = ("depth", "flow", "normals", "labels", "amodal")


def encode(
    found: FoundTree,
    kinds: Sequence[FileKind],
    lines: Sequence[Line],
    documents: Documents,
    answers: Answers,
) -> None:
    """Find out how each quantity is stored, and enter those of which that can be told."""
    held: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        for role, path in line.files.items():
            held[role].append(path)
    whole = [line for line in lines if {"modal", "amodal"} <= line.files.keys()]
    if not whole and {"modal", "amodal"} & held.keys():
        found.problems.append("amodal: it takes the visible and the whole mask of an object.")
    masks = [line.files["amodal"] for line in whole]
    visible = {line.files["amodal"]: line.files["modal"] for line in whole}
    frames = [line.files["flow"] for line in lines if {"flow", "second"} <= line.files.keys()]
    if "flow" in held and not frames:
        found.problems.append("flow: no picture that it leads to was found.")
    found.problems += [
        f"{flag} is of no use: there is no {quantity}."
        for flag, quantity, given in (
            ("--depth-unit", "depth", answers.depth_unit),
            ("--classes", "labels", answers.classes),
            ("--mask-inside", "mask", answers.mask_inside),
            ("--flow-unit", "flow", answers.flow_unit),
        )
        if given and not (held.keys() & MASKS if quantity == "mask" else quantity in held)
    ]
    counts = {name: len(paths) for name, paths in held.items()}
    counts |= {"amodal": len(whole), "flow": len(frames)}
    for quantity in QUANTITIES:
        paths = {"amodal": masks, "flow": frames}.get(quantity, held[quantity])
        if not paths:
            continue
        if quantity == "amodal":
            files = [(found.root / visible[p], found.root / p) for p in _chosen(paths)]
            meaning = read_masks(files, answers)
        else:
            meaning = _meaning(quantity, paths, found.root, kinds, documents, answers)
        if meaning.problem:
            found.problems.append(f"{quantity}: {meaning.problem}.")
        if meaning.encoding:
            suffixes = dict.fromkeys(Path(split_part(path)[0]).suffix.lower() for path in paths)
            found.options |= meaning.options
            found.legend = found.legend or meaning.legend
            found.truth[quantity] = Truth(
                counts[quantity],
                len(lines),
                " ".join(suffixes),
                meaning.encoding,
                tuple(meaning.options.get("invalid", ())),
                meaning.evidence,
                meaning.certain,
            )


def _meaning(
    quantity: str,
    paths: Sequence[str],
    root: Path,
    kinds: Sequence[FileKind],
    documents: Documents,
    answers: Answers,
) -> Meaning:
    suffix = Path(split_part(paths[0])[0]).suffix.lower()
    if suffix == ".json":
        return read_outlines([root / path for path in dict.fromkeys(paths)], answers)
    files, errors = _values(root, paths, quantity)
    if not files:
        return Meaning(problem=errors[0].removesuffix("."))
    form = _form(paths, kinds)
    said = [*words(root.name), *words(paths[0])]
    match quantity:
        case "depth":
            return _depth(form, files, said, documents, answers)
        case "flow":
            return read_flows(suffix, files, answers)
        case "normals":
            return read_normal_maps(form, files)
    return read_label_maps(form, files, said, suffix, documents.legend, answers)


def _form(paths: Sequence[str], kinds: Iterable[FileKind]) -> FileForm:
    forms = {name.path: kind.form for kind in kinds for name in kind.names if kind.form}
    return next(forms[path] for path in paths if path in forms)


def _chosen(paths: Sequence[str]) -> list[str]:
    """A few, spread over all."""
    return list(dict.fromkeys(paths[number * len(paths) // SEEN] for number in range(SEEN)))


def _values(root: Path, paths: Sequence[str], quantity: str) -> tuple[list[np.ndarray], list[str]]:
    """Stored values "h w c" of a few files, of large ones every so many pixels; and what failed."""
    files, errors = [], []
    for path in _chosen(paths):
        try:
            values = stored(root / path, quantity)
        except UserError as error:
            errors.append(str(error))
            continue
        step = 1 + int((values.size / LARGEST) ** 0.5)
        files.append(values[::step, ::step])
    return files, errors


def _depth(
    form: FileForm,
    files: Sequence[np.ndarray],
    said: Iterable[str],
    documents: Documents,
    answers: Answers,
) -> Meaning:
    if form.channels > 1 and any((values != values[..., :1]).any() for values in files):
        return Meaning(problem="a picture of depth in colours, from which no distance can be read")
    if form.type == "uint8" and form.look != "array":
        return Meaning(
            problem="8-bit pictures: 256 steps of grey are drawn for the eye. Depth needs "
            "16 bits or floats"
        )
    found = summary((values[..., 0] for values in files), answers.invalid)
    reading = read_unit(found, said, documents.units)
    invalid = answers.invalid or reading.invalid
    options: dict[str, Any] = {"invalid": list(invalid)} if invalid else {}
    if answers.depth_unit:
        reading.unit, reading.certain = answers.depth_unit, True
        reading.evidence.append(f"the unit is {answers.depth_unit}, as you say.")
    elif not reading.unit:
        return Meaning(problem=reading.problem or _asked(reading.evidence, reading.left))
    return Meaning(
        options | {"depth_unit": reading.unit},
        {"unit": reading.unit},
        reading.evidence,
        reading.certain,
        problem="" if answers.depth_unit else reading.problem,
    )


def _asked(evidence: Sequence[str], left: dict[str, tuple[float, float]]) -> str:
    metres = [
        unit if unit == "disparity" else f"{low:.2g} to {high:.3g} m in {unit}"
        for unit, (low, high) in left.items()
    ]
    what = ", or ".join(metres) or "no distances that anybody measures"
    return f"{' '.join(evidence)} That is {what}, and no file says which. Say --depth-unit"
