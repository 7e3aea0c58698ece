"""Processes: those a launcher gives, or those the program starts by itself on a CPU.

`start` makes them (before torch is imported), `join` brings them together; then they talk, watch
one another, and `leave`. What goes wrong in one of them is said once, by whoever knows, and ends
all of them with the same status.
"""

from stepsight.distributed.beats import SETUP, phase, step_timeout, watching
from stepsight.distributed.faults import speak
from stepsight.distributed.launching import start
from stepsight.distributed.place import rank, world
from stepsight.distributed.talking import agreed, barrier, gathered, join, leave, part

__all__ = [
    "SETUP",
    "agreed",
    "barrier",
    "gathered",
    "join",
    "leave",
    "part",
    "phase",
    "rank",
    "speak",
    "start",
    "step_timeout",
    "watching",
    "world",
]
