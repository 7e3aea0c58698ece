"""Test-time compute: sweeps, frontier, dials, planner."""
