"""Metrics, alignment and protocols: pure functions of arrays and masks."""
