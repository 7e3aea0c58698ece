"""What is predicted already, so that a collection that was stopped goes on from there.

`predicted.jsonl` in the folder of the answers gets a line once all files of an answer lie in their
places: task, name, a digest of what was asked of the model, the size and time of the files that
were read, the files that were written, and the range of values. What is killed in between leaves no
line, and files that are `placed` are there whole or not at all. A torn line counts as none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from stepsight.errors import UserError
from stepsight.predicting.item import Item

JOURNAL = "predicted.jsonl"
FIELDS = {"task", "name", "asked", "read", "files", "limits", "drawn"}  # of a line
Line = dict[str, Any]


class CannotWrite(UserError):
    """A file cannot be written, which no other picture would mend."""


def written(folder: Path) -> set[Path]:
    """The files that `predict` wrote to a folder, absolute."""
    files = (name for line in _lines(folder / JOURNAL) for name in line["files"])
    return {Path(os.path.abspath(folder / name)) for name in files}


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Where to write a file that then appears at `path` whole; its folder is made. Raises
    CannotWrite."""
    staged = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield staged
        os.replace(staged, path)
    except OSError as error:
        raise CannotWrite(f"{path}: cannot be written ({error}).") from error
    finally:
        staged.unlink(missing_ok=True)


class Done(AbstractContextManager["Done"]):
    """The answers of a task in a folder, to read and add to. asked: what is asked of the model.

    Nothing is written before the first answer is: then `begin` is called with the number of answers
    that are replaced, and the folder is this program's alone until the end. Raises UserError where
    it holds answers of the task to pictures besides `items` that were asked for otherwise.
    """

    def __init__(
        self,
        folder: Path,
        task: str,
        asked: Mapping[str, Any],
        items: Iterable[Item],
        begin: Callable[[int], None],
    ) -> None:
        self.folder, self.task, self._begin = folder, task, begin
        self.digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        self._lines = {x["name"]: x for x in _lines(folder / JOURNAL) if x["task"] == task}
        others = [line for line in self._lines.values() if line["asked"] != self.digest]
        self._others = [line for line in others if self._there(line)]
        self._file: IO[bytes] | None = None
        named = {item.name for item in items}
        strangers = [line["name"] for line in self._others if line["name"] not in named]
        if strangers:
            raise UserError(
                f"{folder} holds answers of {task} to {len(strangers)} other pictures, such as "
                f"{strangers[0]}, by another checkpoint or setting. Choose another --out, or "
                "remove that."
            )

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def begin(self) -> None:
        """Before the first file of an answer is written. Raises UserError while another program
        writes to the folder; answers that were asked for otherwise go."""
        if self._file:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / JOURNAL).open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for line in self._others:
                for file in line["files"]:
                    (self.folder / file).unlink(missing_ok=True)
        except BlockingIOError:
            raise CannotWrite(
                f"{self.folder}: another `predict` is writing there. Wait, or choose another --out."
            ) from None
        except OSError as error:
            raise CannotWrite(f"{self.folder}: cannot be written to ({error}).") from error
        self._begin(len(self._others))

    def has(self, item: Item, files: Collection[str], drawn: str) -> bool:
        """Whether `item`, as it is now, has these files, drawn like this."""
        line = self._line(item)
        if line is None or line["drawn"] != drawn:
            return False
        return set(files) <= set(line["files"]) and self._there(line)

    def add(
        self, item: Item, files: Sequence[str], limits: Sequence[float] | None, drawn: str
    ) -> None:
        """All files of an answer are in their places. limits: the range of its values; drawn: what
        the files depend on besides."""
        before = self._line(item)
        files = sorted({*files, *(before["files"] if before else ())})
        line = {"task": self.task, "name": item.name, "asked": self.digest, "read": _stamps(item)}
        line |= {"files": files, "limits": limits, "drawn": drawn}
        self._lines[item.name] = line
        assert self._file is not None
        self._file.write(b"\n" + json.dumps(line).encode())  # a torn line before it ends here
        self._file.flush()

    def limits(self, items: Collection[Item]) -> list[tuple[float, float]]:
        """The ranges of the answers to `items`."""
        lines = (self._lines[item.name] for item in items if item.name in self._lines)
        return [tuple(line["limits"]) for line in lines if line["limits"]]

    def _line(self, item: Item) -> Line | None:
        line = self._lines.get(item.name)
        fits = line and line["asked"] == self.digest and line["read"] == _stamps(item)
        return line if fits else None

    def _there(self, line: Line) -> bool:
        return all((self.folder / file).is_file() for file in line["files"])


def _stamps(item: Item) -> list[list[int] | None]:
    """By which the files of an item are known again."""

    def stamp(path: Path | None) -> list[int] | None:
        try:
            stat = path.stat() if path else None
        except OSError:
            stat = None
        return [stat.st_size, stat.st_mtime_ns] if stat else None

    paths = [frame.path for frame in item.frames] or [item.path, item.second, item.mask]

    return [stamp(path) for path in paths]


def _lines(path: Path) -> Iterator[Line]:
    """The whole lines of a journal; none where there is no file."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    for text in data.splitlines():
        try:
            line = json.loads(text)
            if isinstance(line, dict) and line.keys() >= FIELDS:
                yield line
        except (ValueError, RecursionError):
            continue
