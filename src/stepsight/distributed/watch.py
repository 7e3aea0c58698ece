"""Watching one another: who died, was stopped or hangs is named, and everything ends.

A thread of every process says through the board that the process lives and what it does, and looks
at the others. It speaks and ends the process by itself, since the main thread may be waiting for a
process that is no more. Clocks are not compared: silence is counted in own beats.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

from stepsight import signals
from stepsight.distributed import beats, launching, place
from stepsight.distributed.beats import Beat
from stepsight.distributed.board import HURRY, Board, Fault, quickly, say
from stepsight.signals import FAULT, PREEMPTED

JOIN = 1800.0  # seconds for all processes to come together
ALARM = 5.0  # without a beat, once something in the group has failed
GRACE = 2.0  # for the main thread to end by itself when another process has failed
SAVED = 5.0  # the same when all have saved, and another process has ended
FAREWELL = 4.0  # that the host of the board stays for the others to read it
PER_BEAT = 32  # processes that share a beat of a second
SHOWN = 4  # processes that a message describes

_watch: Watch | None = None
_joined = Counter[str]()  # times that this process joined others, by the port of their store


@dataclass
class Peer:
    """Another process, as last seen."""

    beat: Beat
    silent: int = 0  # own beats since its last one

    def state(self) -> str:
        """As `place.state`; "" where it cannot be known."""
        if self.beat.space != place.space() or not place.space():
            return ""
        state, born = place.state(self.beat.pid)
        return state if born == self.beat.born else "X"


class Watch:
    """The threads of this process that watch the others."""

    def __init__(self, board: Board, hosts: bool) -> None:
        self.board, self.hosts = board, hosts
        self.rank, self.world = place.rank(), place.world()
        self.silence = beats.silence()
        self.interval = min(1.0, self.silence / 10) * max(1.0, self.world / PER_BEAT)
        self.peers: dict[int, Peer] = {}
        self.fault: Fault | None = None  # posted by whomever
        self.alarmed = False  # the main thread has met an error that another process may explain
        self.count = 0
        self._found = 0.0  # when the fault was
        self._over, self._last = Event(), Lock()
        self._beating = Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        self.board.beat(self.rank, beats.beat(0))
        self.peers = {rank: Peer(beat) for rank, beat in self.board.first(self.rank).items()}
        self._beating.start()
        Thread(target=self._guard, daemon=True).start()

    def leave(self) -> None:
        """Stop watching, and being watched; wait a little for the others to do the same."""
        self._over.set()
        beats.news.set()
        self._beating.join(HURRY)  # or a beat of its might follow the last
        quickly(lambda: self.board.beat(self.rank, beats.beat(self.count, over=True)), None)
        deadline = time.monotonic() + FAREWELL
        while self.awaited() and time.monotonic() < deadline and quickly(self._see, False):
            time.sleep(0.02)

    def others(self) -> dict[int, Peer]:
        """The other processes that have joined and not left."""
        return {rank: peer for rank, peer in self.peers.items() if not peer.beat.over}

    def awaited(self) -> set[int]:
        """The same with those that have not joined yet."""
        over = {rank for rank, peer in self.peers.items() if peer.beat.over}
        return set(range(self.world)) - {self.rank} - over

    def seize(self) -> None:
        """Be the one thread that speaks and ends this process; any other waits here for the end."""
        self._last.acquire()

    def end(self, status: int, words: str = "") -> None:
        """End this process, after `seize`; its last words are known to the others."""
        quickly(lambda: self.board.end(self.rank, words), None)
        quickly(lambda: self.board.leave(self.rank), None)
        patience = SAVED if status == PREEMPTED else FAREWELL
        if self.hosts:  # the board ends with this process
            self.of_others(self.board.gone, patience)
        launching.reap(patience)
        signals.end_at_once(status)

    def of_others(
        self, ask: Callable[[Iterable[int]], dict[int, str]], patience: float
    ) -> dict[int, str]:
        """What the board says of the other processes, once it says it of all that live."""
        deadline, found = time.monotonic() + patience, dict[int, str]()
        while time.monotonic() < deadline:
            found = quickly(lambda: ask(self.awaited()), found)
            lost = {rank for rank, peer in self.peers.items() if peer.state() in ("X", "T")}
            if found.keys() | lost >= self.awaited():
                break
            time.sleep(0.05)
        return found

    # ------------------------------------------------------------------------------- threads

    def _beat(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            beats.news.wait(max(due - time.monotonic(), 0.0))
            beats.news.clear()
            try:
                if time.monotonic() < due:
                    self.board.beat(self.rank, beats.beat(self.count))
                else:
                    self._look()
                    due = time.monotonic() + self.interval
            except RuntimeError:  # the host of the board has gone
                if not self._over.is_set():
                    self._host_lost("died without a word")

    def _guard(self) -> None:
        """See to it that the other thread beats: its calls do not return when the host of the board
        is stopped."""
        before, stuck = -1, 0
        while not self._over.wait(self.interval):
            before, stuck = self.count, stuck + 1 if self.count == before else 0
            if stuck * self.interval >= self.silence + self.interval:
                self._host_lost(f"has not answered for {self.silence:.0f} s")

    def _look(self) -> None:
        self.count += 1
        self.board.beat(self.rank, beats.beat(self.count))
        if fault := self.board.fault():
            self._follow(fault)
            return
        self._see()
        for peer in self.others().values():
            if peer.beat.asked:
                signals.request(peer.beat.asked)  # whom the signal reached matters to nobody
        self._judge()

    def _see(self) -> bool:
        """Look at the other processes; whether the board is there."""
        for rank, beat in self.board.beats(self.awaited()).items():
            peer = self.peers.setdefault(rank, Peer(beat))
            peer.silent = peer.silent + 1 if beat.count == peer.beat.count else 0
            peer.beat = beat
        return True

    def _judge(self) -> None:
        """End with a process that is lost, or with all when none gets on."""
        missing = self.awaited() - self.peers.keys()
        if missing and self.count * self.interval > JOIN:
            rank = min(missing)
            self.declare(Fault(self.rank, FAULT, f"rank {rank} of {self.world} never joined."))
        for rank, peer in self.others().items():
            quiet = peer.silent * self.interval
            dead = peer.silent > 1 and peer.state() == "X"
            if dead or quiet >= (min(ALARM, self.silence) if self.alarmed else self.silence):
                how = "died without a word" if dead else f"has not answered for {quiet:.0f} s"
                self.declare(Fault(self.rank, FAULT, _lost(rank, peer, how)), peer)
        known = {rank: peer.beat for rank, peer in self.others().items()}
        known[self.rank] = beats.beat(self.count)
        if min(beat.age for beat in known.values()) > max(b.patience for b in known.values()):
            self.declare(Fault(self.rank, FAULT, _hung(known)))

    def _follow(self, fault: Fault) -> None:
        """End as another process does, unless the main thread is doing so."""
        self.fault, self._found = fault, self._found or time.monotonic()
        if fault.status == PREEMPTED:
            signals.request("the end of another process")
        grace = SAVED if fault.status == PREEMPTED else GRACE
        if time.monotonic() - self._found > grace:
            self.seize()
            self.end(fault.status)

    def declare(self, fault: Fault, peer: Peer | None = None) -> None:
        """Say what was found, unless another process has, and end."""
        self.seize()
        first = quickly(lambda: self.board.claim(fault), fault)
        if first == fault:
            say(f"{'preempted' if fault.status == PREEMPTED else 'error'}: {fault.text}")
        if peer is not None:
            _kill(peer)
        self.end(first.status)

    def _host_lost(self, how: str) -> None:
        """All that know say it, since they cannot agree on one. Without their launcher processes
        can still save together."""
        self._over.set()
        peer = self.peers.get(0)
        launched = peer is None or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if self.fault is None and launched:
            who = f"the launcher at {os.environ['MASTER_ADDR']}"
            say(f"error: {place.named(self.rank, place.host())}: {who} {how}.")
            signals.request("the end of the launcher")
            time.sleep(self.silence)
        self.seize()
        if self.fault is None and peer is not None and not launched:
            say(f"error: {_lost(0, peer, how)}")
            _kill(peer)
        launching.reap(0)
        signals.end_at_once(self.fault.status if self.fault else FAULT)


def begin(store: Any, hosts: bool) -> None:
    """Watch from now on; store: a connection of its own to that of the group, which this process
    may host."""
    global _watch
    _joined[os.environ["MASTER_PORT"]] += 1
    _watch = Watch(Board(store, f"{attempt()}/watch"), hosts)
    _watch.start()


def current() -> Watch | None:
    """The watch of this process, while it is in a group."""
    return _watch


def end() -> None:
    """Stop watching; the others know that this process leaves in order."""
    global _watch
    if _watch is not None:
        _watch.leave()
    _watch = None


def attempt() -> str:
    """A prefix of the store for this start of the processes, of which a launcher may make several
    with one store, and this time that they joined."""
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return f"stepsight/{restart}/{_joined[os.environ['MASTER_PORT']]}"


def _lost(rank: int, peer: Peer, how: str) -> str:
    state, beat = peer.state(), peer.beat
    if state == "T":
        how = f"is stopped: it {how}"
    elif state == "X":
        how = "died without a word (killed, perhaps for want of memory)"
    where = f" ({beat.where})" if beat.where else ""
    return (
        f"{place.named(rank, beat.host)}, process {beat.pid}, {how}; it was last in "
        f"'{beat.phase}'{where}. Start again with --resume auto."
    )


def _hung(known: dict[int, Beat]) -> str:
    """Those first that wait for none of the others, and among them the one that said least."""
    order = sorted(known, key=lambda rank: (known[rank].waits, -known[rank].age))
    told = [
        f"{place.named(rank, known[rank].host)}, process {known[rank].pid}, "
        f"{'waits' if known[rank].waits else 'hangs'} in '{known[rank].phase}' for "
        f"{known[rank].age:.0f} s ({known[rank].where})"
        for rank in order[:SHOWN]
    ]
    patience = max(beat.patience for beat in known.values())
    return (
        f"no progress for {patience:.0f} s: {'; '.join(told)}. Start again with --resume auto; "
        f"STEPSIGHT_TIMEOUT=SECONDS allows for longer steps."
    )


def _kill(peer: Peer) -> None:
    """Of this machine, a process that is stopped would stay for ever."""
    if peer.state() not in ("", "X"):
        os.kill(peer.beat.pid, signal.SIGKILL)
