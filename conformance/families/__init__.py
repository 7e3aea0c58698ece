"""Whole checkpoints beside the code they were published with."""
