"""Items that cannot be read: one policy for whatever goes through many of them.

`stop` ends at the first. `skip` goes on without it: it is noted once, counted, and too large a
share of a source is refused all the same. The notes are lines of JSON in a file that all processes
of a run append to, so that each of them counts what any of them met, also after a resume.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from stepsight.errors import UserError, printable

OnBad = Literal["stop", "skip"]
QUARANTINE = "quarantine.jsonl"  # name of the notes in the folder of a run
Note = dict[str, str | int]  # source, key (number or name of the item), reason


def to_stderr(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr, flush=True)


class BadItems:
    """What to do about items that cannot be read, and those met so far.

    cap: the share of a source's items that may be skipped, rounded up. path: of the notes; None:
    kept in memory. flags: how a user sets the policy and the cap. say: hears of the first.
    Raises `UserError` for a cap that is no share.
    """

    def __init__(
        self,
        on_bad: OnBad = "stop",
        cap: float = 0.01,
        path: Path | None = None,
        *,
        flags: tuple[str, str] = ("--on-bad", "--bad-cap"),
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        if not 0 <= cap <= 1:
            raise UserError(f"{flags[1]} {cap:g}: a share of the items, from 0 to 1.")
        self.on_bad, self.cap, self.path = on_bad, cap, path
        self._flags, self._say = flags, say
        self._notes = {_place(note): note for note in read_notes(path)} if path else {}

    @property
    def skips(self) -> bool:
        return self.on_bad == "skip"

    @property
    def count(self) -> int:
        """How many different items were skipped."""
        return len(self._notes)

    @property
    def by_source(self) -> dict[str, int]:
        """The same by source."""
        return dict(Counter(source for source, _ in self._notes))

    @property
    def notes(self) -> list[Note]:
        """What was skipped, in the order in which it was met."""
        return list(self._notes.values())

    def met(self, source: str, key: int | str, error: Exception | str, *, of: int) -> None:
        """An item of a source of so many cannot be read: note it, and return to go on without it.

        Raises `UserError`, of the kind of `error`, where the policy is to stop, and another where
        more than the cap are bad.
        """
        if not self.skips:
            raise self.advised(error)
        if (source, key) not in self._notes:
            self._add({"source": source, "key": key, "reason": str(error)})
        bad, most = self.by_source[source], math.ceil(self.cap * of)
        if bad > most:
            listed = f" They are listed in {self.path}." if self.path else ""
            raise UserError(
                f"{source}: {bad} of {of} items cannot be read, and {self._flags[1]} "
                f"{self.cap:g} lets {most} be skipped.{listed} The last: {error}"
            )

    def advised(self, error: Exception | str) -> UserError:
        """`error` with how to go on all the same, if that is not the policy already."""
        kind = type(error) if isinstance(error, UserError) else UserError
        way = "" if self.skips else f" To go on without such items: {self._flags[0]} skip."
        return kind(f"{error}{way}")

    def _add(self, note: Note) -> None:
        notes, new = [*self.notes, note], True
        if self.path is not None:
            notes, new = append_note(self.path, note)
        self._notes = {_place(one): one for one in notes}
        if new and len(notes) == 1:
            where = f", noted in {self.path}" if self.path else ""
            self._say(f"left out{where}, and so are others like it: {note['reason']}")


def _place(note: Note) -> tuple[str, int | str]:
    return str(note["source"]), note["key"]


def read_notes(path: Path) -> list[Note]:
    """The notes of a file; none where there is no file. Lines that are damaged are passed over."""
    try:
        return _parsed(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def append_note(path: Path, note: Note) -> tuple[list[Note], bool]:
    """Add a note unless its item has one; all that the file then holds, and whether this is new.

    Processes take turns, and a line that one of them left unfinished ends before the next begins.
    Raises `UserError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            data = file.read()
            notes = _parsed(data)
            new = _place(note) not in map(_place, notes)
            if new:
                start = b"" if not data or data.endswith(b"\n") else b"\n"
                file.write(start + json.dumps(note).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                notes.append(note)
            return notes, new
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error


def _parsed(data: bytes) -> list[Note]:
    notes = []
    for line in data.splitlines():
        try:
            note = json.loads(line)
            notes.append({name: note[name] for name in ("source", "key", "reason")})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return notes
