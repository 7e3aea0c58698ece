"""Files of a folder that someone may have removed or damaged: absent is empty, damaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError


def read_text(path: Path) -> str:
    """The text of a file; empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def read_json(path: Path, absent: Any) -> Any:
    """The content of a JSON file, of the type of `absent`, which stands for a missing file.

    Raises DataFormatError if it is not JSON, or of another type.
    """
    if not path.is_file():
        return absent
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFormatError(
            f"{path}: not JSON ({error}). Run the step that writes it again."
        ) from None
    if not isinstance(content, type(absent)):
        raise DataFormatError(f"{path}: expected a JSON {type(absent).__name__}. Write it again.")
    return content
