"""One writer for a run folder: a file that says who it is and, by its age, whether it lives.

The file appears whole, by `link` (O_EXCL where there are no links), and is kept young by a
thread, which works where `flock` does not.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import socket
import threading
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepsight.checkpoint.format import disk_error
from stepsight.errors import UserError

LOCK = "run.lock"
BEAT = 10.0  # seconds between signs of life
STALE = 60.0  # seconds without one after which a holder on another machine counts as gone


class RunLock:
    """Makes this process the one that writes to a run folder, until it is released or ends.

    A holder that is gone is succeeded, with one line: its process has ended, or, on another
    machine, has shown no sign of life for `STALE` seconds.
    """

    def __init__(self, folder: Path, beat: float = BEAT, stale: float = STALE) -> None:
        self.path, self._beat, self._stale = folder / LOCK, beat, stale
        self._token, self._owner, self._made = "", 0, list[Path]()
        self._done = threading.Event()

    def acquire(self) -> None:
        """Raises UserError if another process writes here, or nothing can be written."""
        try:
            folders = (self.path.parent, self.path.parent.parent)
            self._made = [folder for folder in folders if not folder.exists()]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            raise disk_error(self.path, "writing", error) from None
        self._owner, self._done = os.getpid(), threading.Event()
        atexit.register(self.release)
        threading.Thread(target=self._live, name="run lock", daemon=True).start()

    def check_free(self) -> None:
        """Raise UserError if another process writes here."""
        with self:
            pass

    def _take(self) -> None:
        self._token = secrets.token_hex(8)
        text = json.dumps(_self() | {"token": self._token}) + "\n"
        draft = self.path.with_name(f"{LOCK}.{self._token}")
        draft.write_text(text)
        try:
            _publish(draft, self.path, text)
        except FileExistsError:
            self._succeed(_holder(self.path), draft)
        finally:
            draft.unlink(missing_ok=True)

    def _succeed(self, holder: dict[str, Any], draft: Path) -> None:
        self._wait_for(holder, draft)
        print(f"{self.path.parent}: taken over from {_who(holder)}, which is gone", flush=True)
        os.replace(draft, self.path)
        time.sleep(self._beat / 20)  # another may take over in the same moment: the last one has it
        if not self.held:
            raise self._refusal(_holder(self.path))

    def _wait_for(self, holder: dict[str, Any], draft: Path) -> None:
        """Until it is certain that the holder is gone. Raises UserError if it lives."""
        if holder.get("space") == _self()["space"] and holder.get("born"):
            if _born(holder.get("pid", 0)) == holder["born"]:
                raise self._refusal(holder)
            return
        seen, said = _beat_of(self.path), False
        while True:
            draft.touch()  # the clock of the file system, which both machines see
            idle = _beat_of(draft) - _beat_of(self.path)
            if idle > self._stale or not self.path.exists():
                return
            if _beat_of(self.path) != seen:
                raise self._refusal(holder)
            if not said:
                said = True
                print(f"{self.path.parent}: waiting for a sign of life from {_who(holder)}")
            time.sleep(min(self._beat / 10, 1.0))

    def _refusal(self, holder: dict[str, Any]) -> UserError:
        return UserError(
            f"{self.path.parent} is being written to by {_who(holder)}. Wait for it or end it; or "
            f"name another folder with --run-dir. If you are certain that it is gone, delete "
            f"{self.path}."
        )

    @property
    def held(self) -> bool:
        """Whether the lock is this process's own."""
        return bool(self._token) and _holder(self.path).get("token") == self._token

    @property
    def lost(self) -> bool:
        """Whether it is another's: that happens to a process that was stopped for long."""
        return bool(self._token) and _holder(self.path).get("token") not in (None, self._token)

    def check(self) -> None:
        """Raise UserError if another process has taken over."""
        if self.lost:
            raise UserError(
                f"{self.path.parent} was taken over by {_who(_holder(self.path))} while this "
                f"process showed no sign of life. Nothing more is written here."
            )

    def _live(self) -> None:
        while not self._done.wait(self._beat) and not self.lost:
            try:
                os.utime(self.path)
            except OSError:
                pass  # as on a disk that is away for a moment: the next beat tries again

    def release(self) -> None:
        """Let others in. Folders that were made for the lock alone go too."""
        if self._owner != os.getpid():  # a copy of the process does not own what it inherits
            return
        self._done.set()
        atexit.unregister(self.release)
        if self.held:
            self.path.unlink(missing_ok=True)
        self._token, self._owner = "", 0
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                break  # there is something in it by now

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.release()


def _publish(draft: Path, path: Path, text: str) -> None:
    """The draft under its own name, with its content from the first moment, so that nobody reads
    a lock without a holder. Raises FileExistsError."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with path.open("x") as file:
            file.write(text)


def _self() -> dict[str, Any]:
    """Who this process is: `space` names the machine, since its last start, and the container in
    which process numbers mean something."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "born": _born(os.getpid()),
        "space": f"{_read('/proc/sys/kernel/random/boot_id')} {_inode('/proc/self/ns/pid')}"
        f" {socket.gethostname()}",
    }


def _born(pid: int) -> str:
    """When a process of this machine began, in its own ticks; "" if there is none."""
    state, *rest = _read(f"/proc/{pid}/stat").rpartition(")")[2].split() or [""]
    return rest[18] if state not in ("", "Z", "X") else ""  # one that ended may still be listed


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _holder(path: Path) -> dict[str, Any]:
    """What the lock says; {} for one that is damaged or gone."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _who(holder: dict[str, Any]) -> str:
    if not holder:
        return "an unknown process"
    return f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')})"


def _beat_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
