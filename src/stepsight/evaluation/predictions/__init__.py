"""Predictions of other programs, read and written."""
