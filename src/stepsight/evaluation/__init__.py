"""Evaluation, sweep and report."""
