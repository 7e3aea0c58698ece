"""Scaling records and fits; nothing here imports torch."""
