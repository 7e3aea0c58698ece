"""Tasks: how a truth becomes an image to denoise, and back."""
