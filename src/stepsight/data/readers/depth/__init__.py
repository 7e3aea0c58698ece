"""Readers of depth and normals data sets, one file each."""
