"""NAME=VALUE on the command line: fields of records, and constants of laws."""

from __future__ import annotations

from collections.abc import Iterable

from stepsight.errors import UserError


def assignments(flag: str, texts: Iterable[str] | None) -> dict[str, str]:
    """Values by name of `A=1`, `B=2` or of `A=1,B=2`. Raises UserError where one is no pair."""
    found = {}
    for part in ",".join(texts or ()).split(",") if texts else ():
        name, equals, value = part.partition("=")
        if not (equals and name.strip()):
            raise UserError(f"{flag} {part}: write NAME=VALUE.")
        found[name.strip()] = value.strip()
    return found


def constants(flag: str, text: str) -> dict[str, float]:
    """The same with numbers, such as `E=1.69,A=406.4`. Raises UserError where one is none."""
    try:
        return {name: float(value) for name, value in assignments(flag, [text]).items()}
    except ValueError as error:
        raise UserError(f"{flag} {text}: write NAME=NUMBER,... ({error}).") from error
