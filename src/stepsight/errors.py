"""The one exception a user is meant to read: what went wrong, where, and what to do next.

The command line prints it on one line and exits with status 2; everything else that escapes is a
bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Something the user can fix. The message says what, where, and what next."""


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
    """What to type next: `uv run evaluate.py ...` in a checkout, `stepsight evaluate ...` where the
    package is installed. Arguments are quoted."""
    in_checkout = (Path(__file__).parents[2] / f"{verb}.py").is_file()
    program = f"uv run {verb}.py" if in_checkout else f"stepsight {verb}"
    return " ".join([program, *(shlex.quote(str(argument)) for argument in arguments)])
