"""Thresholds foreseen by fine-tuning small models."""
