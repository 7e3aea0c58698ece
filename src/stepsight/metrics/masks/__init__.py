"""Metrics of masks, classes and boundaries."""
