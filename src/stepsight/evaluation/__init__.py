"""Scoring of predictions, and what scores amount to."""
