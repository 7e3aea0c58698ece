"""What stands beside the fields of a class, as their documentation: an extension of griffe, which
reads the code for the pages of the API (mkdocs.yml). `--help` shows the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import griffe

MORE = re.compile(r"\s+#\s?(.*)")
FOR_TOOLS = ("type:", "noqa", "fmt:", "pyright:")


def beside(lines: Sequence[str], last: int) -> str:
    """The comment at the end of line `last` (from 1), and the lines of nothing else below it."""
    first = re.search(r"\s#\s?(.*)$", lines[last - 1])
    if not first or first[1].startswith(FOR_TOOLS):
        return ""
    found = [first[1]]
    for line in lines[last:]:
        if not (more := MORE.fullmatch(line)):
            break
        found.append(more[1])
    return " ".join(found)


class FieldComments(griffe.Extension):
    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Give a field of a class without a docstring the comment beside it."""
        path, last = attr.filepath, attr.endlineno
        of_class = attr.parent is not None and attr.parent.is_class
        if attr.docstring is None and of_class and last and isinstance(path, Path):
            if words := beside(attr.lines_collection[path], last):
                attr.docstring = griffe.Docstring(words, parent=attr)
