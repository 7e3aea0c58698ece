"""Weights from elsewhere and weights reshaped: imports, exports, upcycling, other tasks."""
