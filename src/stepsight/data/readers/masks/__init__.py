"""Readers of segmentation data sets, one file each."""
