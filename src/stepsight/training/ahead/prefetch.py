"""Batches that lie on the device before their step begins.

On a GPU a thread reads, codes and noises the next batch while this one is learnt from. Its copies
leave from pinned memory on a stream of their own, which the step's stream waits for, and the host
does not. On a CPU, where a thread would only take the cores from the step, batches are made when
they are asked for. Either way they are the same: functions of the number of the step.

What is drawn from the mixture stays with the main thread: stores are filled by all processes in
turn, and their meetings have to come in the same order everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

import torch
from torch import Tensor

from stepsight.data.mixture import Draw
from stepsight.training.feed import Feed, sent
from stepsight.training.objective import Micro, Objective

ENDING = 10.0  # seconds that a read in progress is waited for at the end


@dataclass
class Ready:
    """A batch, ready for its step."""

    draw: Draw
    micro_batches: list[Micro]
    weights: Tensor  # of the tasks in the loss
    waited: float  # seconds for what it was read from
    drawing: float = 0.0  # seconds of drawing and of filling stores, for it or one ahead of it
    made: torch.Event | None = None  # when the device has all of it


class Prefetcher:
    """The batches of the steps `steps`, in order.

    threaded: whether the next one is made ahead in a thread; None: where the device is a GPU.
    """

    def __init__(
        self, objective: Objective, feed: Feed, steps: range, threaded: bool | None = None
    ) -> None:
        self.objective, self.feed, self.steps = objective, feed, steps
        gpu = feed.device.type == "cuda"
        self._stream = torch.cuda.Stream(feed.device) if gpu else None
        self._jobs: SimpleQueue[tuple[Future[Ready], Draw, int] | None] = SimpleQueue()
        self._next: Future[Ready] | None = None
        self._thread = Thread(target=self._serve, name="prefetch", daemon=True)
        self.threaded = gpu if threaded is None else threaded
        if self.threaded:
            self._thread.start()

    def take(self, step: int) -> Ready:
        """Batch number `step`. Raises what reading it raised."""
        began = time.perf_counter()
        if not self.threaded:
            draw = self.feed.draw(step)
            drawn = time.perf_counter()
            ready = self._made(draw, step)
            ready.drawing = drawn - began
            return ready
        future = self._next or self._ask(step)
        ready = future.result()
        if ready.made is not None:
            torch.cuda.current_stream().wait_event(ready.made)
        ready.waited, asked = time.perf_counter() - began, time.perf_counter()
        self._next = self._ask(step + 1) if step + 1 in self.steps else None
        ready.drawing = time.perf_counter() - asked
        return ready

    def close(self) -> None:
        """End the thread, which is not waited for without end."""
        if self.threaded:
            self._jobs.put(None)
            self._thread.join(ENDING)

    def _ask(self, step: int) -> Future[Ready]:
        """Let the thread make a batch.

        Its memory may have been that of an earlier batch: it is written to when all that the device
        was asked for so far is done.
        """
        draw, future = self.feed.draw(step), Future[Ready]()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
        self._jobs.put((future, draw, step))
        return future

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, draw, step = job
            try:
                with torch.cuda.stream(self._stream):
                    ready = self._made(draw, step)
                if self._stream is not None:
                    ready.made = self._stream.record_event()
                future.set_result(ready)
            except BaseException as error:  # whoever takes the batch gets it
                future.set_exception(error)
            del future, job  # the batch is the step's alone

    def _made(self, draw: Draw, step: int) -> Ready:
        """Batch number `step`, once it is drawn."""
        began, parts = time.perf_counter(), self.feed.micro_batches
        read = [self.objective.read(self.feed, draw, step, rows) for rows in parts]
        waited = time.perf_counter() - began
        micro = [self.objective.prepare(one, step, rows) for one, rows in zip(read, parts)]
        weights = sent(self.feed.weights(draw.stream), self.feed.device)
        return Ready(draw, micro, weights, waited)


@contextmanager
def prefetched(objective: Objective, feed: Feed, steps: range) -> Iterator[Prefetcher]:
    """A `Prefetcher` while the block lasts."""
    ahead = Prefetcher(objective, feed, steps)
    try:
        yield ahead
    finally:
        ahead.close()
