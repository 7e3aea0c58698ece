"""Test-time compute: sweeps, frontier, axes, planner."""
