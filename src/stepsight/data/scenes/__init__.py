"""Procedural worlds: batched ray casting with exact truth, a pure function of (seed, index)."""
