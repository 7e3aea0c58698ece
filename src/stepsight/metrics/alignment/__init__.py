"""Bringing a prediction to the scale and shift of the truth."""
