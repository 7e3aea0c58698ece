"""The role of each kind of file: what its names say, as far as its form can be that; else what the
form alone suggests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from stepsight.data.looking.contents import FileForm
from stepsight.data.looking.names import MAPS
from stepsight.data.looking.tree import FileKind

PICTURE = ("colour", "alpha", "grey", "palette", "rgb16")
DRAWN = {  # forms in which a truth is drawn for the eye, where it is stored in another one, too
    "depth": ("colour", "alpha", "grey", "palette"),
    "labels": ("colour", "alpha"),
    "modal": ("colour",),
    "amodal": ("colour",),
}
ByRole = Mapping[str, list[FileKind]]


def assign(kinds: list[FileKind]) -> ByRole:
    """Kinds by role; those that are nothing of ours are left out."""
    for kind in kinds:
        if kind.form is not None:
            kind.role = _role(kind, kind.form)
        else:
            kind.role = next(iter(kind.names[0].roles), "")
    if any(kind.role == "image" and not _is_few(kind) for kind in kinds):
        for kind in kinds:
            if kind.role == "image" and _is_few(kind) and not kind.names[0].roles:
                kind.role = "labels"  # beside pictures of the same names
    named = {kind.role for kind in kinds if kind.role in kind.names[0].roles}
    by_role: defaultdict[str, list[FileKind]] = defaultdict(list)
    for kind in kinds:
        surmised = kind.role not in kind.names[0].roles
        if kind.role not in ("", "aside") and not (surmised and kind.role in named):
            by_role[kind.role].append(kind)
    for role, drawn in DRAWN.items():
        exact = [k for k in by_role[role] if k.form is None or k.form.look not in drawn]
        by_role[role] = exact or by_role[role]
    held = {role: kinds for role, kinds in by_role.items() if kinds}
    if masks := held.pop("mask", []):
        role = _of_masks({*held})
        held[role] = held.get(role, []) + masks
    return held


def _is_few(kind: FileKind) -> bool:
    return kind.form is not None and kind.form.few


def _of_masks(others: set[str]) -> str:
    """What masks are that no name explains: the other one of a pair, or labels of two classes."""
    if "modal" in others and "amodal" not in others:
        return "amodal"
    if "amodal" in others and "modal" not in others:
        return "modal"
    return "labels"


def _role(kind: FileKind, form: FileForm) -> str:
    for role in kind.names[0].roles:
        if role == "aside" or _can_be(role, form):
            return role
    return _surmised(kind.suffix, form)


def _can_be(role: str, form: FileForm) -> bool:
    array, floats = form.look == "array", form.type.startswith("float")
    if role in ("image", "second"):
        grey = array and form.channels == 1 and form.type == "uint8"
        return form.look in PICTURE or grey or array and form.channels == 3
    if role == "depth":
        return not array or form.channels in (1, 3)
    if role == "flow":
        return form.look == "rgb16" or array and form.channels in (2, 3)
    if role == "normals":
        return form.look in ("colour", "rgb16") or array and form.channels == 3
    if role.removesuffix("_valid") in MAPS:
        return form.channels == 1
    return not array or form.channels == 1 and not floats  # labels and masks


def _surmised(suffix: str, form: FileForm) -> str:
    if suffix in (".flo", ".flo5") or form.look == "rgb16":
        return "flow"
    if form.look in ("colour", "alpha"):
        return "image"
    if form.look in ("palette", "bits"):
        return "labels"
    if form.look == "grey":
        return "image"
    if form.channels == 1:
        return "mask" if form.type == "bool" else "labels" if form.type == "uint8" else "depth"
    if form.type == "uint8":
        return "image"
    return {2: "flow", 3: "normals"}.get(form.channels, "")
