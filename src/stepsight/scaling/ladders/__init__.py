"""Families of runs: what they are, how they run, and what they forecast."""
