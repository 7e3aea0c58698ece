"""Rooms that can be looked through: few files side by side, short files, one meaning for a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("src", "tests", "scripts", "benchmarks", "conformance")
MANY_ROOMS = {"Args", "Source"}  # the arguments of a command; a world, and where weights come from


@pytest.fixture(scope="module")
def files() -> list[Path]:
    every = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
    assert len(every) > 300
    return every


def test_no_folder_is_crowded(files):
    folders = defaultdict(list)
    for path in files:
        folders[path.parent].append(path.name)
    assert {str(path): len(names) for path, names in folders.items() if len(names) > 16} == {}


def test_no_file_is_long(files):
    lengths = {str(path): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_a_public_class_has_its_name_for_itself(files):
    places = defaultdict(list)
    for path in files:
        if "src" in path.relative_to(ROOT).parts:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(str(path))
    shared = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert shared.keys() == MANY_ROOMS, shared
