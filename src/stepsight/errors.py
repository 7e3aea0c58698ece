"""The one exception a user is meant to read: what went wrong, where, and what to do next.

The doors (`train.py`, `evaluate.py`, `stepsight ...`) print it on one line and exit with status 2;
everything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. The message says what, where, and what next."""


class DataFormatError(UserError):
    """A file that is not what its name promises; the message names the file and the reason."""


def suggest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for a near miss of `name` in `known`, else ` Choose from ...`."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Choose from: {', '.join(known)}." if known else ""
