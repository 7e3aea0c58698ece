"""Readers of depth and normals data sets, one file per data set."""
