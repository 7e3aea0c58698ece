"""Procedural worlds, readers of real files, and the batches made of them."""
