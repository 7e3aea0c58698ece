"""What every door has in common: user errors become one line and exit status 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from stepsight import distributed
from stepsight.errors import UserError


def guarded(body: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run `body` on the arguments. A UserError is printed, without traceback unless --debug.

    Only the first process speaks.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        return body(arguments)
    except UserError as error:
        if debug:
            raise
        distributed.part()
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def output_folder(name: str | Path) -> Path:
    """A folder that is there or can be made later. Raises UserError where a file is in the way."""
    path = Path(name)
    nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise UserError(f"--out {path}: {nearest} is a file. Name a folder.")
    return path


def config_files(arguments: Sequence[str]) -> list[str]:
    """The values of every `--config F` or `--config=F`, in order."""
    files = []
    for flag, following in zip(arguments, [*arguments[1:], None]):
        if flag.startswith("--config="):
            files.append(flag.partition("=")[2])
        elif flag == "--config" and following is not None:
            files.append(following)
    return files
