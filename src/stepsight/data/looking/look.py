"""Looks at a tree: what its files are, which belong together, and how they are to be read."""

from __future__ import annotations

import json
from pathlib import Path

from stepsight.data.decoding.annotations import is_text, parse_json, read_text
from stepsight.data.decoding.disk import reading
from stepsight.data.looking.contents import KNOWN
from stepsight.data.looking.documents import Documents, documents_of
from stepsight.data.looking.encodings import encode
from stepsight.data.looking.found import Answers, FoundTree
from stepsight.data.looking.names import TRUTHS, name_of
from stepsight.data.looking.roles import assign
from stepsight.data.looking.samples import Line, lines_of
from stepsight.data.looking.tree import FileKind, files_of, kinds_of
from stepsight.data.looking.trying import try_reading
from stepsight.data.readers.own.listing import file_suffixes
from stepsight.errors import DataFormatError, UserError

NO_ANSWERS = Answers()
SHOWN = 4  # problems in a refusal
LONGEST_LINE = 1 << 16  # characters in which a list names its first image


def look(path: Path, answers: Answers = NO_ANSWERS) -> FoundTree:
    """What a folder, or a list of samples (`.jsonl`), holds, as the reader `folder` takes it.

    Raises `UserError` where nothing opens, with the cause: no pictures, no truth beside them, or
    truth of which nobody can tell what it means.
    """
    path = path.expanduser().resolve()
    if not path.exists():
        raise UserError(f"{path}: not found. Name a folder of pictures and truth, or a list.")
    if path.is_file() and path.suffix != ".jsonl":
        raise UserError(f"{path}: one file; name the folder that holds it, or a list (.jsonl).")
    root = path if path.is_dir() else path.parent
    found, documents = FoundTree(root), Documents()
    if (listing := _own_list(path)) is not None:
        lines, kinds = _listed(listing, root)
        found.notes.append(f"{listing.name} says what the samples are; other files are left aside.")
        found.pictures = len({line.picture.path for line in lines})
    else:
        files = files_of(root)
        kinds = kinds_of(root, files)
        by_role = assign(kinds)
        pictures = [name.path for kind in by_role.get("image", []) for name in kind.names]
        found.pictures = len(pictures)
        documents = documents_of(root, files, pictures)
        lines = lines_of(by_role, documents, found)
    found.problems += documents.problems
    encode(found, kinds, lines, documents, answers)
    for kind in kinds:
        if kind.form is None and not any(kind.errors[0] in text for text in found.problems):
            wanted = kind.suffix in KNOWN or kind.names[0].roles[:1] in [(r,) for r in TRUTHS]
            (found.problems if wanted else found.notes).append(kind.errors[0])
    kept = [line for line in lines if line.kept(found.truth)]
    split = _splits(found, kept)
    found.samples = [line.as_json(found.truth, split) for line in kept]
    found.problems += [
        f"{truth.files} of {truth.of} pictures have {quantity}."
        for quantity, truth in found.truth.items()
        if truth.files < truth.of
    ]
    if not found.samples:
        raise UserError(_nothing(path, found, documents))
    try_reading(found)
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _splits(found: FoundTree, lines: list[Line]) -> bool:
    """Whether the splits that folders or lists name are taken over: all samples have one, and some
    are for training."""
    names = {line.split for line in lines}
    if names <= {""}:
        return False
    if "" in names or "train" not in names:
        said = ", ".join(sorted(names - {""}))
        found.notes.append(
            f"splits ({said}) are left aside: some have none, or none is for training."
        )
        return False
    if "val" not in names and len(names) > 1:
        found.options["eval_split"] = "test"
    return True


def _own_list(path: Path) -> Path | None:
    """The list that is meant: the file itself, or the only one of a folder that names images."""
    if path.is_file():
        return path
    lists = [one for one in sorted(path.glob("*.jsonl")) if '"image"' in _first_line(one)]
    return lists[0] if len(lists) == 1 else None


def _first_line(path: Path) -> str:
    with reading(path), path.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline(LONGEST_LINE)


def _listed(path: Path, root: Path) -> tuple[list[Line], list[FileKind]]:
    """The samples of a list as it is, and the kinds of their files. Raises `DataFormatError`."""
    lines = []
    known = {*file_suffixes()}
    for number, text in enumerate(read_text(path).splitlines(), 1):
        if not text.strip():
            continue
        record = parse_json(text, where := f"{path}, line {number}")
        if not isinstance(record, dict) or not all(map(is_text, record.values())):
            raise DataFormatError(f"{where}: not an object of texts ({json.dumps(record)[:60]}).")
        if "image" not in record:
            raise DataFormatError(f"{where}: names no 'image'.")
        files = {role: file for role, file in record.items() if role in known - {"image"}}
        name = name_of(record["image"])
        key = record.get("key", Path(record["image"]).with_suffix("").as_posix())
        lines.append(Line(name, record.get("split", ""), files, key))
    kinds = []
    for role in known:
        paths = [line.files[role] for line in lines if role in line.files]
        for kind in kinds_of(root, paths):
            kind.role = role
            kinds.append(kind)
    return lines, kinds


def _nothing(path: Path, found: FoundTree, documents: Documents) -> str:
    """Why no sample is left."""
    causes = [] if found.pictures else ["no picture was found."]
    if found.pictures and not found.problems:
        causes.append(f"{found.pictures} pictures, and no truth beside them that is read.")
    if documents.unknown:
        named = f"{len(documents.unknown)} JSON files such as {documents.unknown[0]}"
        causes.append(f"{named} are neither LabelMe's nor COCO's instances.")
    return f"{path}: {' '.join([*causes, *found.problems[:SHOWN]])}"
