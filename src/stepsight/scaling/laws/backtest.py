"""What forecasts of a law were worth so far: its own history, told again and scored.

A rolling origin: the points beyond it along the axis of the extrapolation are hidden, the law is
fitted to the others, and each hidden point is forecast as if it had not been made.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backtest:
    """Hidden points, and how many of their intervals held."""

    axis: str  # along which points were hidden, such as "params" or "params x images"
    hits: int
    of: int
    reach: float  # of the farthest: its place along the axis over the largest one that was kept
    error: float  # median of |log error|
    bias: float  # median of log forecast - log outcome: above 0 forecasts were too pessimistic
