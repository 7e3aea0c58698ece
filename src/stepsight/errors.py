"""The one exception a user is meant to read: what went wrong, where, and what to do next.

The command line prints it on one line and exits with status 2; everything else that escapes is a
bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import Path

LONGEST = 2000  # characters of a message


def printable(text: str) -> str:
    """`text` with its control characters, which names of files may hold, written out: none of them
    reaches a terminal. Of a very long one the middle is left out."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 4 :]}"
    return "".join(repr(c)[1:-1] if unicodedata.category(c)[0] == "C" else c for c in text)


class UserError(Exception):
    """Something the user can fix. The message says what, where, and what next, on one line."""

    def __str__(self) -> str:
        return printable(super().__str__())


class DataFormatError(UserError):
    """A file that is not what its name promises; the message names the file and the reason."""


def suggest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for a near miss of `name` in `known`, else ` Choose from ...`."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Choose from: {', '.join(known)}." if known else ""


def command(verb: str, *arguments: object) -> str:
    """What to type next: `uv run evaluate.py ...` or `uv run stepsight scaling ...` in a checkout,
    `stepsight evaluate ...` where the package is installed. Arguments are quoted."""
    checkout = Path(__file__).parents[2]
    program = f"stepsight {verb}"
    if (checkout / f"{verb}.py").is_file():
        program = f"uv run {verb}.py"
    elif (checkout / "uv.lock").is_file():
        program = f"uv run {program}"
    return " ".join([program, *(shlex.quote(str(argument)) for argument in arguments)])
