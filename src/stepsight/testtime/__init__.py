"""Compute spent in sampling: sweeps, strategies and budgets of members."""
