"""What reading one file may take, whatever it claims to hold: a small one can claim gigabytes.

Readers reckon what they are about to allocate, copies included, from the header, and ask first. The
one limit is `STEPSIGHT_FILE_MB` of the environment, which all processes of a run see; what reading
takes at the limit is measured by `benchmarks/faults/malformed.py`.
"""

from __future__ import annotations

import math
import os

from stepsight.errors import DataFormatError, UserError

VARIABLE = "STEPSIGHT_FILE_MB"
DEFAULT = 256  # megabytes


def limit() -> int:
    """Bytes that reading a file may take. Raises `UserError` for a setting that is no number."""
    text = os.environ.get(VARIABLE, str(DEFAULT))
    if not text.isdecimal() or not 0 < int(text) < 1 << 30:
        raise UserError(f"{VARIABLE}={text}: a whole number of megabytes.")
    return int(text) * 1_000_000


def check_memory(needed: int | float, what: str, where: object) -> None:
    """Raise `DataFormatError`, beginning with `where`, if so many bytes are more than the limit."""
    if needed > (most := limit()):
        megabytes = math.ceil(needed / 1e6)
        raise DataFormatError(
            f"{where}: {what} would take {megabytes} MB to read, more than {most // 1_000_000} MB. "
            f"If it is what it should be, set {VARIABLE}={megabytes} in the environment."
        )
