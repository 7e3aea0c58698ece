"""Measurements of what forecasts are worth: drawn truths, our own ladder, published tables, and
tables that are to be denied. `benchmarks/forecasts.py` runs them."""
