"""Writing checkpoints beside the training."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from stepsight.checkpoint.snapshot import Room, Snapshot


class Saver:
    """One thread that writes one checkpoint at a time.

    What goes wrong there is raised by the next `start` or `wait`.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._room: Room = {}

    def start(self, snapshot: Snapshot, then: Callable[[Path], None]) -> None:
        """Commit `snapshot`, once the one before is written; then call `then` with the path of the
        checkpoint, in the first process only."""
        self.wait()
        self._room = {file: tensors for file, (tensors, _) in snapshot.files.items()}
        self._thread = threading.Thread(
            target=self._work, args=(snapshot, then), name="checkpoint", daemon=True
        )
        self._thread.start()

    def room(self) -> Room:
        """The memory of the snapshot before, once that is written, for the next one to take."""
        self.wait()
        return self._room

    def close(self) -> None:
        """Wait, and give the memory back."""
        self._room = {}
        self.wait()

    def wait(self) -> None:
        """Until nothing is being written. Raises what went wrong, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self, snapshot: Snapshot, then: Callable[[Path], None]) -> None:
        try:
            path = snapshot.commit()
            if path is not None:
                then(path)
        except BaseException as failure:
            self._failure = failure
